"""The elementwise scan x_t = a_t x_{t-1} + b_t, at the speed of memory."""

import math
from typing import Any

import torch
from torch import Tensor

from linrec._checks import accumulation_dtype, broadcast, check_axes, check_tensor, common_dtype

# From this many elements a step, the loop over steps is bound by memory, not by Python.
WIDE_STEP = 1 << 14


def linear_scan(decay: Tensor, drive: Tensor, initial_state: Tensor | None = None) -> Tensor:
    """Run an elementwise, time-varying linear recurrence.

        x_t = a_t x_{t-1} + b_t        t = 0 … T-1

    Narrow sequences are cut into about √T blocks that advance together: a first pass finds what
    each block does to the state before it, √T steps carry the state from block to block, and a
    second pass writes the states. Half-precision numbers are accumulated in float32. The gradient
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
        state = drive.new_zeros(())
    else:
        state = check_tensor("initial_state", initial_state)
        if broadcast(initial_state=state.shape, states=state_shape) != state_shape:
            raise ValueError(
                f"`initial_state` has shape {tuple(state.shape)}: expected {tuple(state_shape)}, "
                "the shape of one step of `decay` and `drive` together."
            )
    result_dtype = common_dtype(decay, drive)
    dtype = accumulation_dtype(common_dtype(decay, drive, state))
    decay, drive = decay.to(dtype).expand(shape), drive.to(dtype).expand(shape)
    state = state.to(dtype).expand(state_shape)
    if drive.numel() == 0:
        return (decay + drive).to(result_dtype)
    states = scan(decay, drive, state, False)
    return states.to(result_dtype) if result_dtype != dtype and not dtype.is_complex else states


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
        """Keep what the gradient needs."""
        decay, _, state, ctx.reverse = inputs
        ctx.save_for_backward(decay, state, output if ctx.needs_input_grad[0] else None)
        ctx.save_for_forward(decay, state, output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Scan the gradients in the other direction."""
        decay, state, states = ctx.saved_tensors
        (gradient,) = gradients
        steps = decay.shape[-2]
        first, last = (steps - 1, 0) if ctx.reverse else (0, steps - 1)
        # In the order of this scan: all steps but the last, but the first.
        but_last = slice(1, None) if ctx.reverse else slice(None, -1)
        but_first = slice(None, -1) if ctx.reverse else slice(1, None)
        end = gradient[..., last, :]
        if steps > 1:
            rest = scan(
                decay[..., but_first, :].conj(), gradient[..., but_last, :], end, not ctx.reverse
            )
            parts = (end.unsqueeze(-2), rest) if ctx.reverse else (rest, end.unsqueeze(-2))
            sensitivity = torch.cat(parts, -2)
        else:
            sensitivity = gradient
        to_state = decay[..., first, :].conj() * sensitivity[..., first, :]
        if not ctx.needs_input_grad[0]:
            return None, sensitivity, to_state, None
        before = previous_states(states, state, ctx.reverse)
        return before.conj() * sensitivity, sensitivity, to_state, None

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


class ScanWithTangents(Scan):
    """The scan with its forward derivative too, which Dynamo refuses to trace."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        """Scan the tangents: x'_t = a_t x'_{t-1} + (a'_t x_{t-1} + b'_t)."""
        decay, state, states = ctx.saved_tensors
        to_decay, to_drive, to_state, _ = tangents
        drive = torch.zeros_like(states) if to_drive is None else to_drive
        if to_decay is not None:
            drive = drive + to_decay * previous_states(states, state, ctx.reverse)
        start = torch.zeros_like(state) if to_state is None else to_state
        return scan(decay, drive, start, ctx.reverse)


def scan(decay: Tensor, drive: Tensor, state: Tensor, reverse: bool) -> Tensor:
    """Scan in the direction of time or against it, differentiably."""
    function = Scan if torch.compiler.is_compiling() else ScanWithTangents
    return function.apply(decay, drive, state, reverse)  # type: ignore[return-value]  # untyped


def previous_states(states: Tensor, state: Tensor, reverse: bool) -> Tensor:
    """Give the state before each step, in the direction of the scan."""
    if reverse:
        return torch.cat([states[..., 1:, :], state.unsqueeze(-2)], -2)
    return torch.cat([state.unsqueeze(-2), states[..., :-1, :]], -2)


def forward_states(decay: Tensor, drive: Tensor, state: Tensor, reverse: bool) -> Tensor:
    """Compute the states of one or more steps; all three tensors have their full shape."""
    steps, width = drive.shape[-2], drive[..., 0, :].numel()
    states = torch.empty_like(drive, memory_format=torch.contiguous_format)
    blocks = 1 if width >= WIDE_STEP else min(math.isqrt(steps), WIDE_STEP // width)
    length = steps // blocks
    main, tail = slice(0, blocks * length), slice(blocks * length, steps)
    order = (tail, main) if reverse else (main, tail)
    for part in order:
        if part.stop == part.start:
            continue
        count = blocks if part is main else 1
        a, b, x = (t[..., part, :].unflatten(-2, (count, -1)) for t in (decay, drive, states))
        state = fill_blocks(a, b, x, state, reverse)
    return states


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
        before = carry(decay, drive, state, order)
    for step in order:
        before = write(
            states.select(-2, step), drive.select(-2, step), decay.select(-2, step), before
        )
    return before.select(-2, 0 if reverse else blocks - 1)


def carry(decay: Tensor, drive: Tensor, state: Tensor, order: range) -> Tensor:
    """Find the state before each block, `(*batch, blocks, features)`."""
    total = decay.select(-2, order[0])
    end = drive.select(-2, order[0])
    for step in order[1:]:
        factor = decay.select(-2, step)
        total = total * factor
        end = torch.addcmul(drive.select(-2, step), factor, end)
    blocks = range(total.shape[-2])
    starts = []
    for block in reversed(blocks) if order.step < 0 else blocks:
        starts.append(state)
        state = torch.addcmul(end.select(-2, block), total.select(-2, block), state)
    return torch.stack(starts[::-1] if order.step < 0 else starts, -2)


def write(target: Tensor, drive: Tensor, decay: Tensor, before: Tensor) -> Tensor:
    """Put drive + decay · before into the target, without a copy where torch lets us."""
    if torch.compiler.is_compiling():  # Dynamo takes no strided `out`
        return target.copy_(torch.addcmul(drive, decay, before))
    return torch.addcmul(drive, decay, before, out=target)
