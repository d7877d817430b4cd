"""The elementwise scan x_t = a_t x_{t-1} + b_t, at the speed of memory."""

# pyright: reportIncompatibleMethodOverride=false
# (`vmap` has our arguments in place of torch's `*args`.)

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from linrec._tensors.annotated import unflatten
from linrec._tensors.arguments import check_tensor
from linrec._tensors.autograd import is_unwatched, records_gradient, with_signature
from linrec._tensors.dtypes import accumulation_dtype, common_dtype
from linrec._tensors.huge_pages import empty
from linrec._tensors.known_values import has_values
from linrec._tensors.open_sizes import is_open, loop
from linrec._tensors.shapes import broadcast, check_axes
from linrec.kernels import elementwise_gradients, loops_for, serves
from linrec.kernels.elementwise import differentiate_now
from linrec.scan_forward import fill_states, forward_states, previous_states, room_like
from linrec.scan_half import loops_for_halves, scan_halves


def linear_scan(decay: Tensor, drive: Tensor, initial_state: Tensor | None = None) -> Tensor:
    """Run an elementwise, time-varying linear recurrence.

        x_t = a_t x_{t-1} + b_t        t = 0 … T-1

    On a CPU where Numba is installed (`pip install 'linrec[numba]'`), and on CUDA with Triton, a
    compiled kernel reads each number once. Elsewhere narrow sequences are cut into blocks that
    advance together: a first pass computes the effect of each block on the state before it, a scan
    over the blocks carries the state from one to the next, and a second pass writes the states.
    Half-precision numbers are accumulated in float32. The gradient is the same scan run backwards;
    it keeps only `decay` and the states, and can be differentiated again.

    Args:
        decay (*batch, time, features): a; broadcasts against `drive`.
        drive (*batch, time, features): b.
        initial_state (*batch, features): the state before the first step. None: zeros.

    Returns:
        The states, `(*batch, time, features)`, in the memory layout of `drive`.

    Raises:
        ValueError: the shapes do not belong together.
        TypeError: an argument is not a floating-point or complex tensor.

    Numerical error: at most (2t + 2)·eps·Σ_s |a_t … a_{s+1}| |b_s| at step t, as in the plain loop.

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
    shape = broadcast_sides(decay, drive)
    state_shape = shape[:-2] + shape[-1:]
    if initial_state is None:
        # (A kernel reads a state of the full shape; elsewhere one number is enough.)
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
    if loops := loops_for_halves(decay, drive, state.to(dtype)):
        return scan_halves(loops, scan, decay, drive, state.to(dtype).expand(state_shape))
    # (Dynamo accepts no tensor twice: in a graph each argument is a view of its own.)
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


def broadcast_sides(decay: Tensor, drive: Tensor) -> torch.Size:
    """Broadcast the shapes of decays and drives; an error names the axis where they do not fit."""
    try:
        return broadcast(decay=decay.shape, drive=drive.shape)
    except ValueError:
        for axis, what in ((-2, "steps"), (-1, "features")):
            found = decay.shape[axis], drive.shape[axis]
            if found[0] != found[1] and 1 not in found:
                raise ValueError(
                    f"`decay` has {found[0]} {what} and `drive` {found[1]}: expected as many, or 1 "
                    f"in one of them. Their shapes are {tuple(decay.shape)} and "
                    f"{tuple(drive.shape)}, (*batch, time, features)."
                ) from None
        raise


def one_step(before: Tensor, decay: Tensor, drive: Tensor) -> Tensor:
    """Take one step of the scan."""
    return torch.addcmul(drive, decay, before)


def scan_states(
    diagonal: Tensor, drive: Tensor, state: Tensor | None, *, handed_out: bool
) -> tuple[Tensor, Tensor]:
    """Scan the states of a recurrence whose A is diagonal.

    Args:
        diagonal ([*batch, time,] n): the diagonal; one for each step if it has a time axis.
        drive (*batch, time, n): b, which the inputs add to the states.
        state (*batch, n): the state before the first step. None: zeros.
        handed_out: whether the states are returned as outputs, which the caller may write into.
            Then the gradient in the diagonal, which needs the states, gets a copy.

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

    Plain autograd would keep two tensors of all states and loop in Python again; but the
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
        loops = loops_for(states) if ctx.needs_input_grad[0] else None
        if loops and not plainly(gradients[0]):
            return *gradients_by_loop(loops, decay, state, states, gradients[0], ctx.reverse), None
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


def gradients_by_loop(
    loops: ModuleType,
    decay: Tensor,
    state: Tensor,
    states: Tensor,
    gradient: Tensor,
    reverse: bool,
) -> tuple[Tensor, ...]:
    """Compute the gradients in decays, drives and the state in one compiled loop."""
    to_decay, to_drive = (room_like(states) for _ in range(2))
    loops.differentiate_on_cpu(decay, state, states, gradient, to_decay, to_drive, reverse=reverse)
    first = decay.shape[-2] - 1 if reverse else 0
    return to_decay, to_drive, decay[..., first, :].conj() * to_drive[..., first, :]


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
    """Scan forwards or backwards in time, differentiably."""
    graph = torch.compiler.is_compiling()
    if not graph and drive.ndim > 3 and lies_within_steps(decay) and lies_within_steps(drive):
        wide, added = (each.transpose(-3, -2).flatten(-2) for each in (decay, drive))
        states = scan(wide, added, state.flatten(-2), reverse)
        return unflatten(states, -1, (drive.shape[-3], drive.shape[-1])).transpose(-3, -2)
    if is_unwatched(decay, drive, state):
        return forward_states(decay, drive, state, reverse)
    function = Scan if graph else ScanWithTangents
    return function.apply(decay, drive, state, reverse)  # type: ignore[return-value]  # untyped


def lies_within_steps(tensor: Tensor) -> bool:
    """Whether the last batch axis lies within each step in memory, like additional features.

    The heads of a network that computes them together lie so. As a batch axis they would have to be
    copied.
    """
    batch, step, feature = tensor.stride()[-3:]
    return batch < step and batch == tensor.shape[-1] * feature


def plainly(gradient: Tensor) -> bool:
    """Whether a gradient must not be written in slices: it is differentiated, compiled or batched.

    Batched gradients (`is_grads_batched`) are tensors without memory of their own.
    """
    return torch.is_grad_enabled() or not has_values(gradient)


def sensitivities(decay: Tensor, gradient: Tensor, reverse: bool) -> Tensor:
    """Compute λ_t = g_t + a*_{t+1} λ_{t+1} for a scan in the direction of time, or against it."""
    steps = decay.shape[-2]
    # In the order of the scan: the last step, all steps but the last, and all but the first.
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
    """Compute λ_t x*_{t-1}, the gradient in a_t."""
    if plainly(sensitivity):
        return sensitivity * previous_states(states, state, reverse).conj()
    result = empty(states, *states.shape)
    now, before = (slice(None, -1), slice(1, None)) if reverse else (slice(1, None), slice(-1))
    first = -1 if reverse else 0
    rest = result[..., now, :]
    torch.mul(sensitivity[..., now, :], states[..., before, :].conj(), out=rest)
    result[..., first, :] = sensitivity[..., first, :] * state.conj()
    return result
