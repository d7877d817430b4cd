"""Comparable times: functions take turns in one run, and the median of each is taken."""

import ctypes
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from linrec.kernels import versions_of_loops
from linrec.reporting import processor

# Calls shorter than LONG seconds are timed in a row, as in a loop, for a turn of TURN seconds;
# longer ones singly.
TURN, LONG = 0.002, 0.01

# On a GPU, the calls queued together, and the bytes overwritten before each.
QUEUED, OVERWRITTEN = 10, 1 << 28


def medians(
    ways: Mapping[str, Callable[[], object]],
    seconds: float = 3.0,
    least: int = 5,
    *,
    fresh: bool = True,
    device: str = "cpu",
    clock: Callable[[], float] | None = None,
) -> dict[str, float]:
    """Time several functions in turn, so that disturbances affect all of them.

    Each is first called once without timing. On a CPU, and where a GPU's clock is used, results are
    freed outside the timed part.

    Args:
        ways: the functions, by name.
        seconds: the time for all turns, in seconds.
        least: the least number of turns.
        fresh: whether memory is new to the process in each call, as for large results; otherwise
            calls reuse the memory of earlier ones, as in a loop. On a GPU: whether caches are
            overwritten before each call, which is then timed by the GPU's clock; otherwise calls
            are timed in a row, including their launches.
        device: the device of the functions.
        clock: times calls on a CPU; `time.process_time` leaves out other programs. None: elapsed
            time.

    Returns:
        The median time of each, in seconds.
    """
    for way in ways.values():
        way()
    synchronize(device)
    turn = turn_on(device, fresh, clock)
    times: dict[str, list[float]] = {name: [] for name in ways}
    end = time.perf_counter() + seconds
    turns = 0
    while turns < least or time.perf_counter() < end:
        turns += 1
        for name, way in ways.items():
            times[name].extend(turn(way))
    return {name: statistics.median(taken) for name, taken in times.items()}


def turn_on(
    device: str, fresh: bool, clock: Callable[[], float] | None = None
) -> Callable[[Callable[[], object]], list[float]]:
    """Return the function that times one turn on a device."""
    kind = torch.device(device).type
    if kind == "cpu":
        return partial(alone if fresh else in_a_row, clock=clock)
    if kind == "cuda" and fresh:
        return partial(time_queued, torch.empty(OVERWRITTEN, dtype=torch.uint8, device=device))
    return partial(time_launched, device)


def time_queued(caches: Tensor, way: Callable[[], object]) -> list[float]:
    """Time calls by the clock of a GPU, each after its caches are overwritten.

    (Overwriting takes longer than a launch, so that the call behind it is already queued.)
    """
    marks = []
    for _ in range(QUEUED):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        caches.zero_()
        start.record()
        result = way()
        stop.record()
        del result
        marks.append((start, stop))
    torch.cuda.synchronize(caches.device)
    return [start.elapsed_time(stop) / 1e3 for start, stop in marks]


def time_launched(device: str, way: Callable[[], object]) -> list[float]:
    """Time calls in a row on a device until they fill a turn, and wait for the last."""
    synchronize(device)
    start, count, taken = time.perf_counter(), 0, 0.0
    while taken < TURN:
        way()
        count += 1
        taken = time.perf_counter() - start
    synchronize(device)
    return [(time.perf_counter() - start) / count]


def synchronize(device: str) -> None:
    """Wait until a device has finished all its work."""
    kind = torch.device(device).type
    module: Any = getattr(torch, kind, None)
    if kind != "cpu" and hasattr(module, "synchronize"):
        module.synchronize()


def alone(way: Callable[[], object], clock: Callable[[], float] | None = None) -> list[float]:
    """Time one call, in memory that is new to the process."""
    give_back()
    return [once(way, clock=clock)]


def in_a_row(way: Callable[[], object], clock: Callable[[], float] | None = None) -> list[float]:
    """Time calls for one turn, at least one.

    Before short calls, one call is not counted, because it finds caches and memory as another way
    left them.
    """
    first = once(way, clock=clock)
    if first >= LONG:
        return [first]
    taken: list[float] = []
    while sum(taken) < TURN:
        taken.append(once(way, clock=clock))
    return taken


def give_back() -> None:
    """Return the memory that the allocator keeps to the system, if that is possible."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # not the GNU library, or no library at all
        return


def once(
    way: Callable[[], object],
    device: str = "cpu",
    clock: Callable[[], float] | None = None,
) -> float:
    """Time one call, in seconds; its result is dropped afterwards."""
    clock = clock or time.perf_counter
    start = clock()
    result = way()
    synchronize(device)
    taken = clock() - start
    del result
    return taken


def machine(device: str = "cpu") -> dict[str, str | int]:
    """Describe the machine and its software as far as they are known, with the device, if any."""
    kind, named = torch.device(device).type, {}
    if kind == "cuda":
        card = torch.cuda.get_device_properties(device)
        named = {
            "device": card.name,
            "capability": f"{card.major}.{card.minor}",
            "multiprocessors": card.multi_processor_count,
            "memory": card.total_memory,
            "cuda": torch.version.cuda or "none",
            "triton": version("triton") if find_spec("triton") else "none",
        }
    elif kind != "cpu":
        named = {"device": kind}
    return (
        named
        | {
            "processor": processor(),
            "vector instructions": torch.backends.cpu.get_cpu_capability(),
            "cores": os.cpu_count() or 1,
            "threads": torch.get_num_threads(),
            "system": f"{platform.system()} {platform.release()}",
            "python": platform.python_version(),
            "torch": torch.__version__,
        }
        | versions_of_loops()
    )
