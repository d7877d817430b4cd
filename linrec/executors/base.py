"""The interface of an executor: three methods and a cost, with their arguments and results."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from linrec._checks import has_values
from linrec._graphs import NOMINAL_BATCH, NOMINAL_STEPS, closed
from linrec.coordinates import Coordinates
from linrec.structures import Structure
from linrec.systems import LinearRecurrence

# Tensors of fewer numbers are compared as they are.
MANY = 1 << 12


class Result(NamedTuple):
    """The outputs and the final state of a run.

    Attributes:
        outputs (*batch, time, p): y; of `final` and `step` without the axis of time.
        final_state (*batch, n): the state after the last step, to go on from. Of half-precision
            systems it is in float32, in which they are accumulated.
    """

    outputs: Tensor
    final_state: Tensor


@dataclass(frozen=True)
class Cost:
    """The cost of a run: operations, bytes and rounds.

    Attributes:
        operations: multiplications and additions in matrix products.
        bytes: memory written and read, beyond what the caches hold.
        rounds: operations that have to wait for one another.
        transforms: multiplications and additions in Fourier transforms.
        memory: bytes held at once, beyond the inputs.
    """

    operations: float
    bytes: float
    rounds: float
    transforms: float = 0.0
    memory: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.operations + other.operations,
            self.bytes + other.bytes,
            self.rounds + other.rounds,
            self.transforms + other.transforms,
            self.memory + other.memory,
        )

    def __mul__(self, times: "Cost") -> "Cost":
        """Multiply each part by a factor of its own."""
        return Cost(
            self.operations * times.operations,
            self.bytes * times.bytes,
            self.rounds * times.rounds,
            self.transforms * times.transforms,
            self.memory * times.memory,
        )


class Workload(NamedTuple):
    """The sizes of a run, all that a cost may depend on.

    Attributes:
        states: n, of one copy.
        inputs: m, of one copy.
        outputs: p, of one copy.
        steps: T.
        batch: how many sequences, the copies of a system counted apart.
        systems: how many different systems.
        multiplications: how many of them applying one A takes.
        itemsize: the bytes of a number.
        driven: whether there is a B.
        read: whether there is a C.
        time_varying: whether any of the matrices changes from step to step.
        A_varies: whether A does.
        diagonal: whether A is diagonal.
        device: the type of the device, as "cpu".
        roundoff: the unit roundoff of the dtype that sums are kept in.
        gradient: whether a gradient in the inputs is asked for afterwards.
        trained: whether one in the system is, and so through what is prepared of it.
    """

    states: int
    inputs: int
    outputs: int
    steps: int
    batch: int
    systems: int
    multiplications: int
    itemsize: int
    driven: bool
    read: bool
    time_varying: bool
    A_varies: bool
    diagonal: bool
    device: str
    roundoff: float
    gradient: bool = False
    trained: bool = False

    @property
    def numbers(self) -> int:
        """Steps of all sequences together."""
        return self.batch * self.steps

    @staticmethod
    def of(
        recurrence: LinearRecurrence, length: int, batch: int, gradient: bool = False
    ) -> "Workload":
        """Describe running a recurrence over so many steps of so many sequences.

        Where a graph leaves one of these open, a nominal size stands for it: a choice by the size
        that the graph was traced with would tie it to that.
        """
        # (Written for speed: small calls spend much of their time on choosing.)
        A, B, C, D = recurrence.A, recurrence.B, recurrence.C, recurrence.D
        leaves, n = A.leaves(), A.state_size
        tensors = [*leaves.values(), *(matrix for matrix in (B, C, D) if matrix is not None)]
        alone = all(leaf.ndim == A.core_axes.get(name) for name, leaf in leaves.items())
        systems = 1
        if not alone or any(matrix.ndim > 2 for matrix in tensors[len(leaves) :]):
            systems = max(closed(math.prod(recurrence.batch_shape), NOMINAL_BATCH), 1)
        itemsize = max(leaf.element_size() for leaf in tensors)
        double = any(leaf.dtype in (torch.float64, torch.complex128) for leaf in tensors)
        trained = torch.is_grad_enabled() and any(leaf.requires_grad for leaf in tensors)
        return Workload(
            states=n,
            inputs=n if B is None else B.shape[-1],
            outputs=n if C is None else C.shape[-2],
            steps=closed(length, NOMINAL_STEPS),
            batch=closed(batch, NOMINAL_BATCH),
            systems=systems,
            multiplications=A.multiplications,
            itemsize=max(itemsize, 4),
            driven=B is not None,
            read=C is not None,
            time_varying=recurrence.time_varying,
            A_varies=not alone and A.batch_shape[-1] > 1 and recurrence.time_varying,
            diagonal=A.as_diagonal() is not None,
            device=tensors[0].device.type,
            roundoff=2.0**-53 if double else 2.0**-24,
            gradient=gradient,
            trained=trained,
        )


@dataclass(frozen=True, eq=False)
class Plan:
    """Kernels and powers that an executor has computed from a system.

    A caller may keep it and pass it to `run` and `final` again. It remembers what it was made
    from, so that it can refuse to stand for anything else.

    Args:
        executor: the executor that made it.
        recurrence: the recurrence it was made for.
        length: the number of steps that it was made for.
        tensors: what was computed; the names are the executor's own.
        coordinates: those of the states in which powers were taken. None: the recurrence's own.
        system: one copy of the recurrence in these coordinates, which is what is executed.
        squares: A, A², A⁴, … of `system`, where the executor takes them as they are.
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
    values: Mapping[str, Tensor] = field(init=False, repr=False)
    differentiable: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        leaves = self.recurrence.leaves()
        # (Nothing that was computed, nothing that could be stale.)
        held = (self.tensors or self.squares) and not torch.compiler.is_compiling()
        copies = leaves if held else {}
        values = {name: leaf.detach().clone() for name, leaf in copies.items()}
        trained = {name for name, leaf in leaves.items() if leaf.requires_grad}
        object.__setattr__(self, "values", values)
        recorded = frozenset(trained if torch.is_grad_enabled() else ())
        object.__setattr__(self, "differentiable", recorded)

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
        """Say why the plan does not stand for this recurrence and length; None if it does."""
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
        if not has_values(*given.values()):
            unchanged = all(given[name] is leaf for name, leaf in mine.items())
        else:
            unchanged = all(same_values(leaf, given[name]) for name, leaf in self.values.items())
        if not unchanged:
            return "it was prepared for a recurrence of other values"
        if not torch.is_grad_enabled() or not (self.tensors or self.squares):
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
    if mine.dtype != given.dtype or mine.device != given.device or mine.shape != given.shape:
        return False
    if mine.numel() >= MANY and mine.is_contiguous() and given.is_contiguous():
        bytes_a_row = mine.shape[-1] * mine.element_size()
        if bytes_a_row % 8 == 0:  # in words of eight bytes there are fewer to compare
            mine, given = (each.detach().view(torch.int64) for each in (mine, given))
    return torch.equal(mine, given)


class Executor(ABC):
    """A way to run a recurrence: a frozen dataclass without tensors.

    `execute` and `final_state` see one copy: the recurrence is `recurrence.per_copy()`, whose
    batch axes broadcast against those of the inputs. There are one or more steps, and all dtypes
    are equal and at least float32.

    Results may have any strides; the caller makes them contiguous in `(*batch, time, p)`, of
    `copies` in `(*batch, time, copies, p)`. An executor whose memory has that order already saves
    a copy: where `plan.copies > 1` the last batch axis of inputs, state and outputs counts the
    copies, and lies inside of time.
    """

    # What the gradient in the inputs costs, in multiples of what it is a gradient of, as measured.
    # That in the system costs as much again; where states follow from states it needs that as well.
    gradient: ClassVar[Cost] = Cost(operations=1, bytes=1, rounds=1, transforms=1, memory=0.2)
    recursive: ClassVar[bool] = True

    # Whether the error at a step is small beside what that step is summed of; not where all steps
    # are computed at once from the whole sequence, and err alike.
    errs_per_step: ClassVar[bool] = True

    def why_not(self, recurrence: LinearRecurrence, length: int) -> str | None:
        """Say, in a sentence, why it cannot run this; None if it can."""
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

        One that stands for others, as `Auto` does, chooses here.

        Args:
            recurrence: the recurrence to run.
            length: how many steps.
            batch_shape: the batch axes of the inputs.
            last_only: whether only the last step is asked for, as by `final`.
            prepared: whether plans are kept, so that preparing them costs nothing.
            gradient: whether the inputs need a gradient. (Whether the system does is seen from
                its tensors.)
        """
        return self

    def choices(
        self, recurrence: LinearRecurrence, length: int, batch_shape: Sequence[int] = ()
    ) -> set["Executor"]:
        """List what `select` may return for inputs of a shape, whatever is asked of them."""
        return {self}

    def takes_plans_of(self, other: "Executor") -> bool:
        """Whether a plan that another executor made may be passed with this one."""
        return self == other

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

    def cost(self, work: Workload) -> Cost:
        """Estimate what `execute` spends with a plan at hand.

        By default it is not known, and `Auto` chooses any other candidate first.
        """
        return Cost(math.inf, 0, 0)

    def final_cost(self, work: Workload) -> Cost:
        """Estimate what `final_state` spends with a plan at hand."""
        return self.cost(work)

    def preparation_cost(self, work: Workload) -> Cost:
        """Estimate what `prepare` spends."""
        return Cost(0, 0, 0)

    def error(self, work: Workload) -> float:
        """Estimate the error of a long run, beside the magnitudes that its outputs are summed of.

        The square root of the number of roundings on the longest path, times the unit roundoff.
        Worst cases, as they are bounded in the docstrings, count the roundings themselves; but
        roundings of either sign cancel, and their sum stays below a small multiple of this with a
        probability that is very close to one.

        References:
            Higham and Mary 2019, A new approach to probabilistic rounding error analysis.
        """
        return math.inf


def invariant_only(recurrence: LinearRecurrence) -> str | None:
    """Say why an executor that needs one kernel for all steps cannot run a varying one."""
    if recurrence.time_varying:
        return "its matrices change from step to step, so that no one kernel describes it"
    return None


def join(parts: list[Tensor], copies_inside: bool) -> Tensor:
    """Put pieces of time `(*batch, steps, p)` together, in the order of memory asked for."""
    if len(parts) == 1:
        return parts[0]
    if not copies_inside:
        return torch.cat(parts, -2)
    return torch.cat([part.transpose(-2, -3) for part in parts], -3).transpose(-2, -3)


def kernel_cost(work: Workload) -> Cost:
    """Estimate a state kernel by doubling: log2(T) squarings of A, and A^k B for every k.

    In double precision, at half the rate.
    """
    n, m = work.states, work.inputs
    squarings = max(work.steps - 1, 0).bit_length()
    products = (squarings * n + work.steps * m) * work.multiplications
    kernel = 8.0 * work.systems * work.steps * m * n
    return Cost(4.0 * work.systems * products, 4 * kernel, 3 * squarings + 6, memory=1.5 * kernel)
