"""The table of `explain`: every executor's estimate, and the nearest change of the choice."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from linrec._tensors.devices import in_double
from linrec._tensors.known_values import has_values
from linrec.coordinates import better_coordinates
from linrec.executors import Cost, Executor
from linrec.planner.costs import has_convolution, has_kernel
from linrec.planner.selection import Problem
from linrec.powers import Powers
from linrec.response import poles
from linrec.systems import LinearRecurrence

# How far a size is changed in search of another choice: by factors of two up to this.
FARTHEST = 1 << 12


@dataclass(frozen=True)
class Row:
    """One executor's row of the table.

    Attributes:
        executor: the executor.
        reason: a sentence saying why it cannot or must not be chosen; None if it may be.
        cost: its cost; None if it cannot run.
        seconds: the estimated time; infinite if it cannot run.
        error: the estimated error, relative to the magnitudes summed in the outputs.
    """

    executor: Executor
    reason: str | None
    cost: Cost | None
    seconds: float
    error: float


@dataclass(frozen=True)
class Explanation:
    """Why an executor was chosen; `print` shows a table.

    Attributes:
        chosen: the executor that `Auto` chooses.
        rows: every executor, the fastest first, those ruled out last.
        changes: for each executor that could be chosen, the smallest change found that makes it the
            choice.
        warning: a warning about the system itself; None if there is none.
        note: the coordinates in which powers of A are taken, if not the recurrence's own, and
            whether there are kernels for the device.
    """

    chosen: Executor
    rows: tuple[Row, ...]
    changes: Mapping[Executor, str]
    warning: str | None
    note: str | None = None

    def __str__(self) -> str:
        titles = ("estimate", "memory", "error", "operations", "bytes", "rounds")
        widths = (11, 11, 10, 12, 10, 9)
        head = "".join(f"{title:>{width}}" for title, width in zip(titles, widths, strict=True))
        lines = [f"{'executor':<16}{head}"]
        for row in self.rows:
            name = type(row.executor).__name__
            if row.cost is None:
                lines.append(f"{name:<16}   ruled out: {row.reason}.")
                continue
            cost, mark = row.cost, " <- chosen" if row.executor == self.chosen else ""
            mark = f" ruled out: {row.reason}." if row.reason else mark
            lines.append(
                f"{name:<16}{row.seconds * 1e3:>8.3g} ms{cost.memory / 1e6:>8.3g} MB"
                f"{row.error:>10.1e}{cost.operations + cost.transforms:>12.2g}"
                f"{cost.bytes:>10.2g}{cost.rounds:>9.0f}{mark}"
            )
        for executor, change in self.changes.items():
            lines.append(f"{type(executor).__name__} would be chosen {change}.")
        if self.note:
            lines.append(self.note)
        if self.warning:
            lines.append(f"Warning: {self.warning}")
        return "\n".join(lines)


def explain_selection(problem: Problem) -> Explanation:
    """Select an executor, with reasons."""
    rows: list[Row] = []
    criteria = problem.criteria
    for executor in problem.candidates:
        able = executor.why_not(problem.recurrence, criteria.work.steps) is None
        cost = criteria.cost(executor) if able else None
        seconds = math.inf if cost is None else criteria.seconds(cost)
        reason, error = problem.why_not(executor), criteria.error(executor)
        rows.append(Row(executor, reason, cost, seconds, error))
    rows.sort(key=lambda row: (row.reason is not None, row.seconds))
    chosen = problem.best_executor()
    others = [row.executor for row in rows if row.cost is not None and row.executor != chosen]
    found = ((executor, nearest_change(problem, executor)) for executor in others)
    changes = {executor: change for executor, change in found if change is not None}
    warning = instability(problem.recurrence)
    notes = [change_of_coordinates(problem.recurrence, criteria.work.steps)]
    if chosen.loses_digits(problem.recurrence):
        notes.append(f"Products of its matrices cancel: Recurrent runs in place of {chosen}.")
    if has_kernel(criteria.work):
        kernel = "loops that Numba compiles" if criteria.work.device == "cpu" else "Triton kernels"
        notes.append(f"AssociativeScan scans elementwise in {kernel} (linrec.kernels).")
    if has_convolution(criteria.work):
        notes.append("FFTConvolution transforms in loops that Numba compiles (linrec.kernels).")
    note = " ".join(filter(None, notes)) or None
    return Explanation(chosen, tuple(rows), changes, warning, note)


def nearest_change(problem: Problem, wanted: Executor) -> str | None:
    """Find the smallest change of one size or option that makes another executor the choice."""
    for words, changed in variations(problem):
        if changed.best_executor() == wanted:
            return words
    return None


def variations(problem: Problem) -> Iterator[tuple[str, Problem]]:
    """Yield problems that differ more and more: other options, then more steps or sequences."""
    criteria = problem.criteria
    criteria = problem.criteria
    if criteria.tolerance is not None:
        yield "without the tolerance", problem.changed(tolerance=None)
    if criteria.per_step:
        yield "with `Auto(per_step=False)`", problem.changed(per_step=False)
    other = "for all steps" if criteria.last_only else "for the last step alone"
    yield other, problem.changed(last_only=not criteria.last_only)
    other = "if it had to be prepared first" if criteria.prepared else "if plans were kept"
    yield other, problem.changed(prepared=not criteria.prepared)
    work = criteria.work
    asked = work.gradient or work.trained
    other = "without a gradient" if asked else "with a gradient in the inputs"
    work = work._replace(gradient=not asked, trained=False)
    yield other, problem.changed(work=work)
    free = {"steps": "steps", "sequences": "batch"}
    if criteria.work.time_varying:  # has as many matrices as steps
        del free["steps"]
    factor = 2
    while factor <= FARTHEST and criteria.tolerance is None:
        for unit, name in free.items():
            size = getattr(criteria.work, name)
            for changed in (size * factor, size // factor):
                if changed:
                    work = criteria.work._replace(**{name: changed})
                    words = f"{changed:,} {unit if changed > 1 else unit.removesuffix('s')}"
                    yield f"with {words}", problem.changed(work=work)
        factor *= 2


def instability(recurrence: LinearRecurrence) -> str | None:
    """Warn of a spectral radius over 1: states grow without bound."""
    leaves = recurrence.leaves().values()
    if recurrence.time_varying or not has_values(*leaves):
        return None
    if not all(bool(leaf.isfinite().all()) for leaf in leaves):
        return "A, B, C or D hold numbers that are not finite."
    moduli = poles(recurrence).detach().abs()
    radius = float(moduli.max()) if moduli.numel() else 0.0
    if radius <= 1 + 1e-9:
        return None
    return (
        f"the spectral radius of A is {radius:.6g}: states grow by that factor a step, and "
        f"overflow float32 after about {math.ceil(88.7 / math.log(radius))} steps."
    )


def change_of_coordinates(recurrence: LinearRecurrence, length: int) -> str | None:
    """Describe the change of coordinates where powers of A would lose digits."""
    seen = has_values(*recurrence.leaves().values())
    if recurrence.steps is not None or length < 2 or not seen:
        return None
    powers = Powers(in_double(recurrence.A))
    powers.square((length - 1).bit_length())
    if better_coordinates(powers, length) is None:
        return None
    return (
        "Powers of A lose digits when they are squared (errors about "
        f"{powers.cancellation(length)[0]:.0e} times the loop's): all but Recurrent take them in "
        "coordinates of the states in which A contracts, and err less than Recurrent. Compiled "
        "graphs cannot: give them `linrec.balanced_realization(recurrence).system`."
    )
