"""Choices that were measured to take more than twice as long as the best, and are made no more."""

import pytest
import torch

import linrec
from linrec.benchmark.regret import Sizes
from linrec.kernels import cpu_loops
from linrec.planner import selection
from linrec.planner.rates import CPU

AUTO = linrec.Auto(rates=CPU, per_step=False)  # whatever is stored of this machine


def sizes(order: int, steps: int, batch: int, outputs: int = 0, last_only: bool = False) -> Sizes:
    return Sizes(order, steps, batch, 1, outputs, last_only, gradient=False, trained=False)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("shape", "dtype", "best"),
    [
        # Reading a long kernel takes less time than writing as much for the first time.
        (sizes(32, 65536, 1, last_only=True), torch.float32, (linrec.Toeplitz,)),
        # A single transform runs in one thread.
        (sizes(8, 65536, 1, outputs=1), torch.float32, (linrec.Chunked,)),
        # In double precision there are half as many operations a second.
        (sizes(32, 1024, 2048), torch.float64, (linrec.Chunked,)),
    ],
    ids=["a long kernel", "one transform", "double precision"],
)
def test_choices_that_were_slow(
    shape: Sizes,
    dtype: torch.dtype,
    best: tuple[type[linrec.Executor], ...],
    compiled: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cpu_loops, "HAS_NUMBA", compiled)
    selection.recall.cache_clear()  # choices depend on the loops
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        recurrence = shape.recurrence()
    finally:
        torch.set_default_dtype(before)
    chosen = AUTO.select(
        recurrence, shape.steps, (shape.batch,), last_only=shape.last_only, prepared=True
    )
    selection.recall.cache_clear()
    assert isinstance(chosen, best)
