"""Step-by-step execution: the definition of a recurrence, and the way to stream."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import final

import torch
from torch import Tensor

from linrec._tensors.open_sizes import is_open
from linrec.executors.base import Executor, Plan, Result
from linrec.loops import loop_over_matrices
from linrec.systems import LinearRecurrence


@final
@dataclass(frozen=True)
class Recurrent(Executor):
    """An executor that runs x_t = A x_{t-1} + B u_t in a loop, for any structure, varying or not.

    It takes n² T operations for a dense A, in T steps that wait for one another: fast for many
    sequences at once, slow for one long sequence.

    Numerical error: at step t at most about (n+1)(t+1)·eps·Σ_s |A|^(t-s) |B| |u_s|.

    Example:
        >>> import torch, linrec
        >>> average = linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]])
        >>> linrec.run(average, torch.ones(3, 1), executor=linrec.Recurrent()).outputs.squeeze()
        tensor([0.5000, 0.7500, 0.8750])

    References:
        Chilkuri and Eliasmith 2021, eq. 19.
    """

    def execute(
        self, recurrence: LinearRecurrence, plan: Plan, inputs: Tensor, state: Tensor | None
    ) -> Result:
        """Run all steps."""
        states: list[Tensor] = []
        state = zero_state(recurrence, inputs) if state is None else state
        if is_open(inputs.shape[-2]):
            timed = recurrence.over_time()
            stacked, state = loop_over_matrices(timed.A, timed.drive(inputs), state)
            return Result(timed.read(stacked, inputs), state)
        for now, vector in steps(recurrence, inputs):
            state = now.A.apply(state) + now.drive(vector)
            states.append(state)
        if plan.copies > 1:
            stacked = torch.stack(states, -3).transpose(-2, -3)
        else:
            stacked = torch.stack(states, -2)
        return Result(recurrence.over_time().read(stacked, inputs), state)

    def final_state(
        self, recurrence: LinearRecurrence, plan: Plan, inputs: Tensor, state: Tensor | None
    ) -> Tensor:
        """Run all steps and keep the last state only."""
        state = zero_state(recurrence, inputs) if state is None else state
        if is_open(inputs.shape[-2]):
            timed = recurrence.over_time()
            return loop_over_matrices(timed.A, timed.drive(inputs), state)[1]
        for now, vector in steps(recurrence, inputs):
            state = now.A.apply(state) + now.drive(vector)
        return state


def steps(
    recurrence: LinearRecurrence, inputs: Tensor
) -> Iterator[tuple[LinearRecurrence, Tensor]]:
    """Yield the system and the inputs of every step."""
    vectors = inputs.unbind(-2)
    return zip(each_step(recurrence, len(vectors)), vectors, strict=True)


def each_step(recurrence: LinearRecurrence, length: int) -> Iterator[LinearRecurrence]:
    """Yield the systems of all steps, as `at` returns them.

    Each tensor is split only once: the gradient of a slice is as large as the whole tensor, so T
    slices would cost T².
    """
    if not recurrence.time_varying:
        yield from repeat(recurrence, length)
        return
    cut: list[Sequence[Tensor]] = []

    def collect(leaf: Tensor, core: int) -> Tensor:
        cut.append(leaf.unbind(-core - 1) if leaf.ndim > core else [leaf])
        return leaf

    matrices = recurrence.matrices()
    recurrence.A.map(collect)
    for matrix in matrices:
        if matrix is not None:
            collect(matrix, 2)
    for step in range(length):
        now = iter([pieces[min(step, len(pieces) - 1)] for pieces in cut])
        structure = recurrence.A.map(lambda _leaf, _core, now=now: next(now))
        rest = (None if matrix is None else next(now) for matrix in matrices)
        yield recurrence.rebuilt(structure, *rest, time_varying=False)


def zero_state(recurrence: LinearRecurrence, inputs: Tensor) -> Tensor:
    """Make the state before the first step, where none is given."""
    return inputs.new_zeros(*inputs.shape[:-2], recurrence.A.state_size)
