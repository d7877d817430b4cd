"""Matrices between the steps of a chunk, where A changes: products of gates.

These matrices are made by doubling. Of two neighbouring blocks of steps, what the first shows in
the second is a matrix product: rows that reach back to the first step of the second block, times
columns that reach on to the last step of the first. So nothing is divided by, no logarithm taken,
and a gate of 0 is as good as any; every number is a product of gates of neighbouring steps.

Where all states have one gate, the products of gates are numbers, R[t,s]; they are doubled alone,
and rows times columns is one product of matrices.

References:
    Yang et al. 2024, Gated linear attention transformers with hardware-efficient training.
    Dao and Gu 2024, Transformers are SSMs, section 6 (one gate for all states).
    Bischof and Van Loan 1987, The WY representation for products of Householder matrices.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from linrec.scan import linear_scan


class Block(NamedTuple):
    """N blocks of b neighbouring steps, with ρ rows and κ columns a step.

    Attributes:
        shown (N, b·ρ, b·κ): what each step shows in the rows of each step.
        rows (N, b·ρ, n): what the state before the block shows there.
        columns (N, b·κ, n): what each step leaves in the state after the block.
        total (N, 1, n): the product of all gates.
    """

    shown: Tensor
    rows: Tensor
    columns: Tensor
    total: Tensor


def single(gates: Tensor, reads: Tensor, feeds: Tensor, columns: Tensor) -> Block:
    """Describe single steps.

    Args:
        gates (N, n): d.
        reads (N, p, n): C, whose rows see the state after a step.
        feeds (N, r, n): V*, whose rows see the state before it.
        columns (N, m + r, n): B and U, transposed.
    """
    gates = gates.unsqueeze(1)
    shown, rows = reads @ columns.mT, reads * gates
    if feeds.shape[1]:
        shown = torch.cat([shown, shown.new_zeros(len(shown), feeds.shape[1], shown.shape[2])], 1)
        rows = torch.cat([rows, feeds], 1)
    return Block(shown, rows, columns, gates)


def doubled(block: Block) -> Block:
    """Make blocks of twice the steps out of neighbours."""
    (own, below), (first, second), (early, late), (before, after) = (
        each.unflatten(0, (-1, 2)).unbind(1) for each in block
    )
    across = second @ early.mT
    above = torch.cat([own, torch.zeros_like(own)], 2)
    return Block(
        torch.cat([above, torch.cat([across, below], 2)], 1),
        torch.cat([first, second * before], 1),
        torch.cat([early * after, late], 1),
        before * after,
    )


def blocks(steps: Block, size: int) -> Block:
    """Make blocks of `size` steps, a power of two, in differentiable operations."""
    for _ in range(size.bit_length() - 1):
        steps = doubled(steps)
    return steps


def blocks_in_place(steps: Block, size: int) -> Block:
    """Compute `blocks` in place, outside of autograd."""
    shown, total, chunks = steps.shown, steps.total, len(steps.total) // size
    rho, kappa = shown.shape[1:]
    matrix = shown.new_zeros(chunks, size * rho, size * kappa)
    matrix.view(chunks, size, rho, size, kappa).diagonal(0, 1, 3).copy_(
        shown.unflatten(0, (chunks, size)).permute(0, 2, 3, 1)
    )
    rows, columns = (each.contiguous() for each in (steps.rows, steps.columns))
    n, b = rows.shape[-1], 1
    while b < size:
        pairs = size // (2 * b)
        second = rows.view(chunks * pairs, 2, b * rho, n)[:, 1]
        early = columns.view(chunks * pairs, 2, b * kappa, n)[:, 0]
        before, after = total.unflatten(0, (-1, 2)).unbind(1)
        corner = matrix.view(chunks, pairs, 2, b * rho, pairs, 2, b * kappa)[:, :, 1, :, :, 0]
        across = (second @ early.mT).unflatten(0, (chunks, pairs))
        corner.diagonal(0, 1, 3).copy_(across.permute(0, 2, 3, 1))
        second *= before
        early *= after
        total, b = before * after, 2 * b
    return Block(
        matrix, rows.view(chunks, size * rho, n), columns.view(chunks, size * kappa, n), total
    )


class Split(NamedTuple):
    """Chunks of L steps, N of them: rows that are read and fed back, columns of inputs and of w.

    Attributes:
        show (N, L·p, L·m): Y.
        show_fed (N, L·p, L·r): Z.
        feed (N, L·r, L·m): F.
        feed_fed (N, L·r, L·r): G.
        read (N, L·p, n): P.
        reach (N, L·r, n): E.
        from_inputs (N, L·m, n): what inputs leave in the state after the chunk, transposed.
        from_fed (N, L·r, n): what w leaves there.
        total (N, 1, n): the product of all gates.
    """

    show: Tensor
    show_fed: Tensor
    feed: Tensor
    feed_fed: Tensor
    read: Tensor
    reach: Tensor
    from_inputs: Tensor
    from_fed: Tensor
    total: Tensor

    @staticmethod
    def of(block: Block, size: int, p: int, m: int) -> "Split":
        """Cut blocks of `size` steps: the first p rows are read, the first m columns are inputs."""
        upper, lower = by_step(block.shown, size, 1, p)
        return Split(
            *by_step(upper, size, 2, m),
            *by_step(lower, size, 2, m),
            *by_step(block.rows, size, 1, p),
            *by_step(block.columns, size, 1, m),
            block.total,
        )


def split_shared(
    gates: Tensor, B: Tensor, C: Tensor, left: Tensor, right: Tensor, size: int
) -> Split:
    """Make the matrices of chunks whose states all have one gate.

        R[t,s] = d_t … d_{s+1}        Y[t,s] = R[t,s] (C_t B_s),  F[t,s] = R[t-1,s] (V_t* B_s)

    Args:
        gates (G, steps, 1): d, of whole chunks.
        B (G, steps, n, m), C (G, steps, p, n), left, right (G, steps, n, r): as of `Tile.run`.
        size: L.
    """
    # R[t,-1] and R[t,s], side by side: the state that begins with 1, and that step s feeds with 1.
    N = gates.shape[0] * gates.shape[1] // size
    fed = torch.eye(size + 1, dtype=gates.dtype, device=gates.device)
    after = linear_scan(gates.reshape(N, size, 1), fed[1:], fed[0])
    start = fed[:1].expand(N, 1, size + 1)
    before = torch.cat([start, after[:, :-1]], 1)
    reads, feeds = (rows.reshape(N, size, *rows.shape[2:]) for rows in (C, right.mH))
    inputs, backs = (columns.mT.reshape(N, size, *columns.mT.shape[2:]) for columns in (B, left))
    to_end = after[:, -1, 1:, None, None]
    return Split(
        show=weigh(reads, inputs, after[..., 1:], 0),
        show_fed=weigh(reads, backs, after[..., 1:], 0),
        feed=weigh(feeds, inputs, before[..., 1:], -1),
        feed_fed=weigh(feeds, backs, before[..., 1:], -1),
        read=(reads * after[..., :1, None]).flatten(1, 2),
        reach=(feeds * before[..., :1, None]).flatten(1, 2),
        from_inputs=(inputs * to_end).flatten(1, 2),
        from_fed=(backs * to_end).flatten(1, 2),
        total=after[:, -1:, :1],
    )


def weigh(rows: Tensor, columns: Tensor, ratios: Tensor, last: int) -> Tensor:
    """Compute rows times columns, weighed by R, `(N, L·ρ, L·κ)`.

    Args:
        rows (N, L, ρ, n), columns (N, L, κ, n): of each step.
        ratios (N, L, L): R, of the steps.
        last: the last step that a step sees, counted from itself.
    """
    (N, size, rho), kappa = rows.shape[:3], columns.shape[2]
    if not rho * kappa:
        return rows.new_zeros(N, size * rho, size * kappa)
    products = rows.flatten(1, 2) @ columns.flatten(1, 2).mT
    # What is not seen is not zero times a product, which could be infinite.
    steps = torch.arange(size, device=rows.device)
    unseen = steps > steps.unsqueeze(-1) + last
    if rho * kappa == 1:
        return torch.where(unseen, 0, products) * ratios
    products = products.view(N, size, rho, size, kappa)
    products = torch.where(unseen[:, None, :, None], 0, products) * ratios[:, :, None, :, None]
    return products.flatten(3).flatten(1, 2)


def by_step(tensor: Tensor, size: int, axis: int, first: int) -> tuple[Tensor, Tensor]:
    """Split an axis of steps into the first numbers of each step and the rest."""
    width = tensor.shape[axis] // size
    if first == width:
        return tensor, tensor.narrow(axis, 0, 0)
    if first == 0:
        return tensor.narrow(axis, 0, 0), tensor
    steps = tensor.unflatten(axis, (size, width))
    parts = steps.narrow(axis + 1, 0, first), steps.narrow(axis + 1, first, width - first)
    # (Products of matrices whose rows and columns are both strided would be one by one.)
    left, right = (part.flatten(axis, axis + 1).contiguous() for part in parts)
    return left, right


def inverse(lower: Tensor, rank: int) -> Tensor:
    """Invert I - G, for G strictly lower triangular in blocks of r: by substitution, in pairs.

        [ I - G₁          ]⁻¹   [ T₁           ]
        [  -G₂₁    I - G₂ ]   = [ T₂ G₂₁ T₁  T₂ ]

    (Products of I + G, I + G², I + G⁴, … would be the same, but for what cancels in them.)

    Args:
        lower (N, L·r, L·r): G.
        rank: r.
    """
    N, width = lower.shape[:2]
    found = torch.eye(rank, dtype=lower.dtype, device=lower.device)
    found, b = found.expand(N * width // rank, rank, rank), rank
    while b < width:
        first, second = found.unflatten(0, (-1, 2)).unbind(1)
        corners = lower.reshape(N, width // (2 * b), 2, b, width // (2 * b), 2, b)
        corners = corners[:, :, 1, :, :, 0].diagonal(0, 1, 3).permute(0, 3, 1, 2).flatten(0, 1)
        across = second @ corners @ first
        above = torch.cat([first, torch.zeros_like(first)], 2)
        found, b = torch.cat([above, torch.cat([across, second], 2)], 1), 2 * b
    return found
