"""The elementwise scan x_t = a_t x_{t-1} + b_t, at the speed of memory."""

# pyright: reportIncompatibleMethodOverride=false
# (`vmap` has our arguments in place of torch's `*args`.)

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from linrec._tensors.annotated import unflatten
from linrec._tensors.arguments import check_tensor
from linrec._tensors.autograd import is_unwatched, records_gradient, with_signature
from linrec._tensors.dtypes import accumulation_dtype, common_dtype
from linrec._tensors.huge_pages import empty
from linrec._tensors.known_values import at_hand, has_values
from linrec._tensors.open_sizes import NOMINAL_STEPS, is_open, loop, nominal_size
from linrec._tensors.shapes import broadcast, check_axes
from linrec.kernels import elementwise_gradients, elementwise_scan, serves
from linrec.kernels.elementwise import differentiate_now, scan_now

# A loop over steps of so many elements is bound by memory, not by Python, ...
WIDE_STEP = 1 << 14

# ... and one over the steps of blocks that hold so many together occupies all threads.
WIDE_BLOCKS = 1 << 16

# Blocks of fewer steps would be read once more for little.
SHORT_BLOCK = 16


def linear_scan(decay: Tensor, drive: Tensor, initial_state: Tensor | None = None) -> Tensor:
    """Run an elementwise, time-varying linear recurrence.

        x_t = a_t x_{t-1} + b_t        t = 0 … T-1

    Narrow sequences are cut into blocks that advance together: a first pass finds what each block
    does to the state before it, a scan over the blocks carries the state from one to the next, and
    a second pass writes the states. Half-precision numbers are accumulated in float32. The gradient
    is the same scan run backwards; it keeps only `decay` and the states, and can be
    differentiated again.

    Args:
        decay (*batch, time, features): a; broadcasts against `drive`.
        drive (*batch, time, features): b.
        initial_state (*batch, features): the state before the first step. None: zeros.

    Returns:
        The states, `(*batch, time, features)`.

    Raises:
        ValueError: the shapes do not belong together.
        TypeError: an argument is not a floating-point or complex tensor.

    Numerical error: at most (2t + 2)·eps·Σ_s |a_t … a_{s+1}| |b_s| at step t, as of the plain loop.

    Example:
        >>> import torch, linrec
        >>> linrec.linear_scan(torch.full((4, 1), 0.5), torch.ones(4, 1)).squeeze()
        tensor([1.0000, 1.5000, 1.7500, 1.8750])

    References:
        Blelloch 1990, Prefix sums and their applications, section 1.4 (first-order recurrences).
        Martin and Cundy 2018, Parallelizing linear recurrent neural nets over sequence length.
    """
    decay, drive = check_tensor("decay", decay), check_tensor("drive", drive)
    check_axes("decay", decay, 2, "(*batch, time, features)")
    check_axes("drive", drive, 2, "(*batch, time, features)")
    shape = broadcast(decay=decay.shape, drive=drive.shape)
    state_shape = shape[:-2] + shape[-1:]
    if initial_state is None:
        # (A kernel reads a state of the full shape; elsewhere one number does for all.)
        state = drive.new_zeros(state_shape if serves(drive) else ())
    else:
        state = check_tensor("initial_state", initial_state)
        if broadcast(initial_state=state.shape, states=state_shape) != state_shape:
            raise ValueError(
                f"`initial_state` has shape {tuple(state.shape)}: expected {tuple(state_shape)}, "
                "the shape of one step of `decay` and `drive` together."
            )
    result_dtype = common_dtype(decay, drive)
    dtype = accumulation_dtype(common_dtype(decay, drive, state))
    # (Dynamo takes no tensor twice: in a graph each is a view of its own.)
    graph = torch.compiler.is_compiling()
    decay, drive, state = (
        each.to(dtype).expand(full) if graph or each.shape != full else each.to(dtype)
        for each, full in ((decay, shape), (drive, shape), (state, state_shape))
    )
    if 0 in drive.shape:
        return (decay + drive).to(result_dtype)
    if is_open(drive.shape[-2]):  # blocks are counted, and their steps unrolled
        sequences = [decay.movedim(-2, 0), drive.movedim(-2, 0)]
        states = loop(one_step, state, sequences)[0].movedim(0, -2)
    else:
        states = scan(decay, drive, state, False)
    return states.to(result_dtype) if result_dtype != dtype and not dtype.is_complex else states


def one_step(before: Tensor, decay: Tensor, drive: Tensor) -> Tensor:
    """Take one step of the scan."""
    return torch.addcmul(drive, decay, before)


def scan_states(
    diagonal: Tensor, drive: Tensor, state: Tensor | None, *, handed_out: bool
) -> tuple[Tensor, Tensor]:
    """Scan the states of a recurrence whose A is diagonal.

    Args:
        diagonal ([*batch, time,] n): the diagonal, of all steps where there is one.
        drive (*batch, time, n): what inputs add to the states.
        state (*batch, n): the state before the first step. None: zeros.
        handed_out: whether the states are the outputs, for the caller to write into. The gradient
            in the diagonal needs the states, and gets a copy then.

    Returns:
        All states, `(*batch, time, n)`, and the last, `(*batch, n)`.
    """
    decay = diagonal if diagonal.ndim > 1 else diagonal.unsqueeze(0)
    states = linear_scan(decay, drive, state)
    last = states[..., -1, :]
    return (states.clone() if handed_out and records_gradient(decay) else states), last


@with_signature
class Scan(torch.autograd.Function):
    """The scan with its gradient.

    Plain autograd would keep two tensors of all states and would step through Python again; the
    vector-Jacobian product is itself a scan against the direction of time:

        λ_t = g_t + a*_{t+1} λ_{t+1}
        da_t = x*_{t-1} λ_t        db_t = λ_t        dx_{-1} = a*_0 λ_0
    """

    @staticmethod
    def forward(decay: Tensor, drive: Tensor, state: Tensor, reverse: bool) -> Tensor:
        """Compute all states, in the direction of time or against it."""
        return forward_states(decay, drive, state, reverse)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Save the tensors of the gradient."""
        decay, _, state, ctx.reverse = inputs
        ctx.save_for_backward(decay, state, output if ctx.needs_input_grad[0] else None)
        ctx.save_for_forward(decay, state, output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Scan the gradients in the other direction."""
        decay, state, states = ctx.saved_tensors
        if ctx.needs_input_grad[0] and serves(states) and not plainly(gradients[0]):
            return *gradients_by_kernel(decay, state, states, gradients[0], ctx.reverse), None
        sensitivity = sensitivities(decay, gradients[0], ctx.reverse)
        first = decay.shape[-2] - 1 if ctx.reverse else 0
        to_state = decay[..., first, :].conj() * sensitivity[..., first, :]
        if not ctx.needs_input_grad[0]:
            return None, sensitivity, to_state, None
        to_decay = times_previous(sensitivity, states, state, ctx.reverse)
        return to_decay, sensitivity, to_state, None

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[Any, ...],
        decay: Tensor,
        drive: Tensor,
        state: Tensor,
        reverse: bool,
    ) -> tuple[Tensor, int]:
        """Make the mapped axis the first batch axis of all three."""
        axes = (axis for axis in in_dims[:3])
        tensors = [
            tensor.unsqueeze(0) if axis is None else tensor.movedim(axis, 0)
            for tensor, axis in zip((decay, drive, state), axes, strict=True)
        ]
        decay, drive, state = (
            tensor.expand(info.batch_size, *tensor.shape[1:]) for tensor in tensors
        )
        return scan(decay, drive, state, reverse), 0


def gradients_by_kernel(
    decay: Tensor, state: Tensor, states: Tensor, gradient: Tensor, reverse: bool
) -> tuple[Tensor, ...]:
    """Compute the gradients in decays, drives and the state in one pass over memory."""
    a, x, g = (each.reshape(-1, *each.shape[-2:]) for each in (decay, states, gradient))
    operation = differentiate_now if has_values(g) else elementwise_gradients
    found = operation(a, state.reshape(-1, state.shape[-1]), x, g, reverse)
    shapes = (decay.shape, decay.shape, state.shape)
    return tuple(each.reshape(shape) for each, shape in zip(found, shapes, strict=True))


class ScanWithTangents(Scan):
    """The scan with its forward derivative too, which Dynamo refuses to trace."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        """Scan the tangents: x'_t = a_t x'_{t-1} + (a'_t x_{t-1} + b'_t)."""
        decay, state, states = ctx.saved_tensors
        to_decay, to_drive, to_state, _ = tangents  # zeros, not None, where nothing moves
        moved = to_drive + to_decay * previous_states(states, state, ctx.reverse)
        return scan(decay, moved, to_state, ctx.reverse)


def scan(decay: Tensor, drive: Tensor, state: Tensor, reverse: bool) -> Tensor:
    """Scan in the direction of time or against it, differentiably."""
    if is_unwatched(decay, drive, state):
        return forward_states(decay, drive, state, reverse)
    function = Scan if torch.compiler.is_compiling() else ScanWithTangents
    return function.apply(decay, drive, state, reverse)  # type: ignore[return-value]  # untyped


def plainly(gradient: Tensor) -> bool:
    """Whether a gradient is to be differentiated again, compiled or batched: no writing in slices.

    Batched gradients (`is_grads_batched`) are tensors without memory of their own.
    """
    return torch.is_grad_enabled() or not has_values(gradient)


def sensitivities(decay: Tensor, gradient: Tensor, reverse: bool) -> Tensor:
    """Compute λ_t = g_t + a*_{t+1} λ_{t+1} for a scan in the direction of time, or against it."""
    steps = decay.shape[-2]
    # In the order of the scan: the last step, all but it, and all but the first.
    last, earlier = (0, slice(1, None)) if reverse else (steps - 1, slice(None, -1))
    later = slice(None, -1) if reverse else slice(1, None)
    end = gradient[..., last, :]
    if steps == 1:
        return gradient
    factors, drive = decay[..., later, :].conj(), gradient[..., earlier, :]
    if plainly(gradient):
        rest = scan(factors, drive, end, not reverse)
        parts = (end.unsqueeze(-2), rest) if reverse else (rest, end.unsqueeze(-2))
        return torch.cat(parts, -2)
    if serves(gradient):
        rest = forward_states(factors, drive, end, not reverse)
        return torch.cat((end.unsqueeze(-2), rest) if reverse else (rest, end.unsqueeze(-2)), -2)
    found = empty(gradient, *gradient.shape)
    found[..., last, :] = end
    fill_states(factors, drive, found[..., earlier, :], end, not reverse)
    return found


def times_previous(sensitivity: Tensor, states: Tensor, state: Tensor, reverse: bool) -> Tensor:
    """Compute λ_t x*_{t-1}, which is the gradient in a_t."""
    if plainly(sensitivity):
        return sensitivity * previous_states(states, state, reverse).conj()
    result = empty(states, *states.shape)
    now, before = (slice(None, -1), slice(1, None)) if reverse else (slice(1, None), slice(-1))
    first = -1 if reverse else 0
    rest = result[..., now, :]
    torch.mul(sensitivity[..., now, :], states[..., before, :].conj(), out=rest)
    result[..., first, :] = sensitivity[..., first, :] * state.conj()
    return result


def previous_states(states: Tensor, state: Tensor, reverse: bool) -> Tensor:
    """Give the state before each step, in the direction of the scan."""
    if reverse:
        return torch.cat([states[..., 1:, :], state.unsqueeze(-2)], -2)
    return torch.cat([state.unsqueeze(-2), states[..., :-1, :]], -2)


def forward_states(decay: Tensor, drive: Tensor, state: Tensor, reverse: bool) -> Tensor:
    """Compute the states of one or more steps; all three tensors have their full shape."""
    if serves(drive):
        if drive.ndim == 3 and has_values(drive):
            return scan_now(decay, drive, state, reverse)
        given = (each.reshape(-1, *each.shape[-2:]) for each in (decay, drive))
        operation: Callable[..., Tensor] = scan_now if has_values(drive) else elementwise_scan
        flat = operation(*given, state.reshape(-1, state.shape[-1]), reverse)
        return flat.reshape(drive.shape)
    if not (has_values(decay, drive, state) or torch.compiler.is_compiling()):
        return states_one_by_one(decay, drive, state, reverse)
    states = empty(drive, *drive.shape)
    fill_states(decay, drive, states, state, reverse)
    return states


def states_one_by_one(decay: Tensor, drive: Tensor, state: Tensor, reverse: bool) -> Tensor:
    """Compute the states in a loop that writes into no memory."""
    states: list[Tensor] = []
    order = range(drive.shape[-2])
    for step in reversed(order) if reverse else order:
        state = drive.select(-2, step) + decay.select(-2, step) * state
        states.append(state)
    return torch.stack(states[::-1] if reverse else states, -2)


def fill_states(decay: Tensor, drive: Tensor, states: Tensor, state: Tensor, reverse: bool) -> None:
    """Write the states: as many steps as equal blocks can hold, then those left over."""
    steps, width = drive.shape[-2], math.prod(drive[..., 0, :].shape)
    blocks = blocks_of(steps, nominal_size(width, NOMINAL_STEPS), drive.device.type)
    rest = steps % blocks
    main = slice(rest, None) if reverse else slice(0, steps - rest)
    left = slice(0, rest) if reverse else slice(steps - rest, None)
    a, b, x = (unflatten(t[..., main, :], -2, (blocks, -1)) for t in (decay, drive, states))
    state = fill_blocks(a, b, x, state, reverse)
    if rest:
        fill_states(decay[..., left, :], drive[..., left, :], states[..., left, :], state, reverse)


def blocks_of(steps: int, width: int, device: str = "cpu") -> int:
    """Choose the number of blocks for steps of `width` numbers.

    On a device every step of a loop waits for its launch: there the two passes over a block and the
    loop over blocks are about as long, whatever the width.
    """
    if device != "cpu":
        return max(min(math.isqrt(2 * steps), steps // 4), 1)
    blocks = 1 if width >= WIDE_STEP else min(steps // SHORT_BLOCK, WIDE_BLOCKS // width)
    return max(blocks, 1)


def fill_blocks(
    decay: Tensor, drive: Tensor, states: Tensor, state: Tensor, reverse: bool
) -> Tensor:
    """Write the states of a sequence cut into equal blocks, `(*batch, blocks, steps, features)`.

    Returns the state after the last step.
    """
    blocks, length = drive.shape[-3:-1]
    order = range(length - 1, -1, -1) if reverse else range(length)
    before = state.unsqueeze(-2)
    if blocks > 1:
        whole = multiply_steps(decay)
        if left_range(whole):  # one step after another, as far as the states themselves are finite
            a, b, x = (t.flatten(-3, -2).unsqueeze(-3) for t in (decay, drive, states))
            return fill_blocks(a, b, x, state, reverse)
        before = carry(whole, decay, drive, state, reverse)
    for step in order:
        before = write(
            states.select(-2, step), drive.select(-2, step), decay.select(-2, step), before
        )
    return before.select(-2, 0 if reverse else blocks - 1)


def multiply_steps(decay: Tensor) -> Tensor:
    """Multiply the decays of all steps, `(*batch, features)`, in halves: faster than `prod`."""
    while (steps := decay.shape[-2]) > 1:
        half = steps // 2
        product = decay[..., :half, :] * decay[..., half : 2 * half, :]
        if steps % 2:
            product[..., 0, :] *= decay[..., -1, :]
        decay = product
    return decay.squeeze(-2)


def left_range(products: Tensor) -> bool:
    """Whether products of decays are not finite: times a state of zero they would be NaN.

    Looked at on the CPU alone, where that is cheap, and where there are values to look at.
    """
    if not at_hand(products):
        return False
    return not bool(products.isfinite().all())


def carry(whole: Tensor, decay: Tensor, drive: Tensor, state: Tensor, reverse: bool) -> Tensor:
    """Find the state before each block, `(*batch, blocks, features)`.

    What blocks do to the state before them is a recurrence from block to block, scanned likewise.
    Its decays are the products over each block, `whole (*batch, blocks, features)`.
    """
    length = drive.shape[-2]
    order = range(length - 2, -1, -1) if reverse else range(1, length)
    end = drive.select(-2, length - 1 if reverse else 0)
    for step in order:
        end = torch.addcmul(drive.select(-2, step), decay.select(-2, step), end)
    after = forward_states(whole, end, state, reverse)
    return previous_states(after, state, reverse)


def write(target: Tensor, drive: Tensor, decay: Tensor, before: Tensor) -> Tensor:
    """Put drive + decay · before into the target, without a copy where torch lets us."""
    if torch.compiler.is_compiling():  # Dynamo takes no strided `out`
        return target.copy_(torch.addcmul(drive, decay, before))
    return torch.addcmul(drive, decay, before, out=target)
