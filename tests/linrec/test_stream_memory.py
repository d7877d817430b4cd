"""The memory of a stream, which does not grow with time."""

import gc
import os
import tracemalloc
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import linrec
import lmu
from tests.linrec.allocations import peak_of

MANY = 10_000_000 if os.environ.get("LINREC_FULL") else 50_000
SIZES = (*[1] * 50, 3, 1000, 4096)  # of the blocks of a round
SLACK = 1 << 18  # bytes: what Python and torch keep of small objects levels off at some 60 kB


@pytest.fixture(autouse=True)
def what_was_there_is_left_out() -> Iterator[None]:
    """Look at what a test makes alone: of all tests before it there are a million objects."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def feed(stream: linrec.Stream, samples: Tensor, rounds: int) -> None:
    """Push single steps and blocks of several sizes, by turns."""
    for _ in range(rounds):
        for size in SIZES:
            stream.push(samples[0] if size == 1 else samples[:size])


def traced() -> int:
    """Count the bytes of Python's objects that something refers to."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def tensors_alive() -> tuple[int, int]:
    """Count the tensors that there are, and the bytes of their storages, each once."""
    gc.collect()
    found = [each for each in gc.get_objects() if type(each) is Tensor]
    storages = {each.untyped_storage()._cdata: each.untyped_storage().nbytes() for each in found}
    return len(found), sum(storages.values())


SYSTEMS = {
    "recurrence": lambda: linrec.LinearRecurrence([[0.9, -0.2], [0.2, 0.9]], C=[[0.0, 1.0]]),
    "memory": lambda: lmu.LegendreMemory(2, 4, theta=20.0),
    "layer": lambda: lmu.ParallelLMU(2, 3, 1, 4, theta=20.0),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_what_is_held_does_not_grow_with_time(name: str) -> None:
    torch.manual_seed(0)
    stream, samples = linrec.Stream(SYSTEMS[name]()), torch.randn(max(SIZES), 2)
    feed(stream, samples, 3)  # plans are made now
    peak, alive = peak_of(lambda: feed(stream, samples, 1)), tensors_alive()
    tracemalloc.start()
    try:
        feed(stream, samples, 1)
        before = traced()
        feed(stream, samples, MANY // sum(SIZES))
        assert traced() <= before + SLACK
    finally:
        tracemalloc.stop()
    assert tensors_alive() == alive
    assert peak_of(lambda: feed(stream, samples, 1)) == peak


def test_a_stream_that_kept_its_outputs_would_be_found() -> None:
    stream, samples, kept = linrec.Stream(SYSTEMS["recurrence"]()), torch.randn(9, 2), []
    stream.push(samples)
    alive = tensors_alive()
    kept.append(stream.push(samples))
    assert tensors_alive() == (alive[0] + 1, alive[1] + 9 * 4)


def test_ever_new_lengths_of_blocks_keep_few_plans() -> None:
    stream = linrec.Stream(lmu.LegendreMemory(1, 8, theta=20.0), executor=linrec.Toeplitz())
    counts = []
    for stop in (20, 60):
        for length in range(stop - 18, stop):
            stream.push(torch.randn(length, 1))
        counts.append(tensors_alive()[0])
    assert counts[0] == counts[1]
