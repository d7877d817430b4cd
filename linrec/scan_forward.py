"""Forward pass of the elementwise scan: a kernel, or blocks of steps that advance together."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from linrec._tensors.annotated import unflatten
from linrec._tensors.huge_pages import empty
from linrec._tensors.known_values import at_hand, has_values
from linrec._tensors.open_sizes import NOMINAL_STEPS, nominal_size
from linrec.kernels import elementwise_scan, loops_for, serves
from linrec.kernels.elementwise import scan_now

# A loop over steps of this many elements is bound by memory, not by Python, ...
WIDE_STEP = 1 << 14

# ... and a loop over the steps of blocks with this many elements together occupies all threads.
WIDE_BLOCKS = 1 << 16

# Blocks of fewer steps would not be worth the second reading.
SHORT_BLOCK = 16


def previous_states(states: Tensor, state: Tensor, reverse: bool) -> Tensor:
    """Return the state before each step, in the direction of the scan."""
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
    states = room_like(drive) if loops_for(drive) else empty(drive, *drive.shape)
    fill_states(decay, drive, states, state, reverse)
    return states


def room_like(drive: Tensor) -> Tensor:
    """Allocate states, with time last in memory where the drives have it last."""
    if 0 < drive.stride(-2) < drive.stride(-1):
        return empty(drive, *drive.mT.shape).mT
    return empty(drive, *drive.shape)


def states_one_by_one(decay: Tensor, drive: Tensor, state: Tensor, reverse: bool) -> Tensor:
    """Compute the states in a loop without in-place writes."""
    states: list[Tensor] = []
    order = range(drive.shape[-2])
    for step in reversed(order) if reverse else order:
        state = drive.select(-2, step) + decay.select(-2, step) * state
        states.append(state)
    return torch.stack(states[::-1] if reverse else states, -2)


def fill_states(decay: Tensor, drive: Tensor, states: Tensor, state: Tensor, reverse: bool) -> None:
    """Write the states: as many steps as fill equal blocks, then the remaining ones."""
    if loops := loops_for(drive):
        return loops.fill_on_cpu(decay, drive, states, state, reverse=reverse)
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

    On a device every step of a loop waits for its launch: there blocks are chosen so that the two
    passes over a block and the loop over blocks take about as long, whatever the width.
    """
    if device != "cpu":
        return max(min(math.isqrt(2 * steps), steps // 4), 1)
    most = WIDE_BLOCKS // max(width, 1)  # (a width of 0: no sequences)
    blocks = 1 if width >= WIDE_STEP else min(steps // SHORT_BLOCK, most)
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
        if left_range(whole):  # one step after another: the states themselves may be finite
            a, b, x = (t.flatten(-3, -2).unsqueeze(-3) for t in (decay, drive, states))
            return fill_blocks(a, b, x, state, reverse)
        before = carry(whole, decay, drive, state, reverse)
    for step in order:
        before = write(
            states.select(-2, step), drive.select(-2, step), decay.select(-2, step), before
        )
    return before.select(-2, 0 if reverse else blocks - 1)


def multiply_steps(decay: Tensor) -> Tensor:
    """Multiply the decays of all steps, `(*batch, features)`, by halving: faster than `prod`."""
    while (steps := decay.shape[-2]) > 1:
        half = steps // 2
        product = decay[..., :half, :] * decay[..., half : 2 * half, :]
        if steps % 2:
            product[..., 0, :] *= decay[..., -1, :]
        decay = product
    return decay.squeeze(-2)


def left_range(products: Tensor) -> bool:
    """Whether some product of decays is not finite: times a state of zero it would be NaN.

    Checked only on the CPU, where it is cheap, and only if values can be read.
    """
    if not at_hand(products):
        return False
    return not bool(products.isfinite().all())


def carry(whole: Tensor, decay: Tensor, drive: Tensor, state: Tensor, reverse: bool) -> Tensor:
    """Compute the state before each block, `(*batch, blocks, features)`.

    The states between blocks follow a recurrence, which is scanned in turn. Its decays are the
    products over each block, `whole (*batch, blocks, features)`.
    """
    length = drive.shape[-2]
    order = range(length - 2, -1, -1) if reverse else range(1, length)
    end = drive.select(-2, length - 1 if reverse else 0)
    for step in order:
        end = torch.addcmul(drive.select(-2, step), decay.select(-2, step), end)
    after = forward_states(whole, end, state, reverse)
    return previous_states(after, state, reverse)


def write(target: Tensor, drive: Tensor, decay: Tensor, before: Tensor) -> Tensor:
    """Write drive + decay · before into the target, without a copy where torch allows it."""
    if torch.compiler.is_compiling():  # Dynamo takes no strided `out`
        return target.copy_(torch.addcmul(drive, decay, before))
    return torch.addcmul(drive, decay, before, out=target)
