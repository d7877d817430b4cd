"""The interface of an executor: three methods, with their arguments and results."""

# pyright: reportUnknownVariableType=false
# (Torch 2.9 does not trace `dict[str, Tensor]()`, which would declare it.)

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from linrec._tensors.autograd import has_tangent
from linrec.coordinates import Coordinates
from linrec.executors.changed_values import Record
from linrec.executors.workload import Estimates
from linrec.structures import Structure
from linrec.systems import LinearRecurrence
from linrec.systems.checks import require_recurrence


class Result(NamedTuple):
    """The outputs and the final state of a run.

    Attributes:
        outputs (*batch, time, p): y; without the time axis for `final` and `step`.
        final_state (*batch, n): the state after the last step, to continue from. For half-precision
            systems it is in float32, the dtype of the sums.
    """

    outputs: Tensor
    final_state: Tensor

    @property
    def state(self) -> Tensor:
        """The state after a step: another name of `final_state`."""
        return self.final_state


@dataclass(frozen=True, eq=False)
class Plan:
    """Kernels and powers that an executor has computed from a system.

    A caller may keep it and pass it to `run` and `final` again. It records what it was made from,
    and refuses anything else.

    Args:
        executor: the executor that made it.
        recurrence: the recurrence it was made for.
        length: the number of steps it was made for.
        tensors: the computed tensors, under names of the executor's choice.
        coordinates: the coordinates of the states in which powers were taken. None: the
            recurrence's own.
        system: one copy of the recurrence in these coordinates: the system that is executed.
        squares: A, A², A⁴, … of `system`, if the executor uses them directly.
        overflows: whether the powers left the range of the dtype.
    """

    executor: "Executor"
    recurrence: LinearRecurrence
    length: int
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    coordinates: Coordinates | None = None
    system: LinearRecurrence | None = None
    squares: tuple[Structure, ...] = ()
    overflows: bool = False
    made_of: Record = field(init=False, repr=False)
    differentiable: frozenset[str] = field(init=False, repr=False)
    tangents: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        leaves = self.recurrence.leaves()
        # (If nothing was computed, nothing can be stale.)
        held = (self.tensors or self.squares) and not torch.compiler.is_compiling()
        copies = leaves if held else {}
        trained = {name for name, leaf in leaves.items() if leaf.requires_grad}
        object.__setattr__(self, "made_of", Record(leaves, copies))
        recorded = frozenset(trained if torch.is_grad_enabled() else ())
        object.__setattr__(self, "differentiable", recorded)
        carried = frozenset(name for name, leaf in leaves.items() if has_tangent(leaf))
        object.__setattr__(self, "tangents", carried)

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    @property
    def copies(self) -> int:
        """The copies of the recurrence; the last batch axis of inputs counts them if over 1."""
        return self.recurrence.copies

    def enter(self, state: Tensor) -> Tensor:
        """Convert a state to the coordinates of the plan."""
        return state if self.coordinates is None else self.coordinates.enter(state)

    def leave(self, state: Tensor) -> Tensor:
        """Convert a state back to the coordinates of the recurrence."""
        return state if self.coordinates is None else self.coordinates.leave(state)

    def why_not(self, recurrence: LinearRecurrence, length: int) -> str | None:
        """Say why the plan does not fit this recurrence and length; None if it does."""
        if length != self.length:
            return f"it was prepared for {self.length} steps and the inputs have {length}"
        given = mine = recurrence.leaves()
        if self.recurrence is not recurrence:
            mine = self.recurrence.leaves()
            kinds = [
                (each.A.form(), each.copies, each.time_varying)
                for each in (self.recurrence, recurrence)
            ]
            if kinds[0] != kinds[1] or mine.keys() != given.keys():
                return "it was prepared for another kind of recurrence"
        if not self.made_of.still(given):
            return "it was prepared for a recurrence of other values"
        if not (self.tensors or self.squares):
            return None
        for name, leaf in given.items():
            if has_tangent(leaf) and (name not in self.tangents or leaf is not mine[name]):
                return f"it was prepared without the tangent of {name}"
        if not torch.is_grad_enabled():
            return None
        missing = [name for name, leaf in given.items() if leaf.requires_grad]
        missing = [name for name in missing if name not in self.differentiable]
        if missing:
            return f"it was prepared without gradients in {', '.join(missing)}"
        return None


class Executor(Estimates, ABC):
    """A way to run a recurrence: a frozen dataclass without tensors.

    `execute` and `final_state` see one copy: the recurrence is `recurrence.per_copy()`, whose
    batch axes broadcast against those of the inputs. There are one or more steps, and all dtypes
    are equal and at least float32.

    `Auto` chooses a user's executor by its `cost`, `final_cost`, `preparation_cost` and `error`; by
    default they are unknown. Those of the library's executors are in `linrec.planner.costs`.

    Results may have any strides; the caller makes them contiguous in `(*batch, time, p)`, or with
    copies in `(*batch, time, copies, p)`. An executor whose memory has that order already saves a
    copy: where `plan.copies > 1`, the last batch axis of inputs, state and outputs counts the
    copies, and in memory it lies inside the time axis.
    """

    def why_not(self, recurrence: LinearRecurrence, length: int) -> str | None:
        """Say, in a sentence, why the executor cannot run this; None if it can."""
        return None

    def select(
        self,
        recurrence: LinearRecurrence,
        length: int,
        batch_shape: Sequence[int] = (),
        *,
        last_only: bool = False,
        prepared: bool = False,
        gradient: bool = False,
    ) -> "Executor":
        """Return the executor that runs a recurrence over inputs of a shape: by default itself.

        An executor that stands for others, such as `Auto`, chooses here.

        Args:
            recurrence: the recurrence to run.
            length: the number of steps.
            batch_shape: the batch axes of the inputs.
            last_only: whether only the last step is computed, as by `final`.
            prepared: whether plans are kept, so that preparing them costs nothing.
            gradient: whether the inputs need a gradient. (Whether the system needs one is seen from
                its tensors.)
        """
        return self

    def choices(
        self, recurrence: LinearRecurrence, length: int, batch_shape: Sequence[int] = ()
    ) -> set["Executor"]:
        """List every executor that `select` may return for inputs of a shape."""
        return {self}

    def takes_plans_of(self, other: "Executor") -> bool:
        """Whether a plan of another executor may be passed with this one."""
        return self == other

    def prepare(self, recurrence: LinearRecurrence, length: int) -> Plan:
        """Compute kernels and powers, which depend only on the system."""
        require_recurrence(recurrence)
        return Plan(self, recurrence, length)

    def loses_digits(self, recurrence: LinearRecurrence) -> bool:
        """Whether products of a varying system's matrices cancel, so that the loop runs instead.

        A time-invariant system is judged when it is prepared, and gets other coordinates.
        """
        return False

    @abstractmethod
    def execute(
        self, recurrence: LinearRecurrence, plan: Plan, inputs: Tensor, state: Tensor | None
    ) -> Result:
        """Run all steps.

        Args:
            recurrence: the system, of one copy.
            plan: the result of `prepare`.
            inputs (*batch, time, m): u.
            state (*batch, n): the state before the first step; None: zeros.

        Returns:
            Outputs `(*batch, time, p)` and the state after the last step `(*batch, n)`.
        """

    def run_in_halves(
        self, recurrence: LinearRecurrence, inputs: Tensor, state: Tensor | None
    ) -> Result | None:
        """Run all steps in half precision, unconverted, with sums in float32.

        An executor that cannot returns None, and is then run in float32. Outputs may be rounded
        once, to the dtype of the inputs; the state is in float32, before and after.
        """
        return None

    def final_state(
        self, recurrence: LinearRecurrence, plan: Plan, inputs: Tensor, state: Tensor | None
    ) -> Tensor:
        """Compute only the state after the last step, `(*batch, n)`; arguments as for `execute`."""
        return self.execute(recurrence, plan, inputs, state).final_state


def join(parts: list[Tensor], copies_inside: bool) -> Tensor:
    """Join pieces of time `(*batch, steps, p)`, in the wanted memory order."""
    if len(parts) == 1:
        return parts[0]
    if not copies_inside:
        return torch.cat(parts, -2)
    return torch.cat([part.transpose(-2, -3) for part in parts], -3).transpose(-2, -3)
