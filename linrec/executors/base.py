"""What an executor is: three methods and a cost; what it is given, and what it gives back."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
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
    versions: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "versions", versions(self.recurrence))

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def why_not(self, recurrence: LinearRecurrence, length: int) -> str | None:
        """Say why the plan does not stand for this recurrence and length; None if it does."""
        if length != self.length:
            return f"it was prepared for {self.length} steps and the inputs have {length}"
        mine, given = self.recurrence.leaves(), recurrence.leaves()
        if recurrence.copies != self.recurrence.copies or mine.keys() != given.keys():
            return "it was prepared for another kind of recurrence"
        if any(given[name] is not leaf for name, leaf in mine.items()):
            return "it was prepared for a recurrence of other tensors"
        if versions(recurrence) != self.versions:
            return "the tensors of the recurrence have been changed in place since"
        trained = torch.is_grad_enabled() and any(leaf.requires_grad for leaf in given.values())
        if trained and self.tensors and not any(t.requires_grad for t in self.tensors.values()):
            return "it was prepared without gradients and the recurrence asks for them"
        return None


def versions(recurrence: LinearRecurrence) -> tuple[int, ...]:
    """How often each tensor has been written to (nothing to ask while Dynamo is tracing)."""
    if torch.compiler.is_compiling():
        return ()
    return tuple(
        0 if leaf.is_inference() else leaf._version for leaf in recurrence.leaves().values()
    )


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
