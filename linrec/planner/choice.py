"""The choice among the executors, as a question with an answer."""

import math
from dataclasses import dataclass

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
from linrec.planner.rates import Rates
from linrec.systems import LinearRecurrence

# The first of equals is chosen: for the last step alone, the simpler of the two convolutions.
CANDIDATES: tuple[Executor, ...] = (
    Chunked(),
    Toeplitz(),  # before the transform, which has the same way to the last step
    FFTConvolution(),
    AssociativeScan(),
    Recurrent(),
)


@dataclass(frozen=True, eq=False)
class Question:
    """Which executor is best?

    Attributes:
        recurrence: the recurrence; asked only which executors can run it.
        work: what is to be run.
        rates: what the machine does in a second.
        tolerance: the largest estimated error; None: any.
        last_only: whether only the last step is asked for.
        prepared: whether plans are kept, so that preparing them costs nothing.
        per_step: whether errors must be small at every step, beside that step's own magnitudes.
        candidates: the executors to choose from; the first of equals is chosen.
    """

    recurrence: LinearRecurrence
    work: Workload
    rates: Rates
    tolerance: float | None
    last_only: bool
    prepared: bool
    per_step: bool = True
    candidates: tuple[Executor, ...] = CANDIDATES

    def answer(self) -> Executor:
        """Choose the executor with the least estimated time."""
        best: Executor | None = None
        least = math.inf
        for executor in self.candidates:  # a plain loop: Dynamo does not trace min(key=…)
            if executor.why_not(self.recurrence, self.work.steps) is not None:
                continue
            if self.is_too_loose(executor):
                continue
            if self.tolerance is not None and executor.error(self.work) > self.tolerance:
                continue
            estimate = self.rates.seconds(self.running_cost(executor))
            if estimate < least and not self.prepared:
                estimate += self.rates.seconds(self.preparation_cost(executor))
            if best is None or estimate < least:
                best, least = executor, estimate
        if best is None:
            raise ValueError(self.too_strict())
        return best

    def running_cost(self, executor: Executor) -> Cost:
        """Estimate all steps, or the last one, with a plan given, and their gradient."""
        cost = executor.final_cost(self.work) if self.last_only else executor.cost(self.work)
        back = cost * executor.gradient
        if self.work.gradient or (self.work.trained and executor.recursive):
            cost = cost + back
        return cost + back if self.work.trained else cost

    def preparation_cost(self, executor: Executor) -> Cost:
        """Estimate the preparation, and its gradient where one is wanted."""
        cost = executor.preparation_cost(self.work)
        return cost + cost + cost if self.work.trained else cost

    def cost(self, executor: Executor) -> Cost:
        """Estimate the run and, unless plans are kept, the preparation."""
        cost = self.running_cost(executor)
        return cost if self.prepared else cost + self.preparation_cost(executor)

    def why_not(self, executor: Executor) -> str | None:
        """Say why an executor cannot be the answer; None if it can."""
        reason = executor.why_not(self.recurrence, self.work.steps)
        if reason is None and self.is_too_loose(executor):
            return "it is accurate beside the largest step alone; `Auto(per_step=False)` allows it"
        if reason is None and self.tolerance is not None:
            if executor.error(self.work) > self.tolerance:
                return f"its error may be over the tolerance of {self.tolerance:g}"
        return reason

    def is_too_loose(self, executor: Executor) -> bool:
        """Whether all steps must be accurate, and the executor errs by the largest at each.

        The last step alone is no sum over a spectrum with any executor.
        """
        return self.per_step and not self.last_only and not executor.errs_per_step

    def too_strict(self) -> str:
        """Say that nothing is accurate enough."""
        able = [
            each
            for each in self.candidates
            if each.why_not(self.recurrence, self.work.steps) is None
            and not self.is_too_loose(each)
        ]
        least = min(each.error(self.work) for each in able)
        return (
            f"`tolerance` is {self.tolerance:g}, and the least estimated error of any executor is "
            f"{least:.2g}: expected a tolerance of that or more. For more digits pass the "
            "recurrence in double precision, `recurrence.to(torch.float64)`."
        )
