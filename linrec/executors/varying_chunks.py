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

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from linrec.executors.base import Cost, Workload
from linrec.scan import linear_scan
from linrec.structures import matvec
from linrec.systems import LinearRecurrence

# The numbers of a tensor that many of which fit into the caches.
CACHE = 1 << 18


class Block(NamedTuple):
    """What blocks of b neighbouring steps are, N of them, with ρ rows and κ columns a step.

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
    """As `blocks`, but written over what it is made of, and outside of autograd."""
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
            fed, before, end = fed_back(split, driven, to_state, total, state, r)
        else:
            fed, (before, end) = driven[:, :0], carried(total, to_state, state)
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
        """Cut blocks of so many steps, whose first p rows are read and first m columns inputs."""
        upper, lower = by_step(block.shown, size, 1, p)
        return Split(
            *by_step(upper, size, 2, m),
            *by_step(lower, size, 2, m),
            *by_step(block.rows, size, 1, p),
            *by_step(block.columns, size, 1, m),
            block.total,
        )


def by_step(tensor: Tensor, size: int, axis: int, first: int) -> tuple[Tensor, Tensor]:
    """Split an axis of so many steps into the first few numbers of each step and the others."""
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


def carried(total: Tensor, to_state: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
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


def fed_back(
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
    """A tile, of which only what it is given is kept; its matrices are computed again."""

    @staticmethod
    def forward(tile: Tile, *given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run all steps."""
        outputs, fed, end = tile.run(*given, make=blocks_in_place)  # type: ignore[misc]  # all seven
        # (Without a copy torch 2 takes the last state to have a tangent already, and drops this.)
        return outputs, fed, end.clone()

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
    if torch.compiler.is_compiling():
        return tile.run(*given)  # type: ignore[call-arg]  # seven of them
    return Recomputed.apply(tile, *given)  # type: ignore[return-value]  # untyped


def varying_cost(work: Workload, size: int) -> Cost:
    """Estimate what running a varying system in chunks of so many steps takes."""
    n, m, p, steps = work.states, work.inputs, work.outputs, work.steps
    rank = max(round((work.multiplications / n - 1) / 2), 0)
    states = work.itemsize * work.numbers * n
    if not work.read:
        elementwise = Cost(0, 8.0 * states, steps, memory=3.0 * states)
        if not rank:
            return elementwise
        return elementwise + varying_cost(work._replace(outputs=0, read=True), size)
    chunks, rows, columns = math.ceil(steps / size), p + rank, m + rank
    made = work.systems * steps * columns * (rows or 1) * size * n
    used = work.numbers * (size * columns * rows + n * (columns + rows))
    matrices = work.systems * steps * (6 * n * (rows + columns) + 3 * size * rows * columns)
    sequences = work.numbers * (2 * (m + p + rank) + 3 * n / size)
    per_chunk = work.systems * size * n * rows + work.batch * (n + size * (m + p))
    at_once = min(max(math.ceil(chunks * per_chunk / CACHE), 1), chunks)
    rounds = at_once * (40 + 12 * size.bit_length()) + (6 if rank else 2) * chunks
    held = work.itemsize * (work.numbers * p + 4 * per_chunk * chunks / at_once)
    return Cost(2.0 * (made + used), work.itemsize * (matrices + sequences), rounds, memory=held)
