"""Select the executor with the least estimated time."""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from linrec.executors import (
    AssociativeScan,
    Chunked,
    Cost,
    Executor,
    FFTConvolution,
    Recurrent,
    Toeplitz,
    Workload,
)
from linrec.planner.costs import estimates_of
from linrec.planner.rates import Rates
from linrec.systems import LinearRecurrence

# Of equals the first is chosen: for the last step alone, the simpler of the two convolutions.
CANDIDATES: tuple[Executor, ...] = (
    Chunked(),
    Toeplitz(),  # before the FFT, which computes the last step in the same way
    FFTConvolution(),
    AssociativeScan(),
    Recurrent(),
)


# Making a plan within a graph, and its gradient, takes as long as this many small operations, on
# top of those that depend on sizes. (Measured: 0.4 to 0.6 ms of a core.)
MAKING = Cost(0, 0, 80)


@dataclass(frozen=True)
class Criteria:
    """The workload, the machine and the options that decide a selection.

    Attributes:
        work: the workload to run.
        rates: the machine's rates.
        tolerance: the largest estimated error; None: any.
        last_only: whether only the last step is computed.
        prepared: whether plans are kept, so that preparing them costs nothing.
        per_step: whether errors must be small at every step, relative to its own magnitudes.
    """

    work: Workload
    rates: Rates
    tolerance: float | None
    last_only: bool
    prepared: bool
    per_step: bool = True

    def admits(self, executor: Executor) -> bool:
        """Whether an executor is accurate enough."""
        if self.is_too_loose(executor):
            return False
        return self.tolerance is None or self.error(executor) <= self.tolerance

    def is_too_loose(self, executor: Executor) -> bool:
        """Whether all steps must be accurate, and the executor errs by the largest at each.

        No executor computes the last step alone by a spectrum.
        """
        return self.per_step and not self.last_only and not estimates_of(executor).errs_per_step

    def error(self, executor: Executor) -> float:
        """Estimate an executor's error, relative to the magnitudes summed in the outputs."""
        return estimates_of(executor).error(self.work)

    def running_cost(self, executor: Executor) -> Cost:
        """Estimate the cost of all steps, or the last one, given a plan, and of the gradient."""
        own = estimates_of(executor)
        cost = own.final_cost(self.work) if self.last_only else own.cost(self.work)
        if not self.work.gradient and not self.work.trained:
            return cost
        back = cost * own.gradient
        if self.work.gradient or own.recursive:
            cost = cost + back
        return cost + back if self.work.trained else cost

    def preparation_cost(self, executor: Executor) -> Cost:
        """Estimate the cost of the preparation, and of its gradient where needed."""
        cost = estimates_of(executor).preparation_cost(self.work)
        if not self.work.trained or not cost.rounds:
            return cost
        return cost + cost + cost + MAKING

    def cost(self, executor: Executor) -> Cost:
        """Estimate the cost of the run and, unless plans are kept, of the preparation."""
        cost = self.running_cost(executor)
        return cost if self.prepared else cost + self.preparation_cost(executor)

    def seconds(self, cost: Cost) -> float:
        """Turn a cost into time, in the precision of the workload."""
        return self.rates.seconds(cost, double=self.work.double)

    def select(self, able: tuple[Executor, ...]) -> Executor | None:
        """Select the fastest of some executors; None if none is accurate enough."""
        best: Executor | None = None
        least = math.inf
        for executor in able:  # a plain loop: Dynamo does not trace min(key=…)
            if not self.admits(executor):
                continue
            estimate = self.seconds(self.running_cost(executor))
            if estimate < least and not self.prepared:
                estimate += self.seconds(self.preparation_cost(executor))
            if best is None or estimate < least:
                best, least = executor, estimate
        return best


@lru_cache(maxsize=1024)
def recall(criteria: Criteria, able: tuple[Executor, ...]) -> Executor | None:
    """Cache `criteria.select`, which depends only on numbers and would dominate a small call.

    (Only outside graphs: Dynamo does not trace the cache.)
    """
    return criteria.select(able)


@dataclass(frozen=True, eq=False)
class Problem:
    """The selection of an executor for a recurrence.

    Attributes:
        recurrence: the recurrence, used only to find which executors can run it.
        criteria: everything else that decides the selection.
        candidates: the executors to select from; the first of equals is taken.
    """

    recurrence: LinearRecurrence
    criteria: Criteria
    candidates: tuple[Executor, ...] = CANDIDATES

    def best_executor(self) -> Executor:
        """Return the executor with the least estimated time."""
        steps = self.criteria.work.steps
        # (Lists, as Dynamo does not trace generators into tuples in all versions.)
        able = tuple([e for e in self.candidates if e.why_not(self.recurrence, steps) is None])
        select = self.criteria.select if torch.compiler.is_compiling() else self.recall
        best = select(able)
        if best is None:
            raise ValueError(self.describe_tolerance(able))
        return best

    def recall(self, able: tuple[Executor, ...]) -> Executor | None:
        """Select among executors; recall the selection where the numbers are the same."""
        return recall(self.criteria, able)

    def changed(self, **criteria: object) -> "Problem":
        """Return the problem with other criteria."""
        return replace(self, criteria=replace(self.criteria, **criteria))  # type: ignore[arg-type]

    def why_not(self, executor: Executor) -> str | None:
        """Say why an executor cannot be selected; None if it can."""
        reason = executor.why_not(self.recurrence, self.criteria.work.steps)
        if reason is None and self.criteria.is_too_loose(executor):
            return "it is accurate beside the largest step alone; `Auto(per_step=False)` allows it"
        if reason is None and not self.criteria.admits(executor):
            return f"its error may be over the tolerance of {self.criteria.tolerance:g}"
        return reason

    def describe_tolerance(self, able: tuple[Executor, ...]) -> str:
        """Say that no executor is accurate enough, and how accurate they are."""
        criteria = self.criteria
        loose = [criteria.error(each) for each in able if not criteria.is_too_loose(each)]
        return (
            f"`tolerance` is {criteria.tolerance:g}, and the least estimated error of any executor "
            f"is {min(loose):.2g}: expected a tolerance of that or more. For more digits pass the "
            "recurrence in double precision, `recurrence.to(torch.float64)`."
        )
