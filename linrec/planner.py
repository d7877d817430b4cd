"""Which executor, and why: a cost model, and the executor that follows it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from linrec.executors import (
    AssociativeScan,
    Chunked,
    Cost,
    Executor,
    FFTConvolution,
    Plan,
    Recurrent,
    Result,
    Toeplitz,
)
from linrec.response import poles
from linrec.systems import LinearRecurrence

CANDIDATES: tuple[Executor, ...] = (
    Recurrent(),
    Toeplitz(),
    FFTConvolution(),
    AssociativeScan(),
    Chunked(),
)

# What a small machine does in a second: operations in float32 matrix products, bytes between
# processor and memory, and operations that wait for one another. Only their ratios decide.
OPERATIONS = 1.0e11
BYTES = 6.0e9
ROUNDS = 1.5e5


@dataclass(frozen=True)
class Auto(Executor):
    """Choose the executor with the least estimated time among those that can run the recurrence.

    The estimate is operations / rate + bytes / bandwidth + rounds · latency, from shapes alone;
    it never looks at the values of tensors. `explain` shows it. Roughly: the last state alone,
    `Toeplitz`; a varying dense matrix, `Recurrent`; a diagonal one, `AssociativeScan`; many short
    sequences, `Chunked` or `Recurrent`; long sequences with few outputs, `FFTConvolution`.

    Example:
        >>> import torch, linrec
        >>> gates = linrec.LinearRecurrence(linrec.Diagonal(torch.rand(64)))
        >>> linrec.Auto().select(gates, 1000)
        AssociativeScan()
    """

    def select(
        self,
        recurrence: LinearRecurrence,
        length: int,
        batch_shape: Sequence[int] = (),
        *,
        last_only: bool = False,
        prepared: bool = False,
    ) -> Executor:
        """Choose an executor.

        Args:
            recurrence: the recurrence to run.
            length: how many steps.
            batch_shape: the batch axes of the inputs.
            last_only: whether only the last step is asked for, as by `final`.
            prepared: whether plans are kept, so that preparing them costs nothing.

        Returns:
            The executor with the least estimated time.
        """
        check_length(recurrence, length)
        batch = math.prod(batch_shape) * recurrence.copies
        best: Executor = CANDIDATES[0]
        least = math.inf
        for executor in CANDIDATES:  # a plain loop: Dynamo does not trace min(key=…)
            if executor.why_not(recurrence, length) is not None:
                continue
            cost = cost_of(executor, recurrence, length, batch, last_only, prepared)
            estimate = seconds(cost)
            if estimate < least:
                best, least = executor, estimate
        return best

    def explain(
        self,
        recurrence: LinearRecurrence,
        length: int,
        batch_shape: Sequence[int] = (),
        *,
        last_only: bool = False,
        prepared: bool = False,
    ) -> "Explanation":
        """Say which executor would be chosen and why: see `linrec.explain`."""
        return explain(recurrence, length, batch_shape, last_only=last_only, prepared=prepared)

    def prepare(self, recurrence: LinearRecurrence, length: int) -> Plan:
        """Prepare the executor that is best for one sequence; the plan knows which it is."""
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

    def cost(self, recurrence: LinearRecurrence, length: int, batch: int) -> Cost:
        """The cost of the executor it would choose."""
        return self.select(recurrence, length, (batch,)).cost(recurrence, length, batch)


def check_length(recurrence: LinearRecurrence, length: int) -> None:
    """Refuse to plan for steps that a varying recurrence has no matrices for."""
    if recurrence.steps not in (None, length):
        raise ValueError(
            f"`length` is {length}, but the Varying recurrence has matrices for "
            f"{recurrence.steps} steps: expected as many. Pass `length={recurrence.steps}`."
        )


def cost_of(
    executor: Executor,
    recurrence: LinearRecurrence,
    length: int,
    batch: int,
    last_only: bool,
    prepared: bool,
) -> Cost:
    """Ask an executor for what all steps cost, or the last one alone, with or without a plan."""
    ask = executor.final_cost if last_only else executor.cost
    cost = ask(recurrence, length, batch)
    return cost if prepared else cost + executor.preparation_cost(recurrence, length)


def seconds(cost: Cost) -> float:
    """Add up the time of operations, of traffic and of waiting."""
    return cost.operations / OPERATIONS + cost.bytes / BYTES + cost.rounds / ROUNDS


@dataclass(frozen=True)
class Row:
    """What is said of one executor.

    Attributes:
        executor: the executor.
        reason: the sentence why it cannot; None if it can.
        cost: what it would spend; None if it cannot.
        seconds: the estimated time; infinite if it cannot.
    """

    executor: Executor
    reason: str | None
    cost: Cost | None
    seconds: float


@dataclass(frozen=True)
class Explanation:
    """Why an executor was chosen; `print` shows a table.

    Attributes:
        chosen: the executor that `Auto` chooses.
        rows: every executor, the fastest first.
        warning: what to beware of in the system itself; None if nothing was seen.
    """

    chosen: Executor
    rows: tuple[Row, ...]
    warning: str | None

    def __str__(self) -> str:
        lines = [f"{'executor':<18}{'estimate':>11}{'operations':>12}{'bytes':>10}{'rounds':>9}"]
        for row in self.rows:
            name = type(row.executor).__name__
            if row.cost is None:
                lines.append(f"{name:<18}    cannot: {row.reason}.")
                continue
            cost = row.cost
            mark = " <- chosen" if row.executor == self.chosen else ""
            lines.append(
                f"{name:<18}{row.seconds * 1e3:>8.3g} ms{cost.operations:>12.2g}"
                f"{cost.bytes:>10.2g}{cost.rounds:>9.0f}{mark}"
            )
        if self.warning:
            lines.append(f"Warning: {self.warning}")
        return "\n".join(lines)


def explain(
    recurrence: LinearRecurrence,
    length: int,
    batch_shape: Sequence[int] = (),
    *,
    last_only: bool = False,
    prepared: bool = False,
) -> Explanation:
    """Say which executor `Auto` chooses, what each would cost, and why the others cannot.

    Args:
        recurrence: the recurrence to run.
        length: how many steps.
        batch_shape: the batch axes of the inputs.
        last_only: whether only the last step is asked for, as by `final`.
        prepared: whether plans are kept, as `linrec.nn.Recurrence` keeps those of frozen systems.

    Returns:
        The table, to print or to read. Times are estimates of a cost model, for comparison.

    Example:
        >>> import linrec
        >>> average = linrec.LinearRecurrence(A=[[0.9]], B=[[0.1]])
        >>> linrec.explain(average, 1000, last_only=True, prepared=True).chosen
        Toeplitz()
    """
    check_length(recurrence, length)
    batch = math.prod(batch_shape) * recurrence.copies
    rows = []
    for executor in CANDIDATES:
        reason = executor.why_not(recurrence, length)
        cost = None
        if reason is None:
            cost = cost_of(executor, recurrence, length, batch, last_only, prepared)
        rows.append(Row(executor, reason, cost, math.inf if cost is None else seconds(cost)))
    rows.sort(key=lambda row: row.seconds)
    chosen = Auto().select(recurrence, length, batch_shape, last_only=last_only, prepared=prepared)
    return Explanation(chosen, tuple(rows), instability(recurrence))


def instability(recurrence: LinearRecurrence) -> str | None:
    """Warn of a spectral radius over 1, with which states grow without bound."""
    if recurrence.varying:
        return None
    if not all(bool(leaf.isfinite().all()) for leaf in recurrence.leaves().values()):
        return "A, B, C or D hold numbers that are not finite."
    moduli = poles(recurrence).abs()
    radius = float(moduli.max()) if moduli.numel() else 0.0
    if radius <= 1 + 1e-9:
        return None
    return (
        f"the spectral radius of A is {radius:.6g}: states grow by that factor a step, and "
        f"overflow float32 after about {math.ceil(88.7 / math.log(radius))} steps."
    )
