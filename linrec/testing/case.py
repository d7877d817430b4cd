"""A case to check: a recurrence, its inputs, and the exact results."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from linrec._tensors.dtypes import common_dtype, double_dtype
from linrec.executors import Executor, Recurrent, Result
from linrec.response import adjoint
from linrec.run import run, step
from linrec.systems import LinearRecurrence
from linrec.testing.bounds import Bounds
from linrec.testing.reference import exact_reference


class Comparison(NamedTuple):
    """A result, the exact value, and the allowed error.

    Attributes:
        what: a short description of the comparison.
        got: the result.
        expected: the exact value, broadcast against the result.
        allowed: the largest allowed difference of each number.
    """

    what: str
    got: Tensor
    expected: Tensor
    allowed: Tensor | float


@dataclass(frozen=True, eq=False)
class Case:
    """A recurrence with its inputs, initial state and lengths.

    Attributes:
        recurrence: the system.
        inputs (*batch, time, m): u.
        initial_state (*batch, n): the state before the first step, or None.
        lengths (*batch): the steps of each sequence, or None.
    """

    recurrence: LinearRecurrence
    inputs: Tensor
    initial_state: Tensor | None = None
    lengths: Tensor | None = None

    @property
    def steps(self) -> int:
        """The number of steps."""
        return self.inputs.shape[-2]

    @cached_property
    def truth(self) -> Result:
        """The exact outputs and final state, rounded once."""
        return exact_reference(self.recurrence, self.inputs, self.initial_state, self.lengths)

    @cached_property
    def bounds(self) -> Bounds:
        """The error bounds of every executor."""
        return Bounds(self.recurrence, self.inputs, self.initial_state, self.lengths)

    def allowed(
        self, executor: Executor, *, gradient_of: "Case | None" = None, blind: bool = False
    ) -> Result:
        """Return the allowed error of an executor, plus the error of the reference.

        Args:
            executor: the executor.
            gradient_of: the case whose gradient this is, if any.
            blind: whether the executor could not read any values.
        """
        bound, eps = self.bounds.of(executor, blind=blind), torch.finfo(torch.float64).eps
        if gradient_of is not None:
            bound = self.bounds.of_gradient(executor, gradient_of.bounds)
        # (The reference of a case too large to run exactly is a loop in at least this precision.)
        loop = self.bounds.of(Recurrent())
        share = float(np.finfo(np.longdouble).eps) / torch.finfo(self.bounds.dtype).eps
        return Result(
            *(
                b + eps * t.abs() + share * own
                for b, own, t in zip(bound, loop, self.truth, strict=True)
            )
        )

    def run(self, executor: Executor) -> Result:
        """Run an executor on the case, once for all properties."""
        if executor not in self.results:
            self.results[executor] = run(
                self.recurrence,
                self.inputs,
                self.initial_state,
                lengths=self.lengths,
                executor=executor,
            )
        return self.results[executor]

    @cached_property
    def results(self) -> dict[Executor, Result]:
        """The results by executor."""
        return {}

    @cached_property
    def singly(self) -> tuple[list[Tensor], Tensor | None]:
        """The outputs and the last state of a loop of single steps, without lengths."""
        outputs, state, recurrence = [], self.initial_state, self.recurrence
        for t in range(self.steps):
            output, state = step(recurrence.at(t), self.inputs[..., t, :], state)
            outputs.append(output)
        if state is not None:  # without steps, one state of all sequences is still one
            state = state.expand(self.truth.final_state.shape)
        return outputs, state

    def with_inputs(self, inputs: Tensor) -> "Case":
        """Return the case with other inputs."""
        return replace(self, inputs=inputs)

    def variant(self, name: str, make: Callable[[], "Case"]) -> "Case":
        """Make a case from this one, once for all executors, to keep its truth and bounds."""
        return (
            self.variants[name] if name in self.variants else self.variants.setdefault(name, make())
        )

    @cached_property
    def variants(self) -> dict[str, "Case"]:
        """The cases made from this one."""
        return {}

    @cached_property
    def backwards(self) -> "Case":
        """The adjoint recurrence, fed normal numbers in the shape of the outputs."""
        outputs = self.at_rest.truth.outputs
        dtype = common_dtype(*self.recurrence.leaves().values(), self.inputs)
        return Case(adjoint(self.recurrence), like(outputs.to(dtype)).flip(-2))

    @cached_property
    def whole(self) -> "Case":
        """The case without lengths: every sequence has all steps."""
        return self if self.lengths is None else replace(self, lengths=None)

    @cached_property
    def at_rest(self) -> "Case":
        """The case without lengths, from a zero state."""
        if self.lengths is None and self.initial_state is None:
            return self
        return replace(self, lengths=None, initial_state=None)

    def part(self, steps: slice) -> "Case":
        """Return the case with some of its steps, from the same initial state."""
        recurrence, start = self.recurrence, steps.start or 0
        if recurrence.time_varying:
            recurrence = of_steps(recurrence, start, steps.stop)
        return Case(recurrence, self.inputs[..., steps, :], self.initial_state)

    @cached_property
    def small(self) -> "Case":
        """The first sequence's first three steps, in double precision, for derivatives."""
        one = self.part(slice(0, min(self.steps, 3)))
        recurrence, inputs, state = first_of_batch(one)
        dtype = double_dtype(torch.promote_types(recurrence.dtype, inputs.dtype))
        state = inputs.new_zeros(recurrence.state_size) if state is None else state
        return Case(recurrence.to(dtype), inputs.to(dtype), state.to(dtype))


def of_steps(recurrence: LinearRecurrence, start: int, stop: int) -> LinearRecurrence:
    """Take some steps of a time-varying recurrence; a matrix with one step stands for all."""

    def take(leaf: Tensor, core: int) -> Tensor:
        whole = (..., slice(start, stop), *[slice(None)] * core)
        shared = leaf.shape[-core - 1] == 1 and recurrence.steps != 1
        return leaf if shared else leaf[whole]

    return recurrence.map_batched(take)


def first_of_batch(case: Case) -> tuple[LinearRecurrence, Tensor, Tensor | None]:
    """Take the first system with the first sequence and state of the batch."""
    recurrence = case.recurrence
    keep = 1 if recurrence.time_varying else 0

    def first(leaf: Tensor, core: int) -> Tensor:
        while leaf.ndim > core + keep:  # (of no system or sequence, one of zeros)
            leaf = leaf[0] if len(leaf) else leaf.new_zeros(leaf.shape[1:])
        return leaf

    batch = case.recurrence.map_batched(first)
    state = case.initial_state
    return batch, first(case.inputs, 2 - keep), None if state is None else first(state, 1 - keep)


def like(tensor: Tensor) -> Tensor:
    """Draw normal numbers in the shape of a tensor, always the same."""
    generator = torch.Generator().manual_seed(tensor.numel())
    return torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
