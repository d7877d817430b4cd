"""The latency of one sample in a stream, compared with the least product of a step."""

import gc
import time
from collections.abc import Callable, Iterator
from statistics import quantiles
from typing import Any

import torch

from linrec.benchmark.cases import legendre
from linrec.nn import Recurrence
from linrec.run import step
from linrec.stream import Stream
from linrec.systems import LinearRecurrence

ORDERS = (16, 64, 256, 512)
CALLS = 20_000  # of each way, after a tenth as many uncounted ones
TURN = 100  # calls of a way in a row, before the next way's turn


def measure_latency(calls: int = CALLS) -> Iterator[dict[str, Any]]:
    """Time one sample at a time through a Legendre memory of each order, in float32.

    Each call is timed by itself and none is left out, so the percentiles are of single samples.
    The ways take turns, so that disturbances affect all. Garbage collection is off meanwhile.

    Args:
        calls: the number of calls of each way.

    Yields:
        The order, the way, and percentiles of its times in seconds.
    """
    for order in ORDERS:
        ways = ways_of(order)
        times: dict[str, list[int]] = {name: [] for name in ways}
        collected = gc.isenabled()
        gc.disable()
        try:
            for turn in range(-calls // (10 * TURN), max(calls // TURN, 1)):
                for name, way in ways.items():
                    taken = time_calls(way)
                    times[name] += taken if turn >= 0 else []
        finally:
            if collected:
                gc.enable()
        for name, taken in times.items():
            cuts = quantiles(taken, n=100, method="inclusive")
            yield {
                "order": order,
                "way": name,
                "calls": len(taken),
                "p50": cuts[49] * 1e-9,
                "p99": cuts[98] * 1e-9,
            }


def ways_of(order: int) -> dict[str, Callable[[], object]]:
    """Make the ways to step a memory, the bare product A x first."""
    memory = legendre(order, 2.0 * order)
    A, sample, state = memory.A.to_dense(), torch.randn(1), torch.randn(order)
    read = LinearRecurrence(memory.A, memory.B, torch.randn(1, order))
    alone, reading, module = Stream(memory), Stream(read), Recurrence(memory)
    many, samples = Stream(memory, streams=16), torch.randn(16, 1)
    return {
        "product A x": lambda: torch.mv(A, state),
        "push": lambda: alone.push(sample),
        "push, one output": lambda: reading.push(sample),
        "push, 16 streams": lambda: many.push(samples),
        "step": lambda: step(memory, sample, state),
        "module's step": lambda: module.step(sample, state),
    }


def time_calls(way: Callable[[], object]) -> list[int]:
    """Time each call of a turn, in nanoseconds."""
    taken, now = [], time.perf_counter_ns
    for _ in range(TURN):
        start = now()
        way()
        taken.append(now() - start)
    return taken
