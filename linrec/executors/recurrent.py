"""One step after the other: the definition, and the way to stream."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from linrec._graphs import is_open
from linrec.executors.base import Executor, Plan, Result
from linrec.loops import loop_over_matrices
from linrec.systems import LinearRecurrence


@final
@dataclass(frozen=True)
class Recurrent(Executor):
    """Run x_t = A x_{t-1} + B u_t in a loop; any structure, varying or not.

    n² T operations for a dense A, in T steps that wait for one another: strong where many
    sequences run at once, weak where one long sequence does.

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
        states = []
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
    """Go through the system and the inputs of every step."""
    vectors = inputs.unbind(-2)
    return zip(recurrence.each_step(len(vectors)), vectors, strict=True)


def zero_state(recurrence: LinearRecurrence, inputs: Tensor) -> Tensor:
    """The state before the first step, where none is given."""
    return inputs.new_zeros(*inputs.shape[:-2], recurrence.A.state_size)
