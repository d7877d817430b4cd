"""User-defined executors among `Auto`'s candidates."""

import dataclasses

import pytest
import torch

import linrec
from linrec.planner import CANDIDATES
from tests.linrec.test_planner import memory


@dataclasses.dataclass(frozen=True)
class Unpriced(linrec.Executor):
    """An executor of a user's, who never thought of costs."""

    def execute(self, recurrence, plan, inputs, state):
        return linrec.Recurrent().execute(recurrence, plan, inputs, state)


@dataclasses.dataclass(frozen=True)
class Free(Unpriced):
    """One that says that it costs nothing."""

    def cost(self, work):
        return linrec.Cost(0, 0, 0)


def test_candidates_of_a_user_are_asked_for_their_cost() -> None:
    recurrence, inputs = memory(4), torch.ones(9, 1)
    for gradient in (False, True):
        auto = linrec.Auto(candidates=(*CANDIDATES, Unpriced(), Free()))
        assert auto.select(recurrence, 9, gradient=gradient) == Free()
        auto = linrec.Auto(candidates=(Unpriced(), *CANDIDATES))
        assert auto.select(recurrence, 9, gradient=gradient) in CANDIDATES
        assert linrec.Auto(candidates=(Unpriced(),)).select(recurrence, 9) == Unpriced()
    auto = linrec.Auto(candidates=(Free(),))
    expected = linrec.run(recurrence, inputs, executor=linrec.Recurrent())
    plan = auto.prepare(recurrence, 9)
    assert plan.executor == Free()
    for kept in (None, plan):
        result = linrec.run(recurrence, inputs, executor=auto, plan=kept)
        assert torch.equal(result.outputs, expected.outputs)
    module = linrec.nn.Recurrence(recurrence, executor=auto)
    assert torch.equal(module(inputs).outputs, expected.outputs)
    assert {row.executor for row in auto.explain(recurrence, 9).rows} == {Free()}
    assert auto.choices(recurrence, 9) == {Free()}
    assert auto.cost(linrec.Workload.of(recurrence, 9, 1)) == linrec.Cost(0, 0, 0)


def test_an_executor_stands_for_itself() -> None:
    recurrence = memory(4)
    for executor in CANDIDATES:
        assert executor.select(recurrence, 9, (2,), last_only=True) is executor
        assert executor.choices(recurrence, 9) == {executor}
        assert executor.takes_plans_of(executor) and not executor.takes_plans_of(Unpriced())


@pytest.mark.parametrize("candidates", [(), (linrec.Recurrent,), ("Recurrent",)])
def test_candidates_that_are_no_executors_are_refused(candidates) -> None:
    with pytest.raises(TypeError, match=r"`candidates` is .*: expected executors, such as"):
        linrec.Auto(candidates=candidates)
