"""What an executor is: three methods and a cost; what it is given, and what it gives back."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from linrec.systems import LinearRecurrence


class Result(NamedTuple):
    """What running a recurrence gives.

    Attributes:
        outputs (*batch, time, p): y; of `final` and `step` without the axis of time.
        final_state (*batch, n): the state after the last step, to go on from. Of half-precision
            systems it is in float32, in which they are accumulated.
    """

    outputs: Tensor
    final_state: Tensor


@dataclass(frozen=True)
class Cost:
    """What an executor expects to spend.

    Attributes:
        operations: multiplications and additions in matrix products.
        bytes: memory written and read, beyond what the caches hold.
        rounds: operations that have to wait for one another.
    """

    operations: float
    bytes: float
    rounds: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.operations + other.operations,
            self.bytes + other.bytes,
            self.rounds + other.rounds,
        )


@dataclass(frozen=True, eq=False)
class Plan:
    """What an executor computed from a system alone: kernels, powers.

    A caller may keep it and pass it to `run` and `final` again. It remembers what it was made
    from, so that it can refuse to stand for anything else.

    Args:
        executor: the executor that made it.
        recurrence: the recurrence it was made for.
        length: the number of steps that it was made for.
        tensors: what was computed; the names are the executor's own.
    """

    executor: "Executor"
    recurrence: LinearRecurrence
    length: int
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    values: Mapping[str, Tensor] = field(init=False, repr=False)
    differentiable: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        leaves = self.recurrence.leaves()
        copies = {} if torch.compiler.is_compiling() else leaves
        values = {name: leaf.detach().clone() for name, leaf in copies.items()}
        trained = {name for name, leaf in leaves.items() if leaf.requires_grad}
        object.__setattr__(self, "values", values)
        recorded = frozenset(trained if torch.is_grad_enabled() else ())
        object.__setattr__(self, "differentiable", recorded)

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def why_not(self, recurrence: LinearRecurrence, length: int) -> str | None:
        """Say why the plan does not stand for this recurrence and length; None if it does."""
        if length != self.length:
            return f"it was prepared for {self.length} steps and the inputs have {length}"
        mine, given = self.recurrence.leaves(), recurrence.leaves()
        same_kind = type(recurrence.A) is type(self.recurrence.A) and mine.keys() == given.keys()
        if recurrence.copies != self.recurrence.copies or not same_kind:
            return "it was prepared for another kind of recurrence"
        if torch.compiler.is_compiling():  # no value can be looked at
            unchanged = all(given[name] is leaf for name, leaf in mine.items())
        else:
            unchanged = all(same_values(leaf, given[name]) for name, leaf in self.values.items())
        if not unchanged:
            return "it was prepared for a recurrence of other values"
        if not torch.is_grad_enabled() or not self.tensors:
            return None
        missing = [name for name, leaf in given.items() if leaf.requires_grad]
        missing = [name for name in missing if name not in self.differentiable]
        if missing:
            return f"it was prepared without gradients in {', '.join(missing)}"
        return None


def same_values(mine: Tensor, given: Tensor) -> bool:
    """Whether two tensors are equal in everything.

    Their values are compared, not their identities and versions: a write through `.data` changes
    neither.
    """
    same = mine.dtype == given.dtype and mine.device == given.device
    return same and mine.shape == given.shape and torch.equal(mine, given)


class Executor(ABC):
    """A way to run a recurrence: a frozen dataclass without tensors.

    `execute` and `final_state` see one copy: the recurrence is `recurrence.per_copy()`, whose
    batch axes broadcast against those of the inputs. With `copies` the last batch axis of inputs
    and state counts them, and lies inside time in memory; an executor that returns outputs in the
    same order of memory saves the caller a transposing copy. There are one or more steps, and all
    dtypes are equal and at least float32.
    """

    def why_not(self, recurrence: LinearRecurrence, length: int) -> str | None:
        """Say, in a sentence, why it cannot run this; None if it can."""
        return None

    def prepare(self, recurrence: LinearRecurrence, length: int) -> Plan:
        """Do what needs only the system."""
        return Plan(self, recurrence, length)

    @abstractmethod
    def execute(
        self, recurrence: LinearRecurrence, plan: Plan, inputs: Tensor, state: Tensor | None
    ) -> Result:
        """Run all steps.

        Args:
            recurrence: the system, of one copy.
            plan: what `prepare` made.
            inputs (*batch, time, m): u.
            state (*batch, n): the state before the first step; None: zeros.

        Returns:
            Outputs `(*batch, time, p)` and the state after the last step `(*batch, n)`.
        """

    def final_state(
        self, recurrence: LinearRecurrence, plan: Plan, inputs: Tensor, state: Tensor | None
    ) -> Tensor:
        """Compute the state after the last step alone, `(*batch, n)`; arguments as of `execute`."""
        return self.execute(recurrence, plan, inputs, state).final_state

    @abstractmethod
    def cost(self, recurrence: LinearRecurrence, length: int, batch: int) -> Cost:
        """Estimate what `execute` spends on `batch` sequences with a plan at hand."""

    def final_cost(self, recurrence: LinearRecurrence, length: int, batch: int) -> Cost:
        """Estimate what `final_state` spends with a plan at hand."""
        return self.cost(recurrence, length, batch)

    def preparation_cost(self, recurrence: LinearRecurrence, length: int) -> Cost:
        """Estimate what `prepare` spends."""
        return Cost(0, 0, 0)


def invariant_only(recurrence: LinearRecurrence) -> str | None:
    """Say why an executor that needs one kernel for all steps cannot run a varying recurrence."""
    if recurrence.varying:
        return "its matrices change from step to step, so that no one kernel describes it"
    return None


def join(parts: list[Tensor], copies_inside: bool) -> Tensor:
    """Put pieces of time `(*batch, steps, p)` together, in the order of memory asked for."""
    if len(parts) == 1:
        return parts[0]
    if not copies_inside:
        return torch.cat(parts, -2)
    return torch.cat([part.transpose(-2, -3) for part in parts], -3).transpose(-2, -3)


def has_copies_inside(inputs: Tensor) -> bool:
    """Whether the last batch axis lies inside time in memory, as that of `copies` does."""
    return inputs.ndim > 2 and 0 < inputs.stride(-3) < inputs.stride(-2)


def stored_size(recurrence: LinearRecurrence) -> int:
    """How many numbers one A is stored in: about as many multiplications as applying it takes."""
    stack = math.prod(recurrence.A.batch_shape)
    return sum(leaf.numel() for leaf in recurrence.A.leaves().values()) // max(stack, 1)


def kernel_cost(recurrence: LinearRecurrence, length: int) -> Cost:
    """Estimate a state kernel by doubling: log2(T) squarings of A, and A^k B for every k.

    In double precision, at half the rate.
    """
    n, m = recurrence.A.state_size, recurrence.input_size // recurrence.copies
    systems = max(math.prod(recurrence.batch_shape), 1)
    squarings = math.ceil(math.log2(max(length, 2)))
    products = squarings * n * stored_size(recurrence) + length * m * stored_size(recurrence)
    return Cost(4.0 * systems * products, 16.0 * systems * length * m * n, 3 * squarings)


def write_each(parts: Iterator[Tensor], rows: int) -> Tensor:
    """Put rows together as they come, so that each part's memory serves the next.

    (Autograd would walk through all rows once for each part written.)
    """
    first = next(parts)
    together = first.new_empty(rows, *first.shape[1:])
    at = 0
    for part in chain((first,), parts):
        together[at : at + len(part)] = part
        at += len(part)
    return together
