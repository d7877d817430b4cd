"""The state carried from chunk to chunk: in pairs or groups of chunks, or in a loop."""

import math

import torch
from torch import Tensor

from linrec._tensors.annotated import unflatten
from linrec._tensors.autograd import records_gradient
from linrec._tensors.devices import is_launched
from linrec._tensors.open_sizes import is_open, loop, nominal_size
from linrec.executors.base import Plan
from linrec.executors.toeplitz import toeplitz_columns
from linrec.loops import take_apart
from linrec.powers import Powers
from linrec.structures import matvec
from linrec.systems import LinearRecurrence

# The state is carried in a loop through up to this many chunks, and always in steps of at least
# this many numbers.
FEW_CHUNKS, WIDE_CARRY = 12, 1 << 15


# On devices, where each product waits for its launch, chunks are taken in groups whose states
# together have this many numbers; in pairs, down to the last one, where one state has a quarter of
# that.
GROUP, MOST_GROUPED = 512, 16


def pairings(chunks: int, few: int = FEW_CHUNKS) -> int:
    """Count the rounds of pairing after which few enough chunks are left for a loop."""
    if is_open(chunks):
        return 0
    return max(math.ceil(chunks / few) - 1, 0).bit_length()


def prepare_carry(powers: Powers, chunk: int, length: int) -> dict[str, Tensor]:
    """Compute the matrices that carry a state over chunks, their groups, groups of groups, …"""
    long = powers.beyond(chunk)
    matrix, chunks = long.square(0), length // chunk
    device, size = matrix.device.type, group_size(matrix.state_size)
    # (If prepared in every step, matrices of groups take longer to make than they save.)
    once = not records_gradient(matrix.to_dense())
    if is_launched(device) and not is_open(chunks) and size > 2 and chunks > 1 and once:
        return {"groups": groups(powers, chunk, chunks, size)}
    few = 1 if is_launched(device) else FEW_CHUNKS
    return {"powers": doublings(long, pairings(chunks, few))}


def group_size(states: int) -> int:
    """Choose the number of chunks in a group: a power of two, 2 where pairs are as good."""
    return 1 << (max(min(GROUP // states, MOST_GROUPED), 2).bit_length() - 1)


def count_levels(chunks: int, size: int) -> int:
    """Count the rounds of grouping after which one group is left."""
    levels = 1
    while (chunks := -(-chunks // size)) > 1:
        levels += 1
    return levels


def groups(powers: Powers, chunk: int, chunks: int, size: int) -> Tensor:
    """Compute the matrices for the states after each chunk of a group, `(levels, *batch, …, …)`.

    Rows stand for the additions of each chunk to the state, one below the other, then for the state
    before the group; columns are the states after each chunk. At the next level groups take the
    place of chunks.
    """
    levels: list[Tensor] = []
    for level in range(count_levels(chunks, size)):
        long = powers.beyond(chunk * size**level)
        n = long.square(0).state_size
        own = torch.eye(n, dtype=long.square(0).dtype, device=long.square(0).device)
        batch = long.square(0).batch_shape
        steps = long.krylov(own.expand(*batch, n, n), size + 1)  # (*batch, size + 1, n, n)
        within = toeplitz_columns(steps[..., :-1, :, :], 0, size).flatten(-4, -3)
        reach = steps[..., 1:, :, :].movedim(-3, -2)
        levels.append(torch.cat([within, reach], -3).flatten(-2))
    return torch.stack(levels)


def doublings(powers: Powers, count: int) -> Tensor:
    """Write out a matrix and its successive squares, `(count + 1, *batch, n, n)`."""
    return torch.stack([powers.square(level).to_dense() for level in range(count + 1)])


def carry_states(
    recurrence: LinearRecurrence, plan: Plan, rows: Tensor, inputs: Tensor, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Compute the states before each chunk, `(*batch, chunks, n)`, and after the last step."""
    length = rows.shape[-1] // inputs.shape[-1]
    if is_open(inputs.shape[-2]):
        return carry_open(recurrence, plan, rows, inputs, state)
    # (No `divmod`, which torch.compile does not trace.)
    whole, rest = inputs.shape[-2] // length, inputs.shape[-2] % length
    drive = matvec(plan["last"].unsqueeze(-3).mT, rows[..., :whole, :])
    start = drive.new_zeros(*drive.shape[:-2], drive.shape[-1]) if state is None else state
    if "groups" in plan.tensors:
        states = carry_groups(plan["groups"], drive, start)
        before = torch.cat([start.unsqueeze(-2), states[..., :-1, :]], -2)
        after = states[..., -1, :]
    else:
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
    """Compute `carry_states` in a loop over chunks, for a number of steps that a graph leaves open.

    The chunk in which the steps end is run step by step for the final state.
    """
    steps, m = inputs.shape[-2:]
    chunk = rows.shape[-1] // m
    drive = matvec(plan["last"].unsqueeze(-3).mT, rows).movedim(-2, 0)
    start = drive.new_zeros(drive.shape[1:]) if state is None else state
    before, _ = loop(
        reach_next,
        start,
        [drive],
        [plan["powers"][0]],
        before=True,
    )
    ends = torch.full((1,), steps // chunk, device=rows.device)  # no steps if all chunks are whole
    last = unflatten(rows.index_select(-2, ends), -1, (chunk, m)).squeeze(-3)
    driven = recurrence.over_time().drive(last).movedim(-2, 0)
    own = torch.arange(chunk, device=rows.device) < steps % chunk
    leaves, rebuilt = take_apart(recurrence.A)

    def step(state: Tensor, added: Tensor, active: Tensor, *given: Tensor) -> Tensor:
        return torch.where(active, rebuilt(*given).apply(state) + added, state)

    _, end = loop(step, before.index_select(0, ends).squeeze(0), [driven, own], leaves)
    return before.movedim(0, -2), end


def reach_next(state: Tensor, added: Tensor, power: Tensor) -> Tensor:
    """Compute the state before the next chunk from the state before this one."""
    return matvec(power, state) + added


def carry(powers: Tensor, drive: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the states before each chunk, `(*batch, chunks, n)`, and after the last.

    Two chunks form one of twice the length; the first one's addition to the state passes through a
    power of A. The states within pairs follow from the states before them, in one product.

    Args:
        powers (pairings + 1, *batch, n, n): A^L, A^2L, A^4L, …
        drive (*batch, chunks, n): each chunk's addition to the state.
        start (*batch, n): the state before the first chunk.
    """
    chunks, power = drive.shape[-2], powers[0]
    wide = (
        not is_launched(drive.device.type)
        and nominal_size(math.prod(drive[..., 0, :].shape), 0) >= WIDE_CARRY
    )
    if len(powers) == 1 or wide:
        states = [start]
        for step in drive.unbind(-2):
            states.append(matvec(power, states[-1]) + step)
        return torch.stack(states[:-1], -2), states[-1]
    if chunks % 2:
        drive = torch.nn.functional.pad(drive, (0, 0, 0, 1))
    power, (first, second) = power.unsqueeze(-3), unflatten(drive, -2, (-1, 2)).unbind(-2)
    # (Products have new memory, into which sums may be written.)
    before, after = carry(powers[1:], matvec(power, first).add_(second), start)
    between = matvec(power, before).add_(first)
    states = torch.stack([before, between], -2).flatten(-3, -2)
    return (states[..., :-1, :], states[..., -1, :]) if chunks % 2 else (states, after)


def carry_groups(levels: Tensor, drive: Tensor, start: Tensor) -> Tensor:
    """Compute the states after each chunk, `(*batch, chunks, n)`, group by group.

    A group counts as one long chunk: its addition to the state is the last state that its chunks
    give from a zero state. The states within groups follow from the states before them, in one
    product.

    Args:
        levels (levels, *batch, (size + 1)·n, size·n): the matrices of `groups`, level by level.
        drive (*batch, chunks, n): each chunk's addition to the state.
        start (*batch, n): the state before the first chunk.
    """
    chunks, n = drive.shape[-2:]
    into, within = levels[0][..., -n:, :], levels[0][..., :-n, :]
    size = within.shape[-1] // n
    missing = -chunks % size
    padded = torch.nn.functional.pad(drive, (0, 0, 0, missing)) if missing else drive
    added = unflatten(padded, -2, (-1, size)).flatten(-2)
    before = start.unsqueeze(-2)
    if chunks > size:
        ends = matvec(within[..., -n:].mT.unsqueeze(-3), added)
        after = carry_groups(levels[1:], ends, start)
        before = torch.cat([before, after[..., :-1, :]], -2)
    states = matvec(within.mT.unsqueeze(-3), added) + matvec(into.mT.unsqueeze(-3), before)
    return unflatten(states, -1, (size, n)).flatten(-3, -2)[..., :chunks, :]
