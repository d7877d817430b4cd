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

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from linrec.scan import linear_scan
from linrec.structures import matvec
from linrec.systems import LinearRecurrence

# The numbers of a tensor that many of which fit into the caches.
CACHE = 1 << 17


class Block(NamedTuple):
    """What blocks of b neighbouring steps are, N of them, with ρ rows and κ columns a step.

    Attributes:
        shown (N, ρ, b, κ, b): what each step shows in the rows of each step.
        rows (N, ρ, b, n): what the state before the block shows there.
        columns (N, κ, b, n): what each step leaves in the state after the block.
        total (N, 1, 1, n): the product of all gates.
    """

    shown: Tensor
    rows: Tensor
    columns: Tensor
    total: Tensor


def doubled(block: Block) -> Block:
    """Make blocks of twice the steps out of neighbours."""
    (first, second), (early, late) = (
        each.unflatten(0, (-1, 2)).unbind(1) for each in (block.rows, block.columns)
    )
    before, after = block.total.unflatten(0, (-1, 2)).unbind(1)
    shape, b = (*second.shape[1:3], early.shape[1]), early.shape[2]
    across = second.flatten(1, 2) @ early.flatten(1, 2).mT
    across = across.unflatten(1, shape[:2]).unflatten(-1, (shape[2], b))
    own, below = block.shown.unflatten(0, (-1, 2)).unbind(1)
    shown = torch.cat(
        [torch.cat([own, torch.zeros_like(own)], -1), torch.cat([across, below], -1)], 2
    )
    return Block(
        shown,
        torch.cat([first, second * before], 2),
        torch.cat([early * after, late], 2),
        before * after,
    )


def blocks(gates: Tensor, reads: Tensor, feeds: Tensor, columns: Tensor, size: int) -> Block:
    """Make blocks of `size` steps, a power of two.

    Args:
        gates (N, n): d, of all steps of all blocks; or (N, 1), one for all states.
        reads (N, p, n): C, whose rows see the state after a step.
        feeds (N, r, n): V*, whose rows see the state before it.
        columns (N, m + r, n): B and U, transposed.
        size: b.
    """
    own = reads @ columns.mT
    own = torch.cat([own, own.new_zeros(len(own), feeds.shape[1], own.shape[2])], 1)
    block = Block(
        own[:, :, None, :, None],
        torch.cat([reads * gates.unsqueeze(1), feeds], 1).unsqueeze(2),
        columns.unsqueeze(2),
        gates[:, None, None],
    )
    for _ in range(size.bit_length() - 1):
        block = doubled(block)
    return block


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
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run all steps, in differentiable operations.

        Args:
            inputs (G, steps, m, V): u.
            state (G, n, V): the state before the first step.
            gates (G, steps, n): d; or (G, steps, 1).
            B (G, steps, n, m), C (G, steps, p, n): as of the recurrence; p may be 0.
            left, right (G, steps, n, r): U and V; r may be 0.

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
        chunks = (len(inputs), -1)
        columns = torch.cat([B, left], -1).mT if r else B.mT
        block = blocks(
            *(each.flatten(0, 1) for each in (gates, C, right.mH, columns)), self.size
        )
        driven = inputs.unflatten(1, (-1, self.size)).flatten(0, 1).transpose(1, 2).flatten(1, 2)
        to_state = block.columns[:, :m].flatten(1, 2).mT @ driven
        total = block.total.flatten(1).unsqueeze(-1).unflatten(0, chunks)
        feedback = inputs.new_zeros(len(driven), 0, V)
        if r:
            before, end, feedback = fed_back(block, driven, to_state, total, state, p, m)
        else:
            before, end = carried(total, to_state.unflatten(0, chunks), state)
        if not p:
            outputs = inputs.new_zeros(*inputs.shape[:2], 0, V)
        else:
            outputs = block.shown[:, :p, :, :m].flatten(3, 4).flatten(1, 2) @ driven
            outputs = torch.baddbmm(outputs, block.rows[:, :p].flatten(1, 2), before)
            if r:
                fed = block.shown[:, :p, :, m:].transpose(3, 4).flatten(3, 4).flatten(1, 2)
                outputs = torch.baddbmm(outputs, fed, feedback)
            outputs = outputs.unflatten(1, (p, -1)).transpose(1, 2).unflatten(0, chunks)
            outputs = outputs.flatten(1, 2)[:, :steps]
        feedback = feedback.unflatten(1, (self.size, r)).unflatten(0, chunks).flatten(1, 2)
        return outputs, feedback[:, :steps], end


def carried(total: Tensor, to_state: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Find the states before each chunk, `(G·chunks, n, V)`, and after the last.

    Args:
        total (G, chunks, n, 1): the gates of a chunk together.
        to_state (G, chunks, n, V): what it adds to the state.
        state (G, n, V): the state before the first.
    """
    before = []
    for gate, step in zip(total.unbind(1), to_state.unbind(1), strict=True):
        before.append(state)
        state = torch.addcmul(step, gate, state)
    return torch.stack(before, 1).flatten(0, 1), state


def fed_back(
    block: Block, driven: Tensor, to_state: Tensor, total: Tensor, state: Tensor, p: int, m: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Solve for the feedback w while the state is carried from chunk to chunk.

    Args:
        block: the chunks; p rows a step are read, and m columns are of inputs.
        driven (G·chunks, m·L, V): the inputs of the chunks.
        to_state (G·chunks, n, V): what these add to the state.
        total (G, chunks, n, 1): the gates of a chunk together.
        state (G, n, V): the state before the first.
        p: see `block`.
        m: see `block`.

    Returns:
        The states before each chunk, the state after the last, and w `(G·chunks, L·r, V)`.
    """
    # In the order of time: of the r rows and columns of a step none comes before a step is over.
    shown = block.shown[:, p:].transpose(1, 2).flatten(1, 2)
    reach = block.rows[:, p:].transpose(1, 2).flatten(1, 2)
    leave = block.columns[:, m:].transpose(1, 2).flatten(1, 2).mT
    own = -shown[:, :, m:].transpose(2, 3).flatten(2, 3)
    given = torch.cat([shown[:, :, :m].flatten(2, 3) @ driven, reach], -1)
    solved = torch.linalg.solve_triangular(own, given, upper=False, unitriangular=True)
    V, groups = driven.shape[-1], (len(total), -1)
    parts = (solved[..., :V], solved[..., V:], leave, to_state)
    before, feedback = [], []
    for gate, by_inputs, by_state, back, step in zip(
        total.unbind(1), *(part.unflatten(0, groups).unbind(1) for part in parts), strict=True
    ):
        before.append(state)
        feedback.append(torch.baddbmm(by_inputs, by_state, state))
        state = torch.baddbmm(torch.addcmul(step, gate, state), back, feedback[-1])
    before, feedback = (torch.stack(each, 1).flatten(0, 1) for each in (before, feedback))
    return before, state, feedback


class Recomputed(torch.autograd.Function):
    """A tile, of which only what it is given is kept; its matrices are computed again."""

    generate_vmap_rule = True

    @staticmethod
    def forward(tile: Tile, *given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run all steps."""
        return tile.run(*given)  # type: ignore[call-arg]  # seven of them

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep what is given."""
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

        _, pull = torch.func.vjp(run, *(given[index] for index in moved))
        found = dict(zip(moved, pull(tuple(gradients)), strict=True))
        return None, *(found.get(index) for index in range(len(needed)))

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor) -> Any:
        """Move all that is given at once."""
        return torch.func.jvp(ctx.tile.run, ctx.saved_tensors, tangents)[1]


@dataclass(frozen=True)
class Layout:
    """Which batch axes count systems, and which the sequences that share one.

    Args:
        batch: the batch axes of the inputs.
        apart: those along which systems differ.
        shared: the others.
    """

    batch: tuple[int, ...]
    apart: tuple[int, ...]
    shared: tuple[int, ...]

    @staticmethod
    def of(recurrence: LinearRecurrence, batch: torch.Size) -> "Layout":
        """Look at the batch axes of a time-varying recurrence."""
        own = (1,) * len(batch) + tuple(recurrence.batch_shape)
        own = own[len(own) - len(batch) :]
        apart = tuple(axis for axis, size in enumerate(own) if size > 1)
        shared = tuple(axis for axis, size in enumerate(own) if size == 1)
        return Layout(tuple(batch), apart, shared)

    def sizes(self, axes: tuple[int, ...]) -> list[int]:
        """The sizes of some axes."""
        return [self.batch[axis] for axis in axes]

    def together(self, tensor: Tensor) -> Tensor:
        """Write `(*batch, …)` as `(G, …, V)`."""
        axes = range(len(self.batch), tensor.ndim)
        moved = tensor.permute(*self.apart, *axes, *self.shared)
        return moved.reshape(count(self.sizes(self.apart)), *(tensor.shape[i] for i in axes), -1)

    def back(self, tensor: Tensor) -> Tensor:
        """Write `(G, …, V)` as `(*batch, …)`."""
        own = tensor.shape[1:-1]
        moved = tensor.reshape(*self.sizes(self.apart), *own, *self.sizes(self.shared))
        first = len(self.apart) + len(own)
        order = [0] * len(self.batch)
        for place, axis in enumerate(self.apart):
            order[axis] = place
        for place, axis in enumerate(self.shared):
            order[axis] = first + place
        return moved.permute(*order, *range(len(self.apart), first))

    def matrices(self, leaf: Tensor, core: int) -> Tensor:
        """Write a tensor of a varying system as `(G, time, …)`, with 1 where it does not vary."""
        if leaf.ndim == core:
            return leaf[None, None]
        own = leaf.shape[leaf.ndim - core - 1 :]
        leaf = leaf.reshape(*(1,) * (len(self.batch) + core + 1 - leaf.ndim), *leaf.shape)
        axes = range(len(self.batch), leaf.ndim)
        leaf = leaf.permute(*self.apart, *self.shared, *axes)
        apart = leaf.shape[: len(self.apart)]
        leaf = leaf.reshape(*apart, *own)
        if all(size == 1 for size in apart):
            return leaf.reshape(1, *own)
        return leaf.expand(*self.sizes(self.apart), *own).reshape(-1, *own)


def count(sizes: list[int]) -> int:
    """Multiply."""
    product = 1
    for size in sizes:
        product *= size
    return product


def run_chunks(
    recurrence: LinearRecurrence,
    inputs: Tensor,
    state: Tensor | None,
    size: int,
    last_only: bool = False,
) -> tuple[Tensor | None, Tensor]:
    """Run a varying recurrence that is diagonal, or diagonal plus low rank, in chunks.

    Args:
        recurrence: the system, of one copy.
        inputs (*batch, time, m): u.
        state (*batch, n): the state before the first step; None: zeros.
        size: L, a power of two.
        last_only: whether outputs are left out.

    Returns:
        Outputs `(*batch, time, p)`, or None, and the state after the last step.
    """
    parts = recurrence.A.as_diagonal_plus_low_rank()
    assert parts is not None, "what is neither was refused"
    n, steps = recurrence.A.state_size, inputs.shape[-2]
    layout = Layout.of(recurrence, inputs.shape[:-2])
    gates, left, right = parts
    if gates.stride(-1) == 0:  # one number, expanded
        gates = gates[..., :1]
    rank = left.shape[-1]
    read = recurrence.C is not None and not last_only
    B = torch.eye(n, dtype=inputs.dtype, device=inputs.device)
    B = B if recurrence.B is None else recurrence.B
    C = recurrence.C if read and recurrence.C is not None else inputs.new_zeros(0, n)
    left, right = (left, right) if rank else (inputs.new_zeros(n, 0),) * 2
    cores = ((gates, 1), (B, 2), (C, 2), (left, 2), (right, 2))
    system = [layout.matrices(leaf, core) for leaf, core in cores]
    u = layout.together(inputs)
    x = u.new_zeros(len(u), n, u.shape[-1]) if state is None else layout.together(state)
    if rank == 0 and not read and not last_only:
        fed, end = [], None
    else:
        fed, outputs = [], []
        for start, stop in tiles(steps, size, u, C.shape[-2] + rank, n):
            now = [
                (leaf if leaf.shape[1] == 1 else leaf[:, start:stop]).expand(
                    len(u), stop - start, *leaf.shape[2:]
                )
                for leaf in system
            ]
            y, w, x = run_tile(Tile(size), u[:, start:stop], x, *now)
            outputs.append(y)
            fed.append(w)
        end = layout.back(x)
    if last_only:
        assert end is not None
        return None, end
    timed = recurrence.over_time()
    if read:
        outputs = layout.back(torch.cat(outputs, 1))
        assert end is not None
    else:  # the states follow elementwise
        drive = timed.drive(inputs)
        if rank:
            drive = drive + matvec(timed_left(recurrence), layout.back(torch.cat(fed, 1)))
        gates = parts[0] if parts[0].ndim > 1 else parts[0].unsqueeze(0)
        outputs = linear_scan(gates, drive, state)
        end = outputs[..., -1, :]
    if recurrence.D is not None:
        outputs = outputs + matvec(recurrence.D, inputs)
    return outputs, end


def timed_left(recurrence: LinearRecurrence) -> Tensor:
    """U, `(*batch, time, n, r)`."""
    parts = recurrence.A.as_diagonal_plus_low_rank()
    assert parts is not None
    return parts[1]


def tiles(steps: int, size: int, u: Tensor, rows: int, n: int) -> Iterator[tuple[int, int]]:
    """Cut time into whole chunks, as many at a time as the caches hold."""
    per_step = max(n * rows, n * u.shape[2], rows * u.shape[2] * size, u.shape[2] * u.shape[3])
    per_chunk = max(len(u) * size * per_step, len(u) * n * u.shape[3], 1)
    stride = size * max(CACHE // per_chunk, 1)
    whole = steps - steps % size
    for start in range(0, whole, stride):
        yield start, min(start + stride, whole)
    if whole < steps:
        yield whole, steps


def run_tile(tile: Tile, *given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Run a tile, and keep little of it for a gradient."""
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return tile.run(*given)  # type: ignore[call-arg]  # seven of them
    return Recomputed.apply(tile, *given)  # type: ignore[return-value]  # untyped
