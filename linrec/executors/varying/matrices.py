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
from torch import Tensor, bmm
from torch.nn.functional import pad

from linrec._tensors.autograd import records_gradient
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
    shown, rows = bmm(reads, columns.mT), reads * gates
    if feeds.shape[1]:
        shown = torch.cat([shown, shown.new_zeros(len(shown), feeds.shape[1], shown.shape[2])], 1)
        rows = torch.cat([rows, feeds], 1)
    return Block(shown, rows, columns, gates)


def double_blocks(block: Block) -> Block:
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
        steps = double_blocks(steps)
    return steps


class Joined(NamedTuple):
    """Neighbouring blocks before they were joined, pairs of them, and the products of their gates.

    Attributes:
        second (N, b·ρ, n): rows of the second block.
        early (N, b·κ, n): columns of the first.
        before (N, 1, n), after (N, 1, n): the gates of the first and of the second together.
    """

    second: Tensor
    early: Tensor
    before: Tensor
    after: Tensor


def blocks_in_place(steps: Block, size: int, kept: list[Joined] | None = None) -> Block:
    """Compute `blocks` in place, outside of autograd; append the joints of a gradient to `kept`."""
    shown, total, chunks = steps.shown, steps.total, len(steps.total) // size
    rho, kappa = shown.shape[1:]
    matrix = shown.new_zeros(chunks, size * rho, size * kappa)
    matrix.view(chunks, size, rho, size, kappa).diagonal(0, 1, 3).copy_(
        shown.unflatten(0, (chunks, size)).permute(0, 2, 3, 1)
    )
    rows, columns = (each.contiguous() for each in (steps.rows, steps.columns))
    n, b = rows.shape[-1], 1
    while b < size:
        before, after = total[::2], total[1::2]
        second = view_blocks(rows, len(before), b * rho, 1)
        early = view_blocks(columns, len(before), b * kappa, 0)
        corners = view_corners(matrix, size, b)
        corners.copy_(bmm(second, early.mT).view(corners.shape))
        if kept is not None:
            kept.append(Joined(second.clone(), early.clone(), before, after))
        second *= before
        early *= after
        total, b = before * after, 2 * b
    return Block(
        matrix, rows.view(chunks, size * rho, n), columns.view(chunks, size * kappa, n), total
    )


def view_blocks(steps: Tensor, pairs: int, height: int, which: int) -> Tensor:
    """View the first or the second of each two neighbouring blocks.

    (What this and `view_corners` see could be had by a few of torch's slices, each of which costs
    as much as a small product.)

    Args:
        steps (N, …, n): rows or columns of all steps, contiguous.
        pairs: how many there are.
        height: the rows of a block.
        which: 0 for the first, 1 for the second.

    Returns:
        `(pairs, height, n)`.
    """
    assert steps.is_contiguous(), "other strides would be other numbers"
    n = steps.shape[-1]
    start = steps.storage_offset() + which * height * n
    return steps.as_strided((pairs, height, n), (2 * height * n, n, 1), start)


def view_corners(matrix: Tensor, size: int, b: int) -> Tensor:
    """View what first blocks show in second ones, `(N, pairs, b·ρ, b·κ)`.

    Args:
        matrix (N, L·ρ, L·κ): of chunks, contiguous.
        size: L.
        b: the steps of a block. Pair i has its corner in row (2 i + 1) b ρ, column 2 i b κ.
    """
    assert matrix.is_contiguous(), "other strides would be other numbers"
    N, height, width = matrix.shape
    down, across = b * (height // size), b * (width // size)
    steps = (height * width, 2 * (down * width + across), width, 1)
    start = matrix.storage_offset() + down * width
    return matrix.as_strided((N, size // (2 * b), down, across), steps, start)


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

    def tie(self) -> "Split":
        """Let the feedback take the same way as the inputs, where U is B."""
        return self._replace(show_fed=self.show, feed_fed=self.feed, from_fed=self.from_inputs)


def products_by_chunk(gates: Tensor, size: int) -> Tensor:
    """Multiply gates of all states, `(G, steps, 1)`, within each chunk, as `gate_products`.

    One chunk stands for all where one number does for all steps of all systems; where each system
    has a number of its own, its chunks are one, repeated.
    """
    if gates.stride(0) == gates.stride(1) == 0:
        return gate_products(gates[:1, :size, 0])
    if gates.stride(1) == 0:
        return gate_products(gates[:, :size, 0]).repeat_interleave(gates.shape[1] // size, 0)
    return gate_products(gates.reshape(-1, size))


def split_shared(
    ratios: Tensor,
    B: Tensor,
    C: Tensor,
    left: Tensor | None,
    right: Tensor,
    in_place: bool = False,
) -> Split:
    """Make the matrices of chunks whose states all have one gate.

        R[t,s] = d_t … d_{s+1}        Y[t,s] = R[t,s] (C_t B_s),  F[t,s] = R[t-1,s] (V_t* B_s)

    Args:
        ratios (N or 1, L + 1, L + 1): R, as of `gate_products`.
        B (G, steps, n, m), C (G, steps, p, n), left, right (G, steps, n, r): as of `Tile.run`, of
            whole chunks. left None: it is B.
        in_place: whether matrices are written in place, outside of autograd.
    """
    size = ratios.shape[1] - 1
    N = B.shape[0] * B.shape[1] // size
    before, after = ratios[:, :-1], ratios[:, 1:]
    reads, feeds = (rows.reshape(N, size, *rows.shape[2:]) for rows in (C, right.mH))
    tied, left = left is None, B[..., :0] if left is None else left
    inputs, backs = (columns.mT.reshape(N, size, *columns.mT.shape[2:]) for columns in (B, left))
    to_end = after[:, -1, 1:, None, None]
    steps = [each.flatten(1, 2) for each in (reads, feeds, inputs, backs)]

    def between(row: int, column: int, ratios: Tensor, last: int) -> Tensor:
        products = hide_later(bmm(steps[row], steps[column].mT), size, last, in_place)
        return weigh(products, ratios[..., 1:], in_place)

    split = Split(
        show=between(0, 2, after, 0),
        show_fed=between(0, 3, after, 0),
        feed=between(1, 2, before, -1),
        feed_fed=between(1, 3, before, -1),
        read=(reads * after[..., :1, None]).flatten(1, 2),
        reach=(feeds * before[..., :1, None]).flatten(1, 2),
        from_inputs=(inputs * to_end).flatten(1, 2),
        from_fed=(backs * to_end).flatten(1, 2),
        total=after[:, -1:, :1].expand(N, 1, 1),
    )
    return split.tie() if tied else split


def gate_products(gates: Tensor) -> Tensor:
    """Multiply neighbouring gates, R[t,s] = d_t … d_{s+1}, for t and s from -1: 1 for t = s.

    Args:
        gates (N, L): d.

    Returns:
        `(N, L + 1, L + 1)`, zero where s > t.
    """
    size = gates.shape[1]
    if records_gradient(gates):
        fed = torch.eye(size + 1, dtype=gates.dtype, device=gates.device)
        after = linear_scan(gates.unsqueeze(-1), fed[1:], fed[0])
        return torch.cat([fed[:1].expand(len(gates), 1, size + 1), after], 1)
    steps = torch.arange(size + 1, device=gates.device)
    longer = pad(gates, (1, 0), value=1.0).unsqueeze(-1)
    return torch.where(steps < steps.unsqueeze(-1), longer, 1).cumprod_(1).tril_()


def hide_later(products: Tensor, size: int, last: int, in_place: bool) -> Tensor:
    """Put zeros where a step would see a later one: no zero times what could be infinite.

    Args:
        products (N, L·ρ, L·κ): of the steps.
        size: L.
        last: the last step that a step sees, counted from itself.
        in_place: whether to write over the products.
    """
    rho, kappa = products.shape[1] // size, products.shape[2] // size
    if rho * kappa == 1:
        return products.tril_(last) if in_place else products.tril(last)
    if not rho * kappa:
        return products
    steps = torch.arange(size, device=products.device)
    unseen = steps > steps.unsqueeze(-1) + last
    hidden = products.unflatten(2, (size, kappa)).unflatten(1, (size, rho))
    return torch.where(unseen[:, None, :, None], 0, hidden).flatten(3).flatten(1, 2)


def weigh(products: Tensor, ratios: Tensor, in_place: bool) -> Tensor:
    """Multiply `(N, L·ρ, L·κ)` by one number for each pair of steps, `(N, L, L)`."""
    size = ratios.shape[1]
    rho, kappa = products.shape[1] // size, products.shape[2] // size
    if rho * kappa == 1:
        return products.mul_(ratios) if in_place else products * ratios
    if not rho * kappa:
        return products
    weighed = products.unflatten(2, (size, kappa)).unflatten(1, (size, rho))
    weighed = weighed * ratios[:, :, None, :, None]
    return weighed.flatten(3).flatten(1, 2)


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


def add_products(sums: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Add products of small matrices in place, outside of autograd.

    (Torch multiplies batches of tiny matrices number by number: sums of one or two terms take it
    five to fifteen times as long as elementwise operations take.)

    Args:
        sums (N, a, n): written over.
        left (N, a, c), right (N, c, n): the factors.
    """
    if left.shape[2] > 2:
        return sums.add_(bmm(left, right))
    for term in range(left.shape[2]):
        sums.addcmul_(left[:, :, term : term + 1], right[:, term : term + 1])
    return sums


def inverse(lower: Tensor) -> Tensor:
    """Invert I - G, for G strictly lower triangular, by substitution.

    Args:
        lower (N, width, width): G.
    """
    identity = torch.eye(lower.shape[-1], dtype=lower.dtype, device=lower.device)
    return torch.linalg.solve_triangular(
        identity - lower, identity.expand_as(lower), upper=False, unitriangular=True
    )
