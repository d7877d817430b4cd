"""Choices that once took more than twice as long as the best, and must not be made again."""

import pytest
import torch

import linrec
from linrec.benchmark.regret import Sizes
from linrec.kernels import cpu_loops
from linrec.planner import selection
from linrec.planner.rates import CPU

RECURSIVE = (linrec.Recurrent, linrec.AssociativeScan)

AUTO = linrec.Auto(rates=CPU, per_step=False)  # whatever is stored of this machine


def sizes(
    order: int, steps: int, batch: int, outputs: int = 0, *, last: bool = False, train: bool = False
) -> Sizes:
    return Sizes(order, steps, batch, 1, outputs, last, gradient=train, trained=train)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("shape", "dtype", "best"),
    [
        # Reading a long kernel takes less time than writing as much for the first time.
        (sizes(32, 65536, 1, last=True), torch.float32, (linrec.Toeplitz,)),
        # A single transform runs in one thread.
        (sizes(8, 65536, 1, outputs=1), torch.float32, (linrec.Chunked,)),
        # In double precision there are half as many operations a second.
        (sizes(32, 1024, 2048), torch.float64, (linrec.Chunked,)),
        # To see that a kept plan is still its own, A is read; a scan of one step reads none of it.
        (sizes(512, 1, 64, outputs=1), torch.float32, (linrec.AssociativeScan,)),
        # A plan within a graph takes longer than a step.
        (sizes(64, 1, 512, outputs=1, train=True), torch.float32, RECURSIVE),
        (sizes(2, 1, 8, last=True, train=True), torch.float32, (linrec.Recurrent,)),
    ],
    ids=["a long kernel", "one transform", "double precision", "A is read", "a plan", "one step"],
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
    asked = AUTO.problem(
        recurrence, shape.steps, (shape.batch,), shape.last_only, not shape.trained, shape.gradient
    )
    chosen = asked.best_executor()
    selection.recall.cache_clear()
    assert isinstance(chosen, best)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("steps", [64, 1024])
def test_gated_attention_is_trained_in_chunks(
    steps: int, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scan would write out what each step adds, and read all states again; 1.4 to 4.4 times."""
    monkeypatch.setattr(cpu_loops, "HAS_NUMBA", compiled)
    selection.recall.cache_clear()
    asked: list[linrec.Executor] = []

    class Watched(linrec.Auto):
        def select(self, *given: object, **named: object) -> linrec.Executor:  # type: ignore[override]
            asked.append(super().select(*given, **named))  # type: ignore[arg-type]
            return asked[-1]

    layer = linrec.nn.GatedLinearAttention(64, executor=Watched(rates=CPU))
    layer(torch.randn(8, steps, 64))
    selection.recall.cache_clear()
    assert [type(each) for each in asked] == [linrec.Chunked]
