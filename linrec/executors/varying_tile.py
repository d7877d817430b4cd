"""A recurrence whose A is diagonal, or diagonal plus low rank, and changes: in chunks of steps.

With x the state before a chunk, and the feedback w_t = V_t* x_{t-1} as further inputs through U,

    x_t = d_t x_{t-1} + B_t u_t + U_t w_t        y_t = C_t x_t

is elementwise but for w. What a step s shows at a step t of the same chunk is a product through
R[t,s] = d_t d_{t-1} … d_{s+1}:

    y = Y u + Z w + P x        Y[t,s] = C_t R[t,s] B_s      Z[t,s] = C_t R[t,s] U_s
    w = F u + G w + E x        F[t,s] = V_t* R[t-1,s] B_s   G[t,s] = V_t* R[t-1,s] U_s

G is strictly lower triangular: w follows by substitution. The state is carried from chunk to chunk.

References:
    Yang et al. 2024, Gated linear attention transformers with hardware-efficient training.
    Yang et al. 2024, Parallelizing linear transformers with the delta rule over sequence length.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from linrec.executors.varying_matrices import (
    Block,
    Split,
    blocks,
    blocks_in_place,
    inverse,
    single,
    split_shared,
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
        if gates.shape[-1] == 1:
            split = split_shared(gates, B, C, left, right, self.size)
        else:
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
