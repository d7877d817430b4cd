"""Carry the state from chunk to chunk: in pairs of chunks, or in a loop over them."""

# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# (The annotations of torch and numpy are partial.)

import math

import torch
from torch import Tensor

from linrec._graphs import closed, is_open, loop
from linrec.executors.base import Plan
from linrec.loops import take_apart
from linrec.powers import Powers
from linrec.structures import matvec
from linrec.systems import LinearRecurrence

# The state is carried through so many chunks in a loop, and in steps of so many numbers always.
FEW_CHUNKS, WIDE_CARRY = 12, 1 << 15


def pairings(chunks: int) -> int:
    """Count how often chunks are taken in pairs until few enough are left for a loop."""
    if is_open(chunks):
        return 0
    return max(math.ceil(chunks / FEW_CHUNKS) - 1, 0).bit_length()


def doublings(powers: Powers, count: int) -> Tensor:
    """Write out a matrix and its repeated squares, `(count + 1, *batch, n, n)`."""
    return torch.stack([powers.square(level).to_dense() for level in range(count + 1)])


def carry_states(
    recurrence: LinearRecurrence, plan: Plan, rows: Tensor, inputs: Tensor, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Find the states before each chunk, `(*batch, chunks, n)`, and after the last step."""
    length = rows.shape[-1] // inputs.shape[-1]
    if is_open(inputs.shape[-2]):
        return carry_open(recurrence, plan, rows, inputs, state)
    whole, rest = divmod(inputs.shape[-2], length)
    drive = matvec(plan["last"].unsqueeze(-3).mT, rows[..., :whole, :])
    start = drive.new_zeros(*drive.shape[:-2], drive.shape[-1]) if state is None else state
    before, after = carry(plan["powers"], drive, start)
    if not rest:
        return before, after
    tail = rows[..., -1, : rest * inputs.shape[-1]]
    last = plan["last"][..., -tail.shape[-1] :, :]  # a short chunk's kernel is a long one's end
    end = matvec(last.mT, tail) + matvec(plan["rest_power"], after)
    return torch.cat([before, after.unsqueeze(-2)], -2), end


def carry_open(
    recurrence: LinearRecurrence, plan: Plan, rows: Tensor, inputs: Tensor, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """As `carry_states`, for steps that a graph leaves open: a loop over chunks.

    The chunk in which the steps end is run step by step for the state after them.
    """
    steps, m = inputs.shape[-2:]
    chunk = rows.shape[-1] // m
    drive = matvec(plan["last"].unsqueeze(-3).mT, rows).movedim(-2, 0)
    start = drive.new_zeros(drive.shape[1:]) if state is None else state
    before, _ = loop(
        lambda state, added, power: matvec(power, state) + added,
        start,
        [drive],
        [plan["powers"][0]],
        before=True,
    )
    ends = torch.full((1,), steps // chunk, device=rows.device)  # none of it, if it is whole
    last = rows.index_select(-2, ends).unflatten(-1, (chunk, m)).squeeze(-3)
    driven = recurrence.over_time().drive(last).movedim(-2, 0)
    own = torch.arange(chunk, device=rows.device) < steps % chunk
    leaves, rebuilt = take_apart(recurrence.A)

    def step(state: Tensor, added: Tensor, active: Tensor, *given: Tensor) -> Tensor:
        return torch.where(active, rebuilt(*given).apply(state) + added, state)

    _, end = loop(step, before.index_select(0, ends).squeeze(0), [driven, own], leaves)
    return before.movedim(0, -2), end


def carry(powers: Tensor, drive: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Find the states before each chunk, `(*batch, chunks, n)`, and after the last.

    Two chunks are one of twice the length: what they add to the state, the first adds through a
    power of A. From the states before all pairs those between them follow, in one product.

    Args:
        powers (pairings + 1, *batch, n, n): A^L, A^2L, A^4L, …
        drive (*batch, chunks, n): what each chunk adds to the state.
        start (*batch, n): the state before the first.
    """
    chunks, power = drive.shape[-2], powers[0]
    if len(powers) == 1 or closed(math.prod(drive[..., 0, :].shape), 0) >= WIDE_CARRY:
        states = [start]
        for step in drive.unbind(-2):
            states.append(matvec(power, states[-1]) + step)
        return torch.stack(states[:-1], -2), states[-1]
    if chunks % 2:
        drive = torch.nn.functional.pad(drive, (0, 0, 0, 1))
    power, (first, second) = power.unsqueeze(-3), drive.unflatten(-2, (-1, 2)).unbind(-2)
    # (Products are new memory, that sums may be written into.)
    before, after = carry(powers[1:], matvec(power, first).add_(second), start)
    between = matvec(power, before).add_(first)
    states = torch.stack([before, between], -2).flatten(-3, -2)
    return (states[..., :-1, :], states[..., -1, :]) if chunks % 2 else (states, after)
