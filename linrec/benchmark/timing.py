"""Times that can be compared: taken in turns, in one run, and the median of several."""

import ctypes
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping

import torch

from linrec.reporting import processor

# Short calls are timed in a row, as a loop makes them, for so many seconds; long ones singly.
TURN, LONG = 0.002, 0.01


def medians(
    ways: Mapping[str, Callable[[], object]],
    seconds: float = 3.0,
    least: int = 5,
    *,
    fresh: bool = True,
) -> dict[str, float]:
    """Time several functions in turns, so that what disturbs one disturbs all.

    Each is called once before, not timed. What a call gives is given back outside the timed part,
    so that the memory of each result is newly allocated.

    Args:
        ways: the functions, by name.
        seconds: for how long they take turns, in seconds.
        least: how many turns at least.
        fresh: whether memory is new to the process in each call, as that of large results is;
            else calls find what those before gave back, as in a loop.

    Returns:
        The median time of each, in seconds.
    """
    for way in ways.values():
        way()
    times: dict[str, list[float]] = {name: [] for name in ways}
    end = time.perf_counter() + seconds
    turns = 0
    while turns < least or time.perf_counter() < end:
        turns += 1
        for name, way in ways.items():
            times[name].extend(alone(way) if fresh else in_a_row(way))
    return {name: statistics.median(taken) for name, taken in times.items()}


def alone(way: Callable[[], object]) -> list[float]:
    """Time one call, whose memory is new to the process."""
    give_back()
    return [once(way)]


def in_a_row(way: Callable[[], object]) -> list[float]:
    """Time calls for one turn, but at least one.

    Before short ones one is made that is not counted: it finds caches and memory as another way has
    left them.
    """
    first = once(way)
    if first >= LONG:
        return [first]
    taken: list[float] = []
    while sum(taken) < TURN:
        taken.append(once(way))
    return taken


def give_back() -> None:
    """Hand memory that the allocator keeps back to the system, where there is a way to."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # not the GNU library, or no library at all
        return


def once(way: Callable[[], object]) -> float:
    """Time one call, in seconds; its result is dropped afterwards."""
    start = time.perf_counter()
    result = way()
    taken = time.perf_counter() - start
    del result
    return taken


def machine() -> dict[str, str | int]:
    """Name the machine, as far as it can be named."""
    return {
        "processor": processor(),
        "vector instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
