"""The parts of a measurement on a device; each runs in a process of its own.

`python -m linrec.benchmark.parts NAME SETTINGS FILE` runs one part. It writes each row into the
file at once, so that no measurement is lost if the process ends early.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from linrec.benchmark.calibration import measure_rates, store_rates
from linrec.benchmark.device_cases import SMALL as SMALL_CASES
from linrec.benchmark.device_cases import chosen_on, measure_cases, measure_steps
from linrec.benchmark.device_peers import DEVICE_FIELD, QUICK_FIELD
from linrec.benchmark.floors import measure_floors
from linrec.benchmark.peers import measure_peers
from linrec.benchmark.regret import measure
from linrec.testing.device_checks import CHECKS, FULL, SMALL

Row = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """The settings of a part.

    Attributes:
        device: the device.
        seconds: the time limit of the part.
        quick: whether a first look is enough.
        shapes: the number of shapes over which choices are judged.
        pythons: interpreters to search for other libraries.
    """

    device: str
    seconds: float
    quick: bool = False
    shapes: int = 60
    pythons: tuple[str, ...] = ()


def check(given: Settings) -> Iterator[Row]:
    """Run every check on the device, and report failures."""
    effort = SMALL if given.quick else FULL
    if not given.device.startswith("cuda"):
        effort = effort._replace(backend="eager")
    for each in CHECKS:
        start, error = time.perf_counter(), None
        try:
            each.hold(given.device, effort)
        except Exception as caught:  # after any error, the others are tried
            error = f"{type(caught).__name__}: {caught}"[:2000]
        taken = time.perf_counter() - start
        yield {"check": each.name, "passed": error is None, "error": error, "seconds": taken}


def floors(given: Settings) -> Iterator[Row]:
    """Measure the bandwidths and rates of the device."""
    seconds = 0.1 if given.quick else given.seconds / 2
    return measure_floors(given.device, seconds, given.quick)


def cases(given: Settings) -> Iterator[Row]:
    """Time the cases."""
    yield from chosen_on(given.device)
    if given.quick:
        yield from measure_cases(given.device, 0.1, SMALL_CASES)
    else:
        yield from measure_cases(given.device, given.seconds / 2)


def steps(given: Settings) -> Iterator[Row]:
    """Time one sample, with and without a graph."""
    return measure_steps(given.device, 0.1 if given.quick else given.seconds / 2)


def rates(given: Settings) -> Iterator[Row]:
    """Measure the rates used to choose executors, and save them, except in a first look."""
    found = measure_rates(0.2 if given.quick else given.seconds / 2, given.device)
    kept = None if given.quick else str(store_rates(found, device=given.device))
    yield {"rates": asdict(found), "kept": kept}


def regret(given: Settings) -> Iterator[Row]:
    """Time all executors and the chosen one over many shapes."""
    return measure(2 if given.quick else given.shapes, device=given.device)


def peers(given: Settings) -> Iterator[Row]:
    """Time other libraries."""
    field = QUICK_FIELD if given.quick else DEVICE_FIELD
    each = given.seconds / (2 * len(field.peers))
    return measure_peers(
        list(given.pythons), max(each * 4, 20), 0.1 if given.quick else 1.0, given.device, field
    )


# The parts in order, each with its share of the time: seconds of a run of about eight minutes.
PARTS: dict[str, tuple[Callable[[Settings], Iterable[Row]], float]] = {
    "checks": (check, 120),
    "floors": (floors, 20),
    "cases": (cases, 85),
    "steps": (steps, 20),
    "rates": (rates, 15),
    "regret": (regret, 70),
    "peers": (peers, 140),
}


def run_part(name: str, given: Settings, file: Path) -> None:
    """Run a part within its time, and write its rows into a file, one a line."""
    end = time.perf_counter() + given.seconds
    with file.open("w", encoding="utf-8") as lines:
        for row in PARTS[name][0](given):
            lines.write(json.dumps(row) + "\n")
            lines.flush()
            if time.perf_counter() > end:
                lines.write(json.dumps({"stopped": f"after {given.seconds:.0f} seconds"}) + "\n")
                return


def main(name: str, settings: str, file: str) -> None:
    """Run the part that the command line names."""
    told = json.loads(settings)
    run_part(name, Settings(**told | {"pythons": tuple(told["pythons"])}), Path(file))


if __name__ == "__main__":
    main(*sys.argv[1:])
