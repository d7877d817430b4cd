"""Tables of the speed-up of parallel training."""

from pathlib import Path

import lmu.experiments.speedup
from linrec.reporting import Table, duration
from lmu.experiments.speedup import Speedups, Timing, Way

MEASURED = Path(lmu.experiments.speedup.__file__).parent / "measured.json"
OVER_LENGTH = "length-"


def read_measured() -> Speedups:
    """Read the timings that came with the library."""
    return Speedups.from_json(MEASURED.read_text(encoding="utf-8"))


def speedup_tables(speedups: Speedups) -> list[Table]:
    """Make a table of the tasks, and one over sequence length.

    Args:
        speedups: the measured timings.

    Returns:
        One or two tables; there is none for timings that were not measured.
    """
    cases = list(speedups.cases())
    tasks = [timings for name, timings in cases if not name.startswith(OVER_LENGTH)]
    lengths = [timings for name, timings in cases if name.startswith(OVER_LENGTH)]
    note = f"Measured on {speedups.hardware}."
    tables = []
    if tasks:
        rows = [task_row(speedups, timing) for timings in tasks for timing in timings]
        columns = ("task", "trained", "parameters", "a step", "an epoch", "times faster")
        tables.append(Table("An epoch of training", columns, tuple(rows), notes=(note,)))
    if lengths:
        ways = list(dict.fromkeys(t.way for timings in lengths for t in timings))
        columns = ("time steps", *(way.value for way in ways), "times faster")
        rows = [length_row(speedups, timings, ways) for timings in lengths]
        title = "A step of training over sequence length"
        tables.append(Table(title, columns, tuple(rows), notes=(note,)))
    return tables


def task_row(speedups: Speedups, timing: Timing) -> tuple[str, ...]:
    """Write the timing of a task."""
    return (
        timing.title,
        timing.way.value,
        f"{timing.parameters:,}",
        duration(timing.step),
        duration(timing.epoch),
        times_faster(speedups, timing),
    )


def length_row(speedups: Speedups, timings: list[Timing], ways: list[Way]) -> tuple[str, ...]:
    """Write the timings of a length."""
    by_way = {timing.way: timing for timing in timings}
    taken = (duration(by_way[way].step) if way in by_way else "" for way in ways)
    parallel = by_way.get(Way.PARALLEL)
    ratio = "" if parallel is None else times_faster(speedups, parallel)
    return (f"{timings[0].length:,}", *taken, ratio)


def times_faster(speedups: Speedups, timing: Timing) -> str:
    """Write how many times faster a way is than the unit of 2019."""
    ratio = speedups.ratio(timing)
    if ratio is None:
        return ""
    return f"{ratio:.0f}×" if ratio >= 10 else f"{ratio:.2g}×"
