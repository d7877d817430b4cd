"""The growth of work with the shape: operations, rounds and memory are counted, not timed."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import linrec
from linrec.benchmark import recurrences
from linrec.benchmark.cases import legendre
from linrec.executors import Executor, Workload
from linrec.planner import estimates_of
from tests.cases import EXECUTORS
from tests.linrec.allocations import peak_of

FIXED = {name: each for name, each in EXECUTORS.items() if name != "auto"}
ORDER = 32


class Rounds(TorchDispatchMode):
    """Counts operations that compute something."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def call(
    executor: Executor, steps: int, batch: int = 2, outputs: int = 0, last: bool = False
) -> Callable[[], object]:
    """A call with everything made before that does not belong to it."""
    memory = legendre(ORDER, 200.0, outputs=outputs)
    inputs, plan = torch.randn(batch, steps, 1), executor.prepare(memory, steps)
    verb = linrec.final if last else linrec.run
    return lambda: verb(memory, inputs, executor=executor, plan=plan)


def operations(way: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        way()
    return counter.get_total_flops()


def rounds(way: Callable[[], object]) -> int:
    way()
    with Rounds() as counter:
        way()
    return counter.count


# From 512 to 1,024 steps, the operations in matrix products grow by so much. (Those of transforms
# are not counted, and the last state is a product with the kernel.)
GROWTH = {
    "recurrent": (1.95, 2.05),
    "toeplitz": (2.9, 4.05),  # in pieces that leave out some of what is above the diagonal
    "fft": (1.95, 2.05),
    "scan": (1.9, 2.1),
    "chunked": (1.95, 2.05),
    "chunked-1": (1.95, 2.05),
    "chunked-3": (1.95, 2.05),
}


@pytest.mark.parametrize("name", FIXED)
def test_operations_grow_with_steps_as_they_are_meant_to(name: str) -> None:
    few, many = (operations(call(FIXED[name], steps)) for steps in (512, 1024))
    least, most = GROWTH[name]
    assert least <= many / few <= most


@pytest.mark.parametrize("outputs", [0, 1, 200])
@pytest.mark.parametrize("name", FIXED)
def test_operations_are_those_that_the_planner_counts(name: str, outputs: int) -> None:
    executor, steps, batch = FIXED[name], 768, 3
    counted = operations(call(executor, steps, batch, outputs))
    work = Workload.of(legendre(ORDER, 200.0, outputs=outputs), steps, batch)
    assert counted / 2 <= estimates_of(executor).cost(work).operations <= 2 * counted


@pytest.mark.parametrize("name", FIXED)
def test_operations_of_the_last_state_are_those_of_one_product_or_of_the_loop(name: str) -> None:
    executor, steps, batch = FIXED[name], 768, 3
    counted = operations(call(executor, steps, batch, last=True))
    one_product = 2 * batch * steps * ORDER
    if name in ("toeplitz", "fft"):
        assert counted == one_product
    assert (
        counted
        <= 2
        * estimates_of(executor)
        .final_cost(Workload.of(legendre(ORDER, 200.0), steps, batch))
        .operations
    )


# How many operations, one after the other, a call of 1,024 steps takes at most; and how many more
# with twice as many steps.
ROUNDS = {
    "recurrent": (5200, 5200),
    "toeplitz": (40, 80),
    "fft": (30, 8),  # three for each block of outputs, of which there are twice as many
    "scan": (220, 25),
    "chunked": (110, 15),
    "chunked-1": (160, 15),
    "chunked-3": (150, 15),
}


@pytest.mark.parametrize("name", FIXED)
def test_rounds_grow_with_steps_as_they_are_meant_to(name: str) -> None:
    few, many = (rounds(call(FIXED[name], steps)) for steps in (1024, 2048))
    most, more = ROUNDS[name]
    assert few <= most and many - few <= more


def test_rounds_of_an_elementwise_scan_grow_more_slowly_than_steps() -> None:
    def scan(steps: int) -> Callable[[], Tensor]:
        decay, drive = torch.rand(1, steps, 64), torch.randn(1, steps, 64)
        return lambda: linrec.linear_scan(decay, drive)

    few, many = rounds(scan(1 << 12)), rounds(scan(1 << 16))
    assert many <= 5 * few < 1 << 12


def test_choosing_takes_no_operation_on_tensors() -> None:
    memory = legendre(ORDER, 200.0)
    assert rounds(lambda: linrec.Auto().select(memory, 1024, (8,))) == 0


# All states are held once, beside what one cacheful needs; the loop has its steps, and their stack.
HELD = {"fft": 1.4, "chunked": 1.2, "recurrent": 2.1}


@pytest.mark.parametrize("name", HELD)
def test_all_states_take_little_more_memory_than_they_are(name: str) -> None:
    steps, batch = 1024, 256
    way = call(FIXED[name], steps, batch)
    way()
    states = 4 * batch * steps * ORDER
    assert states <= peak_of(way) <= HELD[name] * states


@pytest.mark.parametrize("name", ["fft", "chunked"])
def test_with_one_output_no_states_are_held(name: str) -> None:
    steps, batch = 4096, 1024
    way = call(FIXED[name], steps, batch, outputs=1)
    way()
    peak, one = peak_of(way), 4 * batch * steps
    kernel = 4 * steps * ORDER
    # A chunk of 2 n steps holds two states of n: as much as an input a step.
    chunks = 3 * one * ORDER / 64 if name == "chunked" else 0
    tiles = 4 * (1 << 22)  # what is held of a cacheful of numbers, before and behind transforms
    assert peak <= 1.5 * (2 * one + kernel) + chunks + tiles
    assert peak < 4 * batch * steps * ORDER / 4


# Of a training step in chunks: what is given, its gradients, outputs and one tile, over the first.
TRAINED = {"GLA": 4.0, "Mamba-2": 4.05, "DeltaNet": 5.25}


@pytest.mark.parametrize("model", TRAINED)
def test_a_gradient_in_chunks_holds_one_tile(model: str) -> None:
    given = recurrences.draw(model, (16, 512, 32, 32))
    way = recurrences.call(partial(recurrences.ours, model), given, True)
    way()
    own = sum(each.nbytes for each in given)
    assert 3 * own <= peak_of(way) <= TRAINED[model] * own
