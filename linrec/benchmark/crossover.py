"""Times of every executor over the numbers of steps and states, to find the fastest for each."""

from collections.abc import Iterator

import torch

from linrec.benchmark.cases import legendre
from linrec.benchmark.timing import medians
from linrec.executors import Workload
from linrec.planner import CANDIDATES, estimates_of
from linrec.planner.rates import CPU
from linrec.run import run

# Executors with a longer estimated time, in seconds, are left out.
LONGEST = 0.5

STEPS = (16, 64, 256, 1024, 4096, 16384, 65536)
STATES = (1, 4, 16, 64, 256)


def crossover(seconds: float = 0.3) -> Iterator[dict[str, object]]:
    """Time all executors on all states of eight sequences, with plans made in advance."""
    for steps in STEPS:
        yield from at("steps", 32, steps, 8, seconds)
    for states in STATES:
        yield from at("states", states, 1024, 8, seconds)


def at(over: str, states: int, steps: int, batch: int, seconds: float) -> Iterator[dict]:
    """Time all executors on one shape."""
    memory, inputs = legendre(states, max(steps / 2, 4.0)), torch.randn(batch, steps, 1)
    work = Workload.of(memory, steps, batch)
    ways = {}
    for each in CANDIDATES:
        if CPU.seconds(estimates_of(each).cost(work)) < LONGEST:
            plan = each.prepare(memory, steps)
            ways[type(each).__name__] = lambda plan=plan: run(memory, inputs, plan=plan)
    fixed = f"{states} states" if over == "steps" else f"{steps:,} steps"
    with torch.no_grad():
        for name, taken in medians(ways, seconds, 3, fresh=False).items():
            yield {
                "over": over,
                "fixed": f"{fixed}, {batch} sequences",
                "executor": name,
                "states": states,
                "steps": steps,
                "numbers": batch * steps * states,
                "seconds": taken,
            }
