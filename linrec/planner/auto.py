"""The executor that chooses among the others."""

# pyright: reportUnnecessaryIsInstance=false
# (Callers without types are checked too.)

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

from torch import Tensor

from linrec.executors import Cost, Executor, Plan, Result, Workload
from linrec.planner.costs import estimates_of
from linrec.planner.explain import Explanation, explain_selection
from linrec.planner.rates import Rates, rates_of
from linrec.planner.selection import CANDIDATES, Criteria, Problem
from linrec.systems import LinearRecurrence, require_recurrence


@dataclass(frozen=True)
class Auto(Executor):
    """An executor that chooses the one with the least estimated time, accurate at every step.

    The estimate is the sum of operations, traffic and rounds, each divided by its rate. It uses
    shapes alone, never the values of tensors; `explain` shows it. Roughly: for the last state
    alone, `Toeplitz`; for a varying dense matrix, `Recurrent` or `AssociativeScan`; for a diagonal
    one, `AssociativeScan`; for all states, `Chunked`.

    By default the error at every step is small relative to the terms summed at that step, as in the
    loop: over the systems of docs/numerics.md it is within a hundred times the loop's error, mostly
    below it. `FFTConvolution` has the error of the largest step at every step, so that steps before
    or after large numbers would keep fewer digits: `per_step=False` admits it.

    Args:
        tolerance: the largest estimated rounding error that an executor may have, relative to the
            magnitudes summed in an output (with `per_step=False`, to the largest of them in the
            sequence). It is estimated from shapes, for the precision of the sums
            (`linrec.testing.error_bound` bounds the error of given numbers). None: any.
        rates: the machine's rates per second. None: those that `linrec bench --calibrate` measured
            here, or else those of a small machine.
        per_step: whether errors have to be small relative to each step's magnitudes. False: only to
            the largest of the sequence, up to twice as fast for large systems.
        candidates: the executors to choose from; the first of equals is chosen. Add your own with
            `(*linrec.planner.CANDIDATES, mine)`; its `cost` is used.

    Raises:
        ValueError: no executor is within the tolerance.

    Example:
        >>> import torch, linrec
        >>> gates = linrec.LinearRecurrence(linrec.Diagonal(torch.rand(64)))
        >>> linrec.Auto().select(gates, 1000)
        AssociativeScan()
    """

    tolerance: float | None = None
    rates: Rates | None = None
    per_step: bool = True
    candidates: tuple[Executor, ...] = field(default=CANDIDATES, repr=False)

    def __post_init__(self) -> None:
        candidates = tuple(self.candidates)
        if not candidates or not all(isinstance(each, Executor) for each in candidates):
            raise TypeError(
                f"`candidates` is {self.candidates!r}: expected executors, such as "
                "`(linrec.Recurrent(), linrec.Chunked())`."
            )
        object.__setattr__(self, "candidates", candidates)
        if self.tolerance is not None and not self.tolerance > 0:
            raise ValueError(
                f"`tolerance` is {self.tolerance!r}: expected a positive number such as 1e-4, or "
                "None for any error."
            )
        if self.rates is not None and not isinstance(self.rates, Rates):
            raise TypeError(f"`rates` is {self.rates!r}: expected `linrec.planner.Rates` or None.")

    def select(
        self,
        recurrence: LinearRecurrence,
        length: int,
        batch_shape: Sequence[int] = (),
        *,
        last_only: bool = False,
        prepared: bool = False,
        gradient: bool = False,
    ) -> Executor:
        """Select the executor with the least estimated time; arguments as for `Executor.select`."""
        asked = self.problem(recurrence, length, batch_shape, last_only, prepared, gradient)
        return asked.best_executor()

    def explain(
        self,
        recurrence: LinearRecurrence,
        length: int,
        batch_shape: Sequence[int] = (),
        *,
        last_only: bool = False,
        prepared: bool = False,
        gradient: bool = False,
    ) -> Explanation:
        """Say which executor would be chosen and why; arguments as for `select`."""
        asked = self.problem(recurrence, length, batch_shape, last_only, prepared, gradient)
        return explain_selection(asked)

    def choices(
        self, recurrence: LinearRecurrence, length: int, batch_shape: Sequence[int] = ()
    ) -> set[Executor]:
        """List the executors that may be chosen for inputs of a shape."""
        found: set[Executor] = set()
        for last_only, prepared in product((False, True), repeat=2):
            asked = self.problem(recurrence, length, batch_shape, last_only, prepared, False)
            for gradient, trained in product((False, True), repeat=2):
                work = asked.criteria.work._replace(gradient=gradient, trained=trained)
                found.add(asked.changed(work=work).best_executor())
        return found

    def problem(
        self,
        recurrence: LinearRecurrence,
        length: int,
        batch_shape: Sequence[int],
        last_only: bool,
        prepared: bool,
        gradient: bool,
    ) -> Problem:
        """Describe a recurrence and its workload as a problem of selection."""
        require_recurrence(recurrence)
        if recurrence.steps not in (None, length):
            raise ValueError(
                f"`length` is {length}, but the recurrence is time-varying and has matrices for "
                f"{recurrence.steps} steps: expected as many. Pass `length={recurrence.steps}`."
            )
        if length < 0:
            raise ValueError(f"`length` is {length}: expected a number of steps, 0 or more.")
        work = Workload.of(recurrence, length, math.prod(batch_shape) * recurrence.copies, gradient)
        rates = self.rates or rates_of(work.device)
        criteria = Criteria(work, rates, self.tolerance, last_only, prepared, self.per_step)
        return Problem(recurrence, criteria, self.candidates)

    def takes_plans_of(self, other: Executor) -> bool:
        """Follow the executor of any plan."""
        return True

    def prepare(self, recurrence: LinearRecurrence, length: int) -> Plan:
        """Prepare the best executor for one sequence; the plan records which it is."""
        return self.select(recurrence, length).prepare(recurrence, length)

    def execute(
        self, recurrence: LinearRecurrence, plan: Plan, inputs: Tensor, state: Tensor | None
    ) -> Result:
        """Run all steps with the executor that made the plan."""
        return plan.executor.execute(recurrence, plan, inputs, state)

    def final_state(
        self, recurrence: LinearRecurrence, plan: Plan, inputs: Tensor, state: Tensor | None
    ) -> Tensor:
        """Compute the last state with the executor that made the plan."""
        return plan.executor.final_state(recurrence, plan, inputs, state)

    def cost(self, work: Workload) -> Cost:
        """Return the cost of the executor with the least estimated time."""
        able = [estimates_of(each) for each in self.candidates]
        able = [each for each in able if each.errs_per_step or not self.per_step]
        if work.time_varying:
            able = [each for each in able if each.recursive] or able
        rates = self.rates or rates_of(work.device)
        costs = [each.cost(work) for each in able]
        return min(costs, key=lambda cost: rates.seconds(cost, double=work.double))


def explain(
    recurrence: LinearRecurrence,
    length: int,
    batch_shape: Sequence[int] = (),
    *,
    last_only: bool = False,
    prepared: bool = False,
    gradient: bool = False,
    executor: Auto = Auto(),
) -> Explanation:
    """Tabulate the cost of every executor, the choice of `Auto`, and why others are ruled out.

    Args:
        recurrence: the recurrence to run.
        length: the number of steps.
        batch_shape: the batch axes of the inputs.
        last_only: whether only the last step is computed, as by `final`.
        prepared: whether plans are kept, as `linrec.nn.Recurrence` keeps those of frozen systems.
        gradient: whether the inputs need a gradient. (Whether the system needs one is seen from its
            tensors.)
        executor: the `Auto` to explain, with its tolerance and rates.

    Returns:
        The table, to print or to read. Times are estimates of a cost model, for comparison.

    Raises:
        ValueError: a varying recurrence has another number of steps, or no executor is accurate
            enough.

    Example:
        >>> import linrec
        >>> average = linrec.LinearRecurrence(A=[[0.9]], B=[[0.1]])
        >>> linrec.explain(average, 1000, last_only=True, prepared=True).chosen
        Toeplitz()
    """
    return executor.explain(
        recurrence,
        length,
        batch_shape,
        last_only=last_only,
        prepared=prepared,
        gradient=gradient,
    )
