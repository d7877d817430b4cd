"""The gradient of chunks whose states have gates of their own, through the doubling of blocks.

Of two neighbouring blocks of steps, `matrices` makes one:

    across = second earlyᵀ    rows = [first; second ∘ before]    columns = [early ∘ after; late]

The gradient takes them apart again, from the chunk to its single steps. Nothing is divided by.
"""

import torch
from torch import Tensor, bmm

from linrec.executors.varying.matrices import (
    Joined,
    Split,
    add_products,
    blocks_in_place,
    single,
    view_blocks,
    view_corners,
)
from linrec.executors.varying.shared_gate_gradient import WholeChunks, pull_states


def pull_gated(
    size: int, tied: bool, given: tuple[Tensor, ...], gradients: tuple[Tensor, Tensor, Tensor]
) -> tuple[Tensor, ...]:
    """Compute the gradients of `Tile.run` for gates of each state; as `pull_shared`."""
    chunks = WholeChunks(size, given, gradients[:2])
    driven, to_outputs, to_fed = chunks.driven, chunks.to_outputs, chunks.to_fed
    B, C, left, right, state = chunks.B, chunks.C, chunks.left, chunks.right, given[1]
    m, p, N = B.shape[3], C.shape[2], chunks.count
    columns = torch.cat([B.mT, left.mT], 2) if left.shape[3] else B.mT
    gates, reads, feeds, columns = (
        each.flatten(0, 1) for each in (chunks.gates, C, right.mH, columns)
    )
    (rho, n), kappa = (p + feeds.shape[1], reads.shape[2]), columns.shape[1]
    kept: list[Joined] = []
    block = blocks_in_place(single(gates, reads, feeds, columns.clone()), size, kept)
    split = Split.of(block, size, p, m)
    split = split.tie() if tied else split
    states = pull_states(split, driven, state, to_outputs, to_fed, gradients[2])
    del block, split
    rows = side_by_side(size, to_outputs, states.to_fed)
    drives = driven + states.fed if tied else side_by_side(size, driven, states.fed)
    to_matrix = bmm(rows, drives.mH)
    to_rows = bmm(rows, states.before.mH)
    to_columns = bmm(drives.conj(), states.to_after.mT)
    to_total = (states.to_after * states.before.conj()).sum(2).unsqueeze(1)
    to_total = take_apart(size, kept, to_matrix, to_rows, to_columns, to_total)

    to_shown = to_matrix.view(N, size, rho, size, kappa).diagonal(0, 1, 3).permute(0, 3, 1, 2)
    to_shown = to_shown.reshape(N * size, rho, kappa)[:, :p]
    to_rows, to_columns = (
        each.view(N * size, width, n) for each, width in ((to_rows, rho), (to_columns, kappa))
    )
    add_products(to_columns, to_shown.mT, reads.conj())
    to_reads, to_feeds = to_rows[:, :p], to_rows[:, p:]
    to_gates = add_up(to_reads * reads.conj()).add_(to_total)
    add_products(to_reads.mul_(gates.unsqueeze(1).conj()), to_shown, columns.conj())
    matrices = (to_columns[:, :m], to_columns[:, m:], to_reads, to_feeds)
    return chunks.by_steps(states.to_driven, states.to_first, to_gates, *matrices)


def side_by_side(size: int, first: Tensor, second: Tensor) -> Tensor:
    """Put what two kinds of rows have `(N, L·ρ, V)` into one, step by step."""
    if not second.shape[1]:
        return first
    parts = [each.unflatten(1, (size, each.shape[1] // size)) for each in (first, second)]
    return torch.cat(parts, 2).flatten(1, 2)


def take_apart(
    size: int,
    kept: list[Joined],
    to_matrix: Tensor,
    to_rows: Tensor,
    to_columns: Tensor,
    to_total: Tensor,
) -> Tensor:
    """Carry gradients from chunks to their single steps.

    Those of rows and columns are written over.

    Args:
        size: L.
        kept: what was joined, the smallest blocks first.
        to_matrix (N, L·ρ, L·κ), to_rows (N, L·ρ, n), to_columns (N, L·κ, n), to_total (N, 1, n):
            the gradients in the four tensors of `Block`.

    Returns:
        The gradient in the gates of single steps, `(N·L, 1, n)`.
    """
    rho, kappa = to_rows.shape[1] // size, to_columns.shape[1] // size
    b = size
    for second, early, before, after in reversed(kept):
        b //= 2
        corners = view_corners(to_matrix, size, b).flatten(0, 1)
        to_second = view_blocks(to_rows, len(before), b * rho, 1)
        to_early = view_blocks(to_columns, len(before), b * kappa, 0)
        to_before = add_up(to_second * second.conj())
        to_after = add_up(to_early * early.conj())
        to_before.addcmul_(to_total, after.conj())
        to_after.addcmul_(to_total, before.conj())
        add_products(to_second.mul_(before.conj()), corners, early.conj())
        add_products(to_early.mul_(after.conj()), corners.mT, second.conj())
        to_total = torch.stack([to_before, to_after], 1).flatten(0, 1)
    return to_total


def add_up(rows: Tensor) -> Tensor:
    """Sum `(N, rows, n)` over rows, outside of autograd; one row is its own sum."""
    return rows if rows.shape[1] == 1 else rows.sum(1, keepdim=True)
