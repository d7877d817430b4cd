"""The gradient of chunks whose states all have one gate, written out.

Products of gates are numbers, R[t,s] = d_t … d_{s+1}, and what is between two steps of a chunk is
a product of matrices times R, elementwise:

    Y = (C B) ∘ R    Z = (C U) ∘ R    F = (V* B) ∘ R'    G = (V* U) ∘ R'    R'[t,s] = R[t-1,s]

The gradient in a gate needs no quotient. With R̄ the gradient in R, in which -1 is the state before
the chunk,

    d̄_q = Σ_{t ≥ q > s} R̄[t,s] R[t,q] R[q-1,s]

References:
    Dao and Gu 2024, Transformers are SSMs, section 6.
    Yang et al. 2025, Gated delta networks, section 3.3.
"""

from typing import NamedTuple

import torch
from torch import Tensor, bmm

from linrec.executors.varying.carry import (
    carry_held,
    held_after,
    held_before,
    pull_feedback,
    pull_held,
    solve_held,
)
from linrec.executors.varying.chunk_algebra import fill_up
from linrec.executors.varying.matrices import (
    Split,
    hide_later,
    inverse,
    products_by_chunk,
    split_shared,
    weigh,
)


class WholeChunks:
    """The arguments of a tile and the gradients in its results, filled up to whole chunks.

    Args:
        size: L.
        given: as of `pull_shared`.
        tangents: the gradients in outputs and w.

    Attributes:
        gates, B, C, left, right: as given, of whole chunks.
        driven (N, L·m, V): the inputs of each of the N chunks.
        to_outputs (N, L·p, V), to_fed (N, L·r, V): the gradients.
    """

    def __init__(self, size: int, given: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> None:
        inputs, state, gates, B, C, left, right = given
        self.systems, self.steps = inputs.shape[:2]
        self.gates, self.B, self.C, self.left, self.right, *wide = fill_up(
            size, gates, B, C, left, right, inputs, *tangents
        )
        self.size, self.padded = size, self.gates.shape[1]
        self.count = self.systems * self.padded // size
        self.driven, self.to_outputs, self.to_fed = (self.fold(each) for each in wide)
        columns = (B.shape[3], left.shape[3], C.shape[2], right.shape[3])
        matrices = ((each, state.shape[1]) for each in columns)
        self.widths = (inputs.shape[2:], (gates.shape[2], 1), *matrices)

    def fold(self, tensor: Tensor) -> Tensor:
        """Put the steps of a chunk among its rows: `(G, steps, rows, V)` to `(N, L·rows, V)`."""
        rows, columns = tensor.shape[2:]
        return tensor.reshape(self.count, self.size * rows, columns)

    def by_steps(
        self,
        to_driven: Tensor,
        to_first: Tensor,
        to_gates: Tensor,
        to_B: Tensor,
        to_left: Tensor,
        to_C: Tensor,
        to_right: Tensor,
    ) -> tuple[Tensor, ...]:
        """Return the gradients in the arguments, in their order and of their steps.

        Args:
            to_driven (N, L·m, V), to_first (G, n, V), to_gates (N, L·…): those in inputs, state
                and gates.
            to_B, to_left, to_C, to_right (N, L·columns, n): those in the matrices, each column
                or row a row.
        """
        found = (to_driven, to_gates, to_B, to_left, to_C, to_right)
        u, gates, B, left, C, right = (
            each.reshape(self.systems, self.padded, *width)[:, : self.steps]
            for each, width in zip(found, self.widths, strict=True)
        )
        return u, to_first, gates.squeeze(3), B.mT, C, left.mT, right.mH


class Rows(NamedTuple):
    """Rows that read the state: C after a step, or V* before it.

    Attributes:
        of_steps (N, L·ρ, n): the rows.
        ratios (N, L, L + 1): R or R', with what is left of the state before the chunk first.
        last: the last step that a step sees, counted from itself: 0 or -1.
        gradient (N, L·ρ, V): the gradient in what they read.
    """

    of_steps: Tensor
    ratios: Tensor
    last: int
    gradient: Tensor


class Columns(NamedTuple):
    """Columns that drive the state: B by the inputs, or U by the feedback.

    Attributes:
        of_steps (N, L·κ, n): the columns, transposed.
        driven (N, L·κ, V): what they are multiplied by.
    """

    of_steps: Tensor
    driven: Tensor


class SharedGradient:
    """The gradients of N chunks of L steps in R, the rows and the columns.

    Args:
        ratios (N or 1, L + 1, L + 1): R, as of `gate_products`.
        before (N, n, V): the states before the chunks.
        to_after (N, n, V): the gradients in the states after them.
    """

    def __init__(self, ratios: Tensor, before: Tensor, to_after: Tensor) -> None:
        self.size, self.ratios = ratios.shape[1] - 1, ratios
        self.to_ratios = ratios.new_zeros(len(before), *ratios.shape[1:])
        self.to_ratios[:, -1, 0] = (to_after * before.conj()).flatten(1).sum(1)

    def of_pair(self, rows: Rows, columns: Columns, to_rows: Tensor, to_columns: Tensor) -> None:
        """Add the gradients in rows and columns through the gates between the steps."""
        size = self.size
        widths = rows.of_steps.shape[1] // size, columns.of_steps.shape[1] // size
        between = hide_later(bmm(rows.of_steps, columns.of_steps.mT), size, rows.last, True)
        gradient = hide_later(bmm(rows.gradient, columns.driven.mH), size, rows.last, True)
        own = (gradient * between.conj()).view(-1, size, widths[0], size, widths[1]).sum((2, 4))
        start = 1 + rows.last
        self.to_ratios[:, start : start + size, 1:] += own
        gradient = weigh(gradient, rows.ratios[:, :, 1:].conj(), True)
        to_rows.baddbmm_(gradient, columns.of_steps.conj())
        to_columns.baddbmm_(gradient.mT, rows.of_steps.conj())

    def of_rows(self, rows: Rows, before: Tensor) -> Tensor:
        """Return what goes to rows through the states before the chunks."""
        size, start = self.size, 1 + rows.last
        read = bmm(rows.gradient, before.mH).unflatten(1, (size, -1))
        own = (read * rows.of_steps.conj().unflatten(1, (size, -1))).sum((2, 3))
        self.to_ratios[:, start : start + size, 0] += own
        return (read * rows.ratios[:, :, :1, None].conj()).flatten(1, 2)

    def of_columns(self, columns: Columns, to_after: Tensor) -> Tensor:
        """Return what goes to columns through the states after the chunks."""
        size, to_end = self.size, self.ratios[:, -1, 1:, None, None]
        left = bmm(columns.driven.conj(), to_after.mT).unflatten(1, (size, -1))
        own = (left * columns.of_steps.conj().unflatten(1, (size, -1))).sum((2, 3))
        self.to_ratios[:, -1, 1:] += own
        return (left * to_end.conj()).flatten(1, 2)

    def of_gates(self) -> Tensor:
        """Return the gradient in the gates, `(N, L)`, once all else has been asked for."""
        after = self.ratios[:, 1:, 1:].mH @ self.to_ratios[:, 1:]
        return (after * self.ratios[:, :-1].conj()).sum(2)


def pull_shared(
    size: int, tied: bool, given: tuple[Tensor, ...], gradients: tuple[Tensor, Tensor, Tensor]
) -> tuple[Tensor, ...]:
    """Compute the gradients of `Tile.run` where the gates are shared, outside of autograd.

    Args:
        size, tied: as of the tile.
        given: inputs, state, gates, B, C, left and right, as `Tile.run` takes them.
        gradients: those in its three results.

    Returns:
        The gradients in what was given.
    """
    chunks = WholeChunks(size, given, gradients[:2])
    B, C, left, right = chunks.B, chunks.C, chunks.left, chunks.right
    driven, to_outputs, to_fed, state = chunks.driven, chunks.to_outputs, chunks.to_fed, given[1]
    ratios = products_by_chunk(chunks.gates, size)
    split = split_shared(ratios, B, C, None if tied else left, right, True)
    states = pull_states(split, driven, state, to_outputs, to_fed, gradients[2])
    del split  # the largest of all
    before, to_after, fed, to_fed, to_driven, to_first = states
    shared = SharedGradient(ratios, before, to_after)
    after, earlier = shared.ratios[:, 1:], shared.ratios[:, :-1]
    rows = [
        Rows(chunks.fold(C), after, 0, to_outputs),
        Rows(chunks.fold(right.mH), earlier, -1, to_fed),
    ]
    columns = [
        Columns(chunks.fold(B.mT), driven + fed if tied else driven),
        Columns(chunks.fold(left.mT), driven[:, :0] if tied else fed),
    ]
    to_rows = [shared.of_rows(each, before) for each in rows]
    to_columns = [
        shared.of_columns(each, to_after) if each.of_steps.shape[1] else each.of_steps
        for each in columns
    ]
    del states, before, to_after, fed  # before the largest products
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            if row.of_steps.shape[1] and column.of_steps.shape[1]:
                shared.of_pair(row, column, to_rows[i], to_columns[j])
    return chunks.by_steps(to_driven, to_first, shared.of_gates(), *to_columns, *to_rows)


class States(NamedTuple):
    """The states before N chunks, and the gradients in the states after them.

    Attributes:
        before (N, n, V): the states.
        to_after (N, n, V): the gradients.
        fed (N, L·r, V): w.
        to_fed (N, L·r, V): the gradients in what feeds w.
        to_driven (N, L·m, V): those in the inputs.
        to_first (G, n, V): those in the state before all.
    """

    before: Tensor
    to_after: Tensor
    fed: Tensor
    to_fed: Tensor
    to_driven: Tensor
    to_first: Tensor


def pull_states(
    split: Split, driven: Tensor, state: Tensor, to_outputs: Tensor, to_fed: Tensor, to_end: Tensor
) -> States:
    """Carry the state on from chunk to chunk, and the gradient back.

    Args:
        split: the chunks.
        driven (N, L·m, V): their inputs.
        state (G, n, V): the state before the first.
        to_outputs (N, L·p, V), to_fed (N, L·r, V), to_end (G, n, V): the gradients.
    """
    total = split.total.mT.unflatten(0, (len(state), -1))
    on, back = held_after(split, driven), held_before(split, to_outputs)
    to_driven = bmm(split.show.mH, to_outputs)
    if split.reach.shape[1]:
        solve = inverse(split.feed_fed)
        fed, before, _ = solve_held(on, split, solve, driven, total, state)
        if split.show_fed is split.show:
            to_fed = to_fed + to_driven
        else:
            to_fed = torch.baddbmm(to_fed, split.show_fed.mH, to_outputs)
        to_fed = bmm(solve.mH, to_fed)
        to_fed, to_after, to_first = pull_feedback(back, split, solve, to_fed, total, to_end)
        to_driven.baddbmm_(split.feed.mH, to_fed)
    else:
        fed, before = driven[:, :0], carry_held(on, total, state)[0]
        to_after, to_first = pull_held(back, total, to_end)
    to_driven.baddbmm_(split.from_inputs.conj(), to_after)
    return States(before, to_after, fed, to_fed, to_driven, to_first)
