"""The time that `Auto` loses by choosing from estimates, over many shapes."""

import math
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, field

import torch

from linrec.benchmark.cases import legendre
from linrec.benchmark.timing import once
from linrec.executors import Executor
from linrec.planner import CANDIDATES, Auto
from linrec.run import final, run
from linrec.systems import LinearRecurrence

# Shapes with larger outputs, or with a longer time for every executor, are left out.
MOST_NUMBERS, LONGEST = 1 << 24, 0.2

# An executor estimated to be this many times slower than the best is not timed.
HOPELESS = 12.0


@dataclass(frozen=True)
class Sizes:
    """One shape: n states, T steps, sequences, channels, and outputs of a channel (0: all states).

    It also says what is computed: the last step alone; a gradient in the inputs, or in the system
    as well, which then has to be prepared in every call.
    """

    order: int
    steps: int
    batch: int
    channels: int
    outputs: int
    last_only: bool
    gradient: bool
    trained: bool

    def recurrence(self, device: str = "cpu") -> LinearRecurrence:
        """Make a Legendre memory of this shape."""
        window = max(self.steps / 2, 4.0)
        memory = legendre(self.order, window, self.channels, self.outputs, device=device)
        if self.trained:
            for leaf in memory.leaves().values():
                leaf.requires_grad_()
        return memory

    def __str__(self) -> str:
        read = "the last state" if self.last_only else f"{self.outputs or 'all'} outputs"
        back = ", with gradient" if self.gradient else ""
        back = ", trained" if self.trained else back
        return (
            f"n {self.order}, T {self.steps}, batch {self.batch}, channels {self.channels}, "
            f"{read}{back}"
        )


def shapes(seed: int = 0) -> Iterator[Sizes]:
    """Yield the grid of all shapes in a random order."""
    grid = [
        Sizes(order, steps, batch, channels, outputs, last, gradient, trained)
        for order in (1, 2, 8, 32, 64, 128, 256, 512)
        for steps in (1, 16, 128, 784, 4096, 65536)
        for batch in (1, 8, 64, 512, 4096)
        for channels in (1, 16, 512)
        for outputs, last in ((0, False), (1, False), (0, True))
        for gradient, trained in ((False, False), (True, False), (True, True))
    ]
    order = torch.randperm(len(grid), generator=torch.Generator().manual_seed(seed))
    return (grid[index] for index in order.tolist())


@dataclass
class Regret:
    """Times of all executors over shapes, and of the one that `Auto` chose.

    Attributes:
        rows: for each shape its name, the chosen executor, and seconds and costs by executor.
    """

    rows: list[dict[str, object]] = field(default_factory=list)

    def ratios(self) -> list[float]:
        """List the time of the choice over the best time, for each shape."""
        found = []
        for row in self.rows:
            seconds = row["seconds"]
            assert isinstance(seconds, dict)
            found.append(seconds[row["chosen"]] / min(seconds.values()))
        return found

    def summary(self) -> dict[str, float]:
        """Summarise the ratios: their number, geometric mean, 95th percentile and largest."""
        ratios = torch.tensor(self.ratios(), dtype=torch.float64)
        return {
            "shapes": len(ratios),
            "geometric mean": float(ratios.log().mean().exp()),
            "95th percentile": float(ratios.quantile(0.95)),
            "worst": float(ratios.max()),
        }


def measure(
    count: int, auto: Auto | None = None, seed: int = 0, device: str = "cpu"
) -> Iterator[dict[str, object]]:
    """Time the executors that may be fastest, shape by shape, with plans where nothing is trained.

    Yields:
        A row for `Regret`.
    """
    auto = auto or Auto(per_step=False)  # all executors are candidates
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
        recurrence = shape.recurrence(device)
        problem = auto.problem(
            recurrence,
            shape.steps,
            (shape.batch,),
            last_only=shape.last_only,
            prepared=not shape.trained,
            gradient=shape.gradient,
        )
        costs = {each: problem.criteria.cost(each) for each in CANDIDATES}
        estimates = {each: problem.criteria.seconds(cost) for each, cost in costs.items()}
        least = min(estimates.values())
        if least > LONGEST:
            continue
        chosen = problem.best_executor()
        likely = [each for each in CANDIDATES if estimates[each] <= HOPELESS * max(least, 3e-4)]
        seconds = time_all(recurrence, shape, [*{*likely, chosen}])
        done += 1
        yield {
            "shape": str(shape),
            "chosen": type(chosen).__name__,
            "seconds": seconds,
            "costs": {type(each).__name__: astuple(costs[each]) for each in CANDIDATES},
        }


def time_all(
    recurrence: LinearRecurrence, shape: Sizes, executors: list[Executor]
) -> dict[str, float]:
    """Time executors in turn, and return the least of a few times of each."""
    ways = {type(each).__name__: way_of(recurrence, shape, each) for each in executors}
    best = dict.fromkeys(ways, math.inf)
    for _ in range(4):
        for name, way in ways.items():
            best[name] = min(best[name], once(way, recurrence.device.type))
    return best


def way_of(recurrence: LinearRecurrence, shape: Sizes, executor: Executor) -> Callable[[], object]:
    """Make the function to time: a call, with gradients if the shape has them."""
    sizes = (shape.batch, shape.steps, shape.channels)
    inputs = torch.randn(sizes, device=recurrence.device, requires_grad=shape.gradient)
    verb = final if shape.last_only else run
    plan = None if shape.trained else executor.prepare(recurrence, shape.steps)
    wanted = [inputs, *(recurrence.leaves().values() if shape.trained else ())]

    def way() -> object:
        outputs = verb(recurrence, inputs, executor=executor, plan=plan).outputs
        if not shape.gradient:
            return outputs
        return torch.autograd.grad(outputs, wanted, torch.ones_like(outputs), allow_unused=True)

    return way
