"""The error bound of an executor, from the system and its inputs alone."""

from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from linrec.coordinates import Coordinates
from linrec.executors import Executor, FFTConvolution, Recurrent, Result, Toeplitz
from linrec.planner import Auto
from linrec.systems import LinearRecurrence, require_recurrence
from linrec.testing.bounds.long import LongBounds
from linrec.testing.bounds.other_coordinates import MovedBounds, dual
from linrec.testing.bounds.own_coordinates import ErrorBounds
from linrec.testing.bounds.steady import SteadyBounds
from linrec.testing.on_device import inner_of
from linrec.testing.paths import Path, path_of
from linrec.testing.products import stored_magnitude

# From more steps than LONG on, pairs of steps have products of their own only if these have at most
# FEW_NUMBERS numbers, and powers are written out only if they have at most MOST_NUMBERS.
LONG, FEW_NUMBERS, MOST_NUMBERS = 512, 1 << 26, 1 << 22


def error_bound(
    recurrence: LinearRecurrence,
    inputs: Tensor,
    executor: Executor,
    initial_state: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Result:
    """Bound the error of every output and of the final state.

    With |·| taken entry by entry, u the unit roundoff and x_s the exact states:

        step by step          u (n + m + 3) Σ_s |A^{t-s}| (|A||x_{s-1}| + |B||u_s|)
        in any other order    u Σ_s c_{t-s} G_{t-s} |u_s|
        with transforms       u (7 log2(4T) + 3) (2‖h‖₂‖u‖₂ + min(‖h‖₁‖u‖₂, ‖h‖₂‖u‖₁)) at every
                              step, and the error of the kernel h

    where G_k is the largest product of four parts |A^a||A^b||A^c||A^d||B| with a + b + c + d = k,
    and c_k counts roundings. Kernels computed in double precision and then cast count with the unit
    roundoff of double precision. docs/numerics.md has the derivation. Valid to first order in u.

    Args:
        recurrence: the system.
        inputs (*batch, time, m): u.
        executor: the executor whose error is bounded. One that is not linrec's is assumed to
            multiply and add in some order, without transforms.
        initial_state (*batch, n): the state before the first step. None: zeros.
        lengths (*batch): the steps of each sequence; None: all.

    Returns:
        Bounds for outputs `(*batch, time, p)` and final state `(*batch, n)`, in float64; infinite
        where intermediate products overflow. It takes T² n² multiplications; beyond 512 steps often
        fewer, for a looser bound.

    Raises:
        TypeError: the argument is not an executor.

    Example:
        >>> import torch, linrec, linrec.testing
        >>> average = linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]])
        >>> bound = linrec.testing.error_bound(average, torch.ones(3, 1), linrec.Recurrent())
        >>> bool((bound.outputs < 1e-6).all())
        True

    References:
        Higham 2002, Accuracy and Stability of Numerical Algorithms, sections 3.1, 3.6, 3.7 and
        theorem 24.2.
    """
    return Bounds(recurrence, inputs, initial_state, lengths).of(an_executor(executor))


class Bounds:
    """The bounds of one call for any executor; arguments as for `error_bound`.

    The plan of an executor says in which coordinates it runs.
    """

    def __init__(
        self,
        recurrence: LinearRecurrence,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> None:
        require_recurrence(recurrence)
        kind = kind_of_bounds(recurrence, inputs.shape[-2])
        self.own = kind(recurrence, inputs, initial_state, lengths)
        self.known: dict[tuple[Executor, bool], Result] = {}
        self.moved: list[tuple[Coordinates, MovedBounds]] = []

    def of(self, executor: Executor, *, blind: bool = False) -> Result:
        """Bound outputs and final state; for `Auto`, over every executor it may choose.

        Args:
            executor: the executor.
            blind: whether it may have prepared without values, and so kept the recurrence's own
                coordinates.
        """
        inner, slack = inner_of(executor)
        if inner is not executor:
            return Result(*(slack * each for each in self.of(inner, blind=blind)))
        if (executor, blind) not in self.known:
            given = self.cast, self.own.steps, self.own.batch
            each = [self.of_way(way) for way in ways(executor, *given)]
            if blind:
                each += [self.own.of_kind(kind_of(one)) for one in choices(executor, *given)]
            outputs, states = (torch.stack(every).amax(0) for every in zip(*each, strict=True))
            self.known[executor, blind] = self.own.finish(outputs, states)
        return self.known[executor, blind]

    def of_gradient(self, executor: Executor, forward: "Bounds") -> Result:
        """Bound the gradient of another run: this run, in the dual of the other's coordinates."""
        inner, slack = inner_of(executor)
        if inner is not executor:
            return Result(*(slack * each for each in self.of_gradient(inner, forward)))
        chosen = ways(executor, forward.cast, forward.own.steps, forward.own.batch)
        each = [
            self.of_way(Way(kind, None if coordinates is None else dual(coordinates), path))
            for kind, coordinates, path in chosen
        ]
        outputs, states = (torch.stack(every).amax(0) for every in zip(*each, strict=True))
        return self.own.finish(outputs, states)

    def of_way(self, way: "Way") -> tuple[Tensor, Tensor]:
        """Bound the outputs and states of one way to run."""
        kind, coordinates, path = way
        bounds = self.own if coordinates is None else self.in_coordinates(coordinates)
        return bounds.of_kind(kind, path)

    def in_coordinates(self, coordinates: Coordinates) -> MovedBounds:
        """Return the bounds in some coordinates, which executors of one system mostly share."""
        for known, bounds in self.moved:
            if torch.equal(known.matrix, coordinates.matrix) and torch.equal(
                known.basis.to_dense(), coordinates.basis.to_dense()
            ):
                return bounds
        self.moved.append((coordinates, MovedBounds(self.own, coordinates)))
        return self.moved[-1][1]

    @cached_property
    def cast(self) -> LinearRecurrence:
        """The recurrence in the dtype of the run."""
        return self.own.recurrence.to(self.own.dtype)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the run."""
        return self.own.dtype

    @property
    def most(self) -> Tensor:
        """The largest possible intermediate results."""
        return self.own.most

    def carried(self, error: Tensor) -> Result:
        """Carry an error of the initial state, `(*batch, n)`, on to outputs and final state."""
        return self.own.carried(error)

    def largest(self) -> Result:
        """Bound the sizes of outputs and final state themselves."""
        return self.own.largest()


def kind_of_bounds(recurrence: LinearRecurrence, steps: int) -> type[ErrorBounds]:
    """Choose the kind of bound for a number of steps.

    Long runs are bounded by |A|^k where it cannot grow, where the system varies, or where all |A^k|
    together would be too large; else by |A^k|, over all pairs of steps if these are few enough.
    """
    if steps <= LONG:
        return ErrorBounds
    systems, n = recurrence.batch_shape.numel(), recurrence.A.state_size
    if recurrence.time_varying or systems * steps * n**2 > MOST_NUMBERS:
        return LongBounds
    if not bool((stored_magnitude(recurrence.A).sum(-1) > 1).any()):
        return LongBounds
    return ErrorBounds if systems * steps**2 * n**2 <= FEW_NUMBERS else SteadyBounds


class Way(NamedTuple):
    """The way an executor runs a recurrence, as far as it matters for its error.

    Attributes:
        kind: the executor's class, if it has its own bound; `Executor`: it may work in any order.
        coordinates: the coordinates of its plan.
        path: the number of its roundings. None: the bound for any order.
    """

    kind: type[Executor]
    coordinates: Coordinates | None = None
    path: Path | None = None


def choices(
    executor: Executor, recurrence: LinearRecurrence, steps: int, batch: torch.Size
) -> set[Executor]:
    """List the executors that may run a recurrence: `Auto`'s candidates, or the executor itself."""
    return executor.choices(recurrence, steps, batch) if isinstance(executor, Auto) else {executor}


def ways(
    executor: Executor, recurrence: LinearRecurrence, steps: int, batch: torch.Size
) -> list[Way]:
    """List the ways in which a recurrence may be run: kinds of executor, coordinates and paths."""
    each = choices(executor, recurrence, steps, batch)
    return list(dict.fromkeys(way_of(one, recurrence, steps) for one in each))


def way_of(executor: Executor, recurrence: LinearRecurrence, steps: int) -> Way:
    """Find the kind of an executor, the coordinates of its plan, and its path."""
    kind = kind_of(executor)
    steady = not recurrence.time_varying and recurrence.A.as_diagonal() is None
    nothing = not steps or not recurrence.batch_shape.numel()
    if kind is Recurrent or not steady or nothing or executor.why_not(recurrence, steps):
        return Way(kind)
    plan = executor.prepare(recurrence, steps)
    if plan.overflows:
        return Way(Recurrent)
    return Way(kind, plan.coordinates, path_of(executor, recurrence, plan))


def an_executor(given: object) -> Executor:
    """Check that an argument is an executor, not its class or its name."""
    if isinstance(given, Executor):
        return given
    raise TypeError(
        f"`executor` is {given!r}: expected one that is made, such as `linrec.Recurrent()`."
    )


def kind_of(executor: Executor) -> type[Executor]:
    """Return the class whose bound an executor keeps; `Executor` means any order."""
    known = (Recurrent, Toeplitz, FFTConvolution)
    return next((kind for kind in known if isinstance(executor, kind)), Executor)
