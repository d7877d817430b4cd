"""A recurrence whose A is diagonal, or diagonal plus low rank, and changes: in chunks of steps.

With x the state before a chunk, and the feedback w_t = V_t* x_{t-1} as further inputs through U,

    x_t = d_t x_{t-1} + B_t u_t + U_t w_t        y_t = C_t x_t

is elementwise but for w. What a step s shows at a step t of the same chunk is a product through
R[t,s] = d_t d_{t-1} … d_{s+1}:

    y = Y u + Z w + P x        Y[t,s] = C_t R[t,s] B_s      Z[t,s] = C_t R[t,s] U_s
    w = F u + G w + E x        F[t,s] = V_t* R[t-1,s] B_s   G[t,s] = V_t* R[t-1,s] U_s

G is strictly lower triangular: w follows by substitution, which for delta rules is the WY transform
(the UT transform of some papers). The state is carried from chunk to chunk.

References:
    Yang et al. 2024, Gated linear attention transformers with hardware-efficient training.
    Yang et al. 2024, Parallelizing linear transformers with the delta rule over sequence length.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from linrec.executors.varying.carry import carry_held, held_after, solve_held
from linrec.executors.varying.matrices import (
    Split,
    blocks,
    blocks_in_place,
    inverse,
    products_by_chunk,
    single,
    split_shared,
)


@dataclass(frozen=True)
class Tile:
    """Some chunks of some systems, G of them, and the V sequences that each of them runs.

    Args:
        size: L, the steps of a chunk, a power of two.
        tied: whether U is B, as of a delta rule that is written so: two of the four matrices are
            the other two then, and y = Y (u + w) + P x.
    """

    size: int
    tied: bool = False

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
            left, right (G, steps, n, r): U and V; r may be 0. Where they are tied, left has no
                columns.

        Returns:
            Outputs `(G, steps, p, V)`, w `(G, steps, r, V)` and the last state `(G, n, V)`.
        """
        steps = inputs.shape[1]
        gates, inputs, B, C, left, right = fill_up(self.size, gates, inputs, B, C, left, right)
        V, p, r = inputs.shape[3], C.shape[2], right.shape[3]
        G, chunks = len(inputs), inputs.shape[1] // self.size
        split = self.split(gates, B, C, left, right)
        driven = inputs.reshape(G * chunks, -1, V)
        to_state = split.from_inputs.mT @ driven
        total = split.total.mT.unflatten(0, (G, chunks))
        if r:
            solve = inverse(split.feed_fed)
            fed, before, end = solve_feedback(split, solve, driven, to_state, total, state)
        else:
            # (Not a view of the inputs: torch 2 would drop tangents of the other results.)
            fed = driven.new_zeros(len(driven), 0, V)
            before, end = carry_tile(total, to_state, state)
        drives = driven + fed if self.tied else driven
        outputs = torch.baddbmm(split.show @ drives, split.read, before)
        if r and not self.tied:
            outputs = torch.baddbmm(outputs, split.show_fed, fed)
        outputs, fed = (
            each.reshape(G, chunks * self.size, width, V)[:, :steps]
            for each, width in ((outputs, p), (fed, r))
        )
        return outputs, fed, end

    def write(
        self, outputs: Tensor, fed: Tensor | None, inputs: Tensor, state: Tensor, *system: Tensor
    ) -> Tensor:
        """Run all steps outside of autograd, and write outputs and w to where they belong.

        Args:
            outputs (G, steps, p, V): memory for them.
            fed (G, steps, r, V): the same; None: w is not asked for.
            inputs, state, system: as of `run`.

        Returns:
            The last state `(G, n, V)`.
        """
        steps = inputs.shape[1]
        gates, inputs, B, C, left, right = fill_up(self.size, system[0], inputs, *system[1:])
        V, p, r = inputs.shape[3], C.shape[2], right.shape[3]
        G, chunks = len(inputs), inputs.shape[1] // self.size
        split = self.split(gates, B, C, left, right, in_place=True)
        driven = inputs.reshape(G * chunks, -1, V)
        total = split.total.mT.unflatten(0, (G, chunks))
        held = held_after(split, driven)
        if r:
            solve = inverse(split.feed_fed)
            w, before, end = solve_held(held, split, solve, driven, total, state)
            if fed is not None:
                fed.copy_(w.view(G, chunks * self.size, r, V)[:, :steps])
        else:
            w = driven[:, :0]
            before, end = carry_held(held, total, state)
        if not p:
            return end
        direct = outputs.is_contiguous() and steps == chunks * self.size
        y = (
            outputs.view(len(driven), -1, V)
            if direct
            else driven.new_empty(*split.show.shape[:2], V)
        )
        torch.bmm(split.show, w.add_(driven) if self.tied else driven, out=y)
        y.baddbmm_(split.read, before)
        if r and not self.tied:
            y.baddbmm_(split.show_fed, w)
        if not direct:
            outputs.copy_(y.view(G, chunks * self.size, p, V)[:, :steps])
        return end

    def split(
        self,
        gates: Tensor,
        B: Tensor,
        C: Tensor,
        left: Tensor,
        right: Tensor,
        *,
        in_place: bool = False,
    ) -> Split:
        """Make the matrices of whole chunks; arguments as of `run`.

        With `in_place` they are written in place, outside of autograd.
        """
        if gates.shape[-1] == 1:
            ratios = products_by_chunk(gates, self.size)
            return split_shared(ratios, B, C, None if self.tied else left, right, in_place)
        # (New memory, that may be written over.)
        columns = torch.cat([B.mT, left.mT], 2) if left.shape[3] else B.mT.clone()
        of_steps = single(*(each.flatten(0, 1) for each in (gates, C, right.mH, columns)))
        make = blocks_in_place if in_place else blocks
        split = Split.of(make(of_steps, self.size), self.size, C.shape[2], B.shape[3])
        return split.tie() if self.tied else split


def fill_up(size: int, gates: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Add steps that keep the state, up to whole chunks of `size`, to `(G, steps, …)`."""
    missing = -gates.shape[1] % size
    if not missing:
        return gates, *others
    longer = (add_steps(each, missing) for each in others)
    return pad(gates, (0, 0, 0, missing), value=1.0), *longer


def add_steps(tensor: Tensor, count: int) -> Tensor:
    """Add steps of zeros to `(G, steps, rows, columns)`."""
    if 0 in tensor.shape:  # (before torch 2.12 `pad` refuses what has no numbers)
        return tensor.new_zeros(tensor.shape[0], tensor.shape[1] + count, *tensor.shape[2:])
    return pad(tensor, (0, 0, 0, 0, 0, count))


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
    split: Split, solve: Tensor, driven: Tensor, to_state: Tensor, total: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Solve for the feedback w while the state is carried from chunk to chunk.

    Args:
        split: the chunks.
        solve (G·chunks, L·r, L·r): (I - G)⁻¹.
        driven (G·chunks, L·m, V): their inputs.
        to_state (G·chunks, n, V): what these add to the state.
        total (G, chunks, n, 1): the gates of a chunk together.
        state (G, n, V): the state before the first.

    Returns:
        w `(G·chunks, L·r, V)`, the states before each chunk, and the state after the last.
    """
    by_inputs, by_state = solve @ (split.feed @ driven), solve @ split.reach
    parts = (by_inputs, by_state, split.from_fed.mT, to_state)
    before, fed = [], []
    for gate, start, through, back, addition in zip(
        total.unbind(1),
        *(part.unflatten(0, total.shape[:2]).unbind(1) for part in parts),
        strict=True,
    ):
        found = torch.baddbmm(start, through, state)
        before.append(state)
        fed.append(found)
        state = torch.baddbmm(torch.addcmul(addition, gate, state), back, found)
    return torch.stack(fed, 1).flatten(0, 1), torch.stack(before, 1).flatten(0, 1), state
