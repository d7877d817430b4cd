"""A recurrence whose A is diagonal, or diagonal plus low rank, and changes: in chunks of steps.

With x the state before a chunk, and the feedback w_t = V_t* x_{t-1} as further inputs through U,

    x_t = d_t x_{t-1} + B_t u_t + U_t w_t        y_t = C_t x_t

is elementwise but for w. What a step s shows at a step t of the same chunk is a product through
R[t,s] = d_t d_{t-1} … d_{s+1}:

    y = Y u + Z w + P x        Y[t,s] = C_t R[t,s] B_s      Z[t,s] = C_t R[t,s] U_s
    w = F u + G w + E x        F[t,s] = V_t* R[t-1,s] B_s   G[t,s] = V_t* R[t-1,s] U_s

G is strictly lower triangular: w follows by substitution. The state is carried from chunk to chunk.

These matrices are made by doubling. Of two neighbouring blocks of steps, what the first shows in
the second is a matrix product: rows that reach back to the first step of the second block, times
columns that reach on to the last step of the first. So nothing is divided by, no logarithm taken,
and a gate of 0 is as good as any; every number is a product of gates of neighbouring steps.

References:
    Yang et al. 2024, Gated linear attention transformers with hardware-efficient training.
    Yang et al. 2024, Parallelizing linear transformers with the delta rule over sequence length.
    Bischof and Van Loan 1987, The WY representation for products of Householder matrices.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad


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
        gates (N, n): d; or (N, 1), one for all states.
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


@dataclass(frozen=True)
class Tile:
    """Some chunks of some systems, G of them, and the V sequences that each of them runs.

    Args:
        size: L, the steps of a chunk, a power of two.
    """

    size: int

    def run(
        self,
        inputs: Tensor,
        state: Tensor,
        gates: Tensor,
        B: Tensor,
        C: Tensor,
        left: Tensor,
        right: Tensor,
        make: Callable[[Block, int], Block] = blocks,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run all steps, in differentiable operations.

        Args:
            inputs (G, steps, m, V): u.
            state (G, n, V): the state before the first step.
            gates (G, steps, n): d; or (G, steps, 1).
            B (G, steps, n, m), C (G, steps, p, n): as of the recurrence; p may be 0.
            left, right (G, steps, n, r): U and V; r may be 0.
            make: `blocks`, or `blocks_in_place`.

        Returns:
            Outputs `(G, steps, p, V)`, w `(G, steps, r, V)` and the last state `(G, n, V)`.
        """
        steps, missing = inputs.shape[1], -inputs.shape[1] % self.size
        if missing:  # steps that keep the state
            gates = pad(gates, (0, 0, 0, missing), value=1.0)
            inputs, B, C, left, right = (
                pad(each, (0, 0, 0, 0, 0, missing)) for each in (inputs, B, C, left, right)
            )
        (m, V), p, r = inputs.shape[2:], C.shape[2], left.shape[3]
        G, chunks = len(inputs), inputs.shape[1] // self.size
        # (New memory, that may be written over.)
        columns = torch.cat([B.mT, left.mT], 2) if r else B.mT.clone()
        of_steps = single(*(each.flatten(0, 1) for each in (gates, C, right.mH, columns)))
        split = Split.of(make(of_steps, self.size), self.size, p, m)
        driven = inputs.reshape(G * chunks, -1, V)
        to_state = split.from_inputs.mT @ driven
        total = split.total.mT.unflatten(0, (G, chunks))
        if r:
            fed, before, end = solve_feedback(split, driven, to_state, total, state, r)
        else:
            # (Not a view of the inputs: torch 2 would drop tangents of the other results.)
            fed = driven.new_zeros(len(driven), 0, V)
            before, end = carry_tile(total, to_state, state)
        outputs = torch.baddbmm(split.show @ driven, split.read, before)
        if r:
            outputs = torch.baddbmm(outputs, split.show_fed, fed)
        outputs, fed = (
            each.reshape(G, chunks * self.size, width, V)[:, :steps]
            for each, width in ((outputs, p), (fed, r))
        )
        return outputs, fed, end


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


def carry_tile(total: Tensor, to_state: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Find the states before each chunk, `(G·chunks, n, V)`, and after the last.

    Args:
        total (G, chunks, n, 1): the gates of a chunk together.
        to_state (G·chunks, n, V): what it adds to the state.
        state (G, n, V): the state before the first.
    """
    before = []
    additions = to_state.unflatten(0, total.shape[:2]).unbind(1)
    for gate, addition in zip(total.unbind(1), additions, strict=True):
        before.append(state)
        state = torch.addcmul(addition, gate, state)
    return torch.stack(before, 1).flatten(0, 1), state


def solve_feedback(
    split: Split, driven: Tensor, to_state: Tensor, total: Tensor, state: Tensor, rank: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Solve for the feedback w while the state is carried from chunk to chunk.

    Args:
        split: the chunks.
        driven (G·chunks, L·m, V): their inputs.
        to_state (G·chunks, n, V): what these add to the state.
        total (G, chunks, n, 1): the gates of a chunk together.
        state (G, n, V): the state before the first.
        rank: r.

    Returns:
        w `(G·chunks, L·r, V)`, the states before each chunk, and the state after the last.
    """
    solve = inverse(split.feed_fed, rank)
    by_inputs, by_state = solve @ (split.feed @ driven), solve @ split.reach
    parts = (by_inputs, by_state, split.from_fed.mT, to_state)
    before, fed = [], []
    for gate, start, through, back, addition in zip(
        total.unbind(1),
        *(part.unflatten(0, total.shape[:2]).unbind(1) for part in parts),
        strict=True,
    ):
        before.append(state)
        fed.append(torch.baddbmm(start, through, state))
        state = torch.baddbmm(torch.addcmul(addition, gate, state), back, fed[-1])
    return torch.stack(fed, 1).flatten(0, 1), torch.stack(before, 1).flatten(0, 1), state


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


class Recomputed(torch.autograd.Function):
    """A tile that saves its arguments alone; backward computes its matrices again."""

    @staticmethod
    def forward(tile: Tile, *given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run all steps."""
        return tile.run(*given, make=blocks_in_place)  # type: ignore[misc]  # all seven

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Save the arguments."""
        ctx.tile, *given = inputs
        ctx.save_for_backward(*given)
        ctx.save_for_forward(*given)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        """Run again, and back."""
        given, needed = list(ctx.saved_tensors), ctx.needs_input_grad[1:]
        moved = [index for index, asked in enumerate(needed) if asked]

        def run(*tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            for index, tensor in zip(moved, tensors, strict=True):
                given[index] = tensor
            return ctx.tile.run(*given)

        pull = torch.func.vjp(run, *(given[index] for index in moved))[1]
        found = dict(zip(moved, pull(tuple(gradients)), strict=True))
        return None, *(found.get(index) for index in range(len(needed)))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], tile: Tile, *given: Tensor) -> Any:
        """Count the mapped axis among the systems."""
        moved = (
            tensor.expand(info.batch_size, *tensor.shape)
            if axis is None
            else tensor.movedim(axis, 0)
            for tensor, axis in zip(given, in_dims[1:], strict=True)
        )
        results = Recomputed.apply(tile, *(tensor.flatten(0, 1) for tensor in moved))
        return tuple(each.unflatten(0, (info.batch_size, -1)) for each in results), (0, 0, 0)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor) -> Any:
        """Move all that is given at once: forwards is backwards, transposed.

        (A forward derivative within one cannot be had of torch; that of the gradient, which is
        linear in what comes back, can.)
        """
        found = torch.func.vjp(ctx.tile.run, *ctx.saved_tensors)
        zeros = [torch.zeros_like(each) for each in found[0]]
        return torch.func.vjp(lambda *moved: found[1](moved), *zeros)[1](tangents)
