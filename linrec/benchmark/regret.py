"""How much time `Auto` loses by choosing from estimates, over many shapes."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from linrec.benchmark.cases import legendre
from linrec.benchmark.timing import once
from linrec.executors import Executor, Workload
from linrec.planner import CANDIDATES, CPU, Auto
from linrec.run import final, run
from linrec.systems import LinearRecurrence

# Shapes whose outputs are larger, or which would take longer however they are run, are left out.
MOST_NUMBERS, LONGEST = 1 << 24, 0.2

# An executor that is estimated to be so many times slower than the best is not timed.
HOPELESS = 12.0


@dataclass(frozen=True)
class Shape:
    """One shape: n states, T steps, sequences, channels, outputs of a channel (0: all states)."""

    order: int
    steps: int
    batch: int
    channels: int
    outputs: int
    last_only: bool

    def recurrence(self) -> LinearRecurrence:
        """A Legendre memory of this shape."""
        return legendre(self.order, max(self.steps / 2, 4.0), self.channels, self.outputs)

    def __str__(self) -> str:
        read = "the last state" if self.last_only else f"{self.outputs or 'all'} outputs"
        return (
            f"n {self.order}, T {self.steps}, batch {self.batch}, channels {self.channels}, {read}"
        )


def shapes(seed: int = 0) -> Iterator[Shape]:
    """Go through the grid of all shapes in a random order, without end of its variety."""
    grid = [
        Shape(order, steps, batch, channels, outputs, last)
        for order in (1, 2, 8, 32, 64, 128, 256, 512)
        for steps in (1, 16, 128, 784, 4096, 65536)
        for batch in (1, 8, 64, 512, 4096)
        for channels in (1, 16, 512)
        for outputs, last in ((0, False), (1, False), (0, True))
    ]
    order = torch.randperm(len(grid), generator=torch.Generator().manual_seed(seed))
    return (grid[index] for index in order.tolist())


@dataclass
class Regret:
    """Times of all executors over shapes, and what `Auto` would have taken.

    Attributes:
        rows: for each shape its name, the workload, and seconds by executor.
    """

    rows: list[dict[str, object]] = field(default_factory=list)

    def ratios(self) -> list[float]:
        """Give the time of the choice over the best time, shape by shape."""
        found = []
        for row in self.rows:
            seconds = row["seconds"]
            assert isinstance(seconds, dict)
            found.append(seconds[row["chosen"]] / min(seconds.values()))
        return found

    def summary(self) -> dict[str, float]:
        """The geometric mean and the 95th percentile."""
        ratios = torch.tensor(self.ratios(), dtype=torch.float64)
        return {
            "shapes": len(ratios),
            "geometric mean": float(ratios.log().mean().exp()),
            "95th percentile": float(ratios.quantile(0.95)),
            "worst": float(ratios.max()),
        }


def measure(count: int, auto: Auto | None = None, seed: int = 0) -> Iterator[dict[str, object]]:
    """Time all executors that have a chance, shape by shape, with plans at hand.

    Yields:
        A row for `Regret`.
    """
    auto = auto or Auto()
    done = 0
    for shape in shapes(seed):
        if done == count:
            return
        numbers = (
            shape.batch
            * shape.channels
            * (shape.order if shape.last_only else shape.steps * (shape.outputs or shape.order))
        )
        given = shape.batch * shape.channels * shape.steps
        if max(numbers, given) > MOST_NUMBERS:
            continue
        recurrence = shape.recurrence()
        work = Workload.of(recurrence, shape.steps, shape.batch * shape.channels)
        costs = {
            each: each.final_cost(work) if shape.last_only else each.cost(work)
            for each in CANDIDATES
        }
        estimates = {each: (auto.rates or CPU).seconds(cost) for each, cost in costs.items()}
        least = min(estimates.values())
        if least > LONGEST:
            continue
        chosen = auto.select(
            recurrence, shape.steps, (shape.batch,), last_only=shape.last_only, prepared=True
        )
        likely = [each for each in CANDIDATES if estimates[each] <= HOPELESS * max(least, 3e-4)]
        seconds = time_all(recurrence, shape, [*{*likely, chosen}])
        done += 1
        yield {
            "shape": str(shape),
            "chosen": type(chosen).__name__,
            "seconds": seconds,
            "costs": {type(each).__name__: tuple(costs[each]) for each in CANDIDATES},
        }


def time_all(
    recurrence: LinearRecurrence, shape: Shape, executors: list[Executor]
) -> dict[str, float]:
    """Time executors in turns: the least of a few, since a choice between them is all it is for."""
    inputs = torch.randn(shape.batch, shape.steps, shape.channels)
    verb = final if shape.last_only else run
    plans = {each: each.prepare(recurrence, shape.steps) for each in executors}
    best = dict.fromkeys(executors, math.inf)
    with torch.no_grad():
        for turn in range(4):
            for each, plan in plans.items():
                taken = once(lambda p=plan: verb(recurrence, inputs, plan=p))
                best[each] = taken if turn == 0 else min(best[each], taken)
                if turn == 1 and best[each] > 4 * min(best.values()):
                    best[each] = min(best[each], taken)
    return {type(each).__name__: taken for each, taken in best.items()}
