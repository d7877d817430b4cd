"""Which executor is chosen, and what is said about it."""

import pytest
import torch

import linrec
from linrec.planner import CANDIDATES
from tests.cases import VARYING, legendre, normal


def memory(order: int, copies: int = 1, readout: int | None = None) -> linrec.LinearRecurrence:
    C = None if readout is None else normal(readout, order)
    return linrec.LinearRecurrence(
        legendre(order, 4.0 * order), normal(order, 1), C, copies=copies
    ).to(torch.float32)


@pytest.mark.parametrize(
    "recurrence, length, batch, last_only, expected",
    [
        (memory(468), 784, (100,), True, linrec.Toeplitz),
        (memory(64), 1 << 16, (4,), False, linrec.Chunked),
        (
            linrec.LinearRecurrence(linrec.Diagonal(torch.linspace(0, 1, 256))),
            4096,
            (16,),
            False,
            linrec.AssociativeScan,
        ),
        (
            linrec.LinearRecurrence(VARYING["varying diagonal"](512)),
            512,
            (8,),
            False,
            linrec.AssociativeScan,
        ),
    ],
)
def test_choices_that_are_clear(recurrence, length, batch, last_only, expected) -> None:
    chosen = linrec.Auto().select(recurrence, length, batch, last_only=last_only)
    assert isinstance(chosen, expected)


def test_varying_recurrences_get_an_executor_that_can() -> None:
    for make in VARYING.values():
        recurrence = linrec.LinearRecurrence(make(100))
        for batch in ((), (1000,)):
            chosen = linrec.Auto().select(recurrence, 100, batch)
            assert chosen.why_not(recurrence, 100) is None


def test_explain_lists_every_executor() -> None:
    explained = linrec.explain(memory(32), 1000, (10,))
    assert {type(row.executor) for row in explained.rows} == {type(e) for e in CANDIDATES}
    assert explained.chosen == explained.rows[0].executor
    assert "<- chosen" in str(explained) and explained.warning is None
    assert str(explained) == str(linrec.Auto().explain(memory(32), 1000, (10,)))
    seconds = [row.seconds for row in explained.rows]
    assert seconds == sorted(seconds)


def test_explain_says_why_not() -> None:
    recurrence = linrec.LinearRecurrence(VARYING["varying dense"](5))
    explained = linrec.explain(recurrence, 5)
    reasons = {type(row.executor): row.reason for row in explained.rows}
    assert reasons[linrec.Recurrent] is None
    assert "change from step to step" in (reasons[linrec.FFTConvolution] or "")
    assert "cannot: its matrices change" in str(explained)


def test_plans_for_steps_without_matrices_are_refused() -> None:
    recurrence = linrec.LinearRecurrence(VARYING["varying dense"](5))
    for ask in (linrec.explain, linrec.Auto().select):
        with pytest.raises(ValueError, match=r"`length` is 6, but .* matrices for 5 steps"):
            ask(recurrence, 6)


def test_explain_warns_of_unstable_systems() -> None:
    explained = linrec.explain(linrec.LinearRecurrence([[1.1]]), 100)
    assert explained.warning is not None and "spectral radius of A is 1.1" in explained.warning
    assert "931 steps" in explained.warning  # ln(3.4e38) / ln(1.1)


def test_costs_grow_with_the_work() -> None:
    for executor in CANDIDATES:
        small, large = (executor.cost(memory(16), length, 10) for length in (128, 4096))
        assert large.operations > small.operations
        assert large.bytes > small.bytes


def test_planning_looks_at_no_values() -> None:
    """A recurrence without numbers can be planned for."""
    recurrence = memory(64).to("meta")
    assert linrec.Auto().select(recurrence, 1000, (10,)) == linrec.Auto().select(
        memory(64), 1000, (10,)
    )
