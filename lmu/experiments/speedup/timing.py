"""Time training steps in turns, and compare them."""

import json
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace

import torch

from linrec.stream.cuda_graph import record
from lmu.experiments.record import hardware, versions
from lmu.experiments.speedup.cases import GRAPHS, Case, Way
from lmu.experiments.training import flush_subnormals
from lmu.files import parse_json
from lmu.files.entries import COUNT, TEXT, TEXTS, Kind, check_entries, is_number

SHORTEST = 0.1  # seconds that are timed at once: shorter steps are repeated
LONGEST_GRAPH = 1_024  # time steps of a stepped network, each of which is dozens of kernels
WARM = 1.0  # seconds of a first step beyond which its one-time costs are not worth another step


@dataclass(frozen=True)
class Timing:
    """The times that a training step takes in one way.

    Args:
        case: the name of the case.
        title: a description in a few words.
        way: how it is trained.
        batch: sequences in a step.
        length: time steps in a sequence.
        steps: training steps in an epoch.
        parameters: how many numbers are trained.
        seconds: the time of a step, in each turn.
    """

    case: str
    title: str
    way: Way
    batch: int
    length: int
    steps: int
    parameters: int
    seconds: tuple[float, ...]

    @property
    def step(self) -> float:
        """The median time of a training step, in seconds."""
        return statistics.median(self.seconds)

    @property
    def epoch(self) -> float:
        """The seconds of an epoch's steps."""
        return self.steps * self.step


@dataclass(frozen=True)
class Speedups:
    """Timings from one machine.

    Args:
        timings: of every case and way.
        versions: of Python, torch and linrec.
        hardware: the hardware of the measurements.
    """

    timings: tuple[Timing, ...]
    versions: dict[str, str]
    hardware: str

    @staticmethod
    def here(timings: Iterable[Timing] = (), device: str = "cpu") -> "Speedups":
        """Label timings with this machine, or with one of its devices."""
        return Speedups(tuple(timings), versions(), hardware(torch.device(device)))

    def with_case(self, timings: Iterable[Timing]) -> "Speedups":
        """Add the timings of a case, or replace earlier ones."""
        new = tuple(timings)
        names = {timing.case for timing in new}
        kept = tuple(timing for timing in self.timings if timing.case not in names)
        return replace(self, timings=kept + new)

    def cases(self) -> Iterator[tuple[str, list[Timing]]]:
        """Yield the cases with their names."""
        for name in dict.fromkeys(timing.case for timing in self.timings):
            yield name, [timing for timing in self.timings if timing.case == name]

    def ratio(self, timing: Timing) -> float | None:
        """Compute how many times faster a way is than the unit of 2019 on the same task."""
        for other in self.timings:
            if other.case == timing.case and other.way is Way.ORIGINAL:
                return other.epoch / timing.epoch
        return None

    def to_json(self) -> str:
        """Write the timings as JSON."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    @staticmethod
    def from_json(text: str) -> "Speedups":
        """Read timings from the result of `to_json`.

        Raises:
            ValueError: the text is something else.
        """
        try:
            content = check_entries(parse_json(text), ENTRIES)
            entries = [check_entries(entry, TIMING) for entry in content.pop("timings")]
        except ValueError as error:
            raise ValueError(
                f"The text is no record of timings ({error}): expected the content of a "
                "`speedup.json`, as `lmu speedup` writes it."
            ) from None
        timings = tuple(
            Timing(**{**entry, "way": Way(entry["way"]), "seconds": tuple(entry["seconds"])})
            for entry in entries
        )
        return Speedups(timings, **content)


def is_seconds(value: object) -> bool:
    """Tell whether a value is a list of times, at least one."""
    if not isinstance(value, list) or not value:
        return False
    return all(is_number(each) and each > 0 for each in value)


ENTRIES = {
    "timings": Kind(lambda value: isinstance(value, list), "a list of timings"),
    "versions": TEXTS,
    "hardware": TEXT,
}
TIMING = {
    "case": TEXT,
    "title": TEXT,
    "way": Kind(lambda value: value in [*Way], f"one of {', '.join(Way)}"),
    "batch": COUNT,
    "length": COUNT,
    "steps": COUNT,
    "parameters": COUNT,
    "seconds": Kind(is_seconds, "times in seconds, at least one"),
}


def measure(case: Case, turns: int = 3, seconds: float = 5.0, device: str = "cpu") -> list[Timing]:
    """Time the training steps of a case in turns, so that a disturbance affects all ways alike.

    A short step is repeated in its turn for a tenth of a second. Each way's first step is not
    counted, unless it takes more than a second. Subnormal numbers are zeros, as in training. On a
    GPU most ways are also timed as CUDA graphs; a way that cannot be recorded is left out, with a
    warning.

    Args:
        case: the case to time.
        turns: how many turns, at least.
        seconds: for how long more turns are taken.
        device: the device that computes the steps.

    Returns:
        The timing of each way.
    """
    ways, tasks = {}, {}
    for way, build in case.tasks.items():
        torch.manual_seed(0)
        tasks[way] = build(case).to(device)
        ways[way] = tasks[way].training_step()
    for way, graph in graphs_of(case, device).items():
        torch.manual_seed(0)
        task = case.tasks[way](case).to(device)
        try:
            _, ways[graph] = record(device, task.training_step(recorded=True), threads=True)
        except RuntimeError as error:
            warnings.warn(f"`{case.name}`: no {graph}: {error}", stacklevel=2)
        else:
            tasks[graph] = task
    times: dict[Way, list[float]] = {way: [] for way in ways}
    repetitions: dict[Way, int] = {}
    end = time.perf_counter() + seconds
    with flush_subnormals():
        for way, step in ways.items():
            first = time_step(step, 1, device)
            if first > WARM:
                times[way].append(first)
            else:
                repetitions[way] = max(1, round(SHORTEST / time_step(step, 1, device)))
        while min(map(len, times.values())) < turns or time.perf_counter() < end:
            for way, step in ways.items():
                if len(times[way]) < turns or way in repetitions:
                    times[way].append(time_step(step, repetitions.get(way, 1), device))
    return [
        Timing(
            case.name,
            case.title,
            way,
            case.batch,
            case.length,
            case.steps,
            sum(p.numel() for p in tasks[way].network.parameters() if p.requires_grad),
            tuple(float(f"{taken:.4g}") for taken in times[way]),
        )
        for way in ways
    ]


def graphs_of(case: Case, device: str) -> dict[Way, Way]:
    """Return the ways that are timed as CUDA graphs too, with the names of the graphs."""
    if torch.device(device).type != "cuda":
        return {}
    stepped = () if case.length <= LONGEST_GRAPH else (Way.ORIGINAL,)
    return {way: GRAPHS[way] for way in case.tasks if way in GRAPHS and way not in stepped}


def time_step(step: Callable[[], object], repetitions: int, device: str) -> float:
    """Time some steps in a row, and return the seconds of one."""
    wait(device)
    start = time.perf_counter()
    for _ in range(repetitions):
        step()
    wait(device)
    return (time.perf_counter() - start) / repetitions


def wait(device: str) -> None:
    """Wait until a device has finished all its work."""
    if torch.device(device).type != "cpu":
        torch.accelerator.synchronize(device)
