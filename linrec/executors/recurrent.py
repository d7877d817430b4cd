"""One step after the other: the definition, and the way to stream."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from linrec.executors.base import Cost, Executor, Plan, Result, has_copies_inside, stored_size
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
        for step in range(inputs.shape[-2]):
            now = recurrence.at(step)
            state = now.A.apply(state) + now.drive(inputs[..., step, :])
            states.append(state)
        if has_copies_inside(inputs):
            stacked = torch.stack(states, -3).transpose(-2, -3)
        else:
            stacked = torch.stack(states, -2)
        return Result(recurrence.over_time().read(stacked, inputs), state)

    def final_state(
        self, recurrence: LinearRecurrence, plan: Plan, inputs: Tensor, state: Tensor | None
    ) -> Tensor:
        """Run all steps and keep the last state only."""
        state = zero_state(recurrence, inputs) if state is None else state
        for step in range(inputs.shape[-2]):
            now = recurrence.at(step)
            state = now.A.apply(state) + now.drive(inputs[..., step, :])
        return state

    def cost(self, recurrence: LinearRecurrence, length: int, batch: int) -> Cost:
        """Two products a step, and the states written twice: as steps, and stacked."""
        final = self.final_cost(recurrence, length, batch)
        width = recurrence.dtype.itemsize * batch * length
        n, p = recurrence.A.state_size, recurrence.output_size // recurrence.copies
        reading = 2 * n * p * batch * length if recurrence.C is not None else 0
        written = width * (5 * n + (p if recurrence.C is not None else 0))
        return Cost(final.operations + reading, final.bytes + written, final.rounds)

    def final_cost(self, recurrence: LinearRecurrence, length: int, batch: int) -> Cost:
        """Two products a step."""
        n, m = recurrence.A.state_size, recurrence.input_size // recurrence.copies
        products = stored_size(recurrence) + (0 if recurrence.B is None else n * m)
        matrices = recurrence.dtype.itemsize * length * products
        rounds = 8 * length if recurrence.varying else 3 * length  # slicing costs as much again
        return Cost(2.0 * batch * length * products, matrices, rounds)


def zero_state(recurrence: LinearRecurrence, inputs: Tensor) -> Tensor:
    """The state before the first step, where none is given."""
    return inputs.new_zeros(*inputs.shape[:-2], recurrence.A.state_size)
