"""Plans: kept by callers, used by `Auto`, and refused if they do not fit."""

import pytest
import torch
from torch.autograd import forward_ad

import linrec
from linrec._call import prepare_call
from linrec.executors.changed_values import MANY, same_values
from linrec.nn import PlanCache
from tests.cases import EXECUTORS, SYSTEMS, TRANSITIONS, data

KINDS = ["recurrent", "toeplitz", "fft", "scan", "chunked", "chunked-3"]


@pytest.mark.parametrize("executor", [*KINDS, "auto"])
@pytest.mark.parametrize("system", ["AB", "ABCD, 2 copies"])
@pytest.mark.parametrize("transition", ["dense", "diagonal complex", "dense batch"])
def test_a_kept_plan_gives_the_same(transition: str, system: str, executor: str) -> None:
    recurrence = SYSTEMS[system](TRANSITIONS[transition]())
    run = EXECUTORS[executor]
    plan = run.prepare(recurrence, 14)
    for seed in (0, 1):
        inputs, state = data(recurrence, 14, seed + 1)
        for verb in (linrec.run, linrec.final):
            fresh = verb(recurrence, inputs, state, executor=plan.executor)
            for given in (run, linrec.Auto()):
                kept = verb(recurrence, inputs, state, executor=given, plan=plan)
                assert kept.outputs.equal(fresh.outputs)
                assert kept.final_state.equal(fresh.final_state)


def test_plans_that_do_not_fit_are_refused() -> None:
    recurrence = linrec.LinearRecurrence(torch.eye(2), torch.ones(2, 1))
    plan = linrec.Toeplitz().prepare(recurrence, 5)

    def refused(match: str, other=recurrence, inputs=None, **keywords) -> None:
        inputs = torch.ones(5, 1) if inputs is None else inputs
        with pytest.raises(ValueError, match=rf"`plan` does not fit this call: {match}"):
            linrec.run(other, inputs, plan=plan, **keywords)

    refused("it was prepared for 5 steps and the inputs have 6", inputs=torch.ones(6, 1))
    refused("it was prepared in torch.float32", inputs=torch.ones(5, 1).double())
    refused("it was prepared by Toeplitz", executor=linrec.FFTConvolution())
    refused(
        "it was prepared for a recurrence of other values",
        other=linrec.LinearRecurrence(torch.eye(2), 2 * torch.ones(2, 1)),
    )
    refused(
        "it was prepared for another kind",
        other=linrec.LinearRecurrence(recurrence.A, recurrence.B, torch.eye(2)),
    )
    refused(
        "it was prepared for another kind",
        other=linrec.LinearRecurrence(recurrence.A, recurrence.B, copies=2),
        inputs=torch.ones(5, 2),
    )


def test_a_plan_stands_for_no_system_of_the_same_tensors_in_another_meaning() -> None:
    a, B = torch.tensor([0.5, -0.25, 0.125]), torch.eye(3)[:, :1]
    inputs = torch.ones(5, 1)
    plan = linrec.Toeplitz().prepare(linrec.LinearRecurrence(linrec.Companion(a), B), 5)
    turned = linrec.LinearRecurrence(linrec.Companion(a, transposed=True), B)
    with pytest.raises(ValueError, match="another kind of recurrence"):
        linrec.run(turned, inputs, plan=plan)
    gates = torch.rand(5, 3)
    batch = linrec.LinearRecurrence(linrec.Diagonal(gates), B)
    steps = linrec.LinearRecurrence(linrec.Diagonal(gates), B, time_varying=True)
    plan = linrec.AssociativeScan().prepare(batch, 5)
    with pytest.raises(ValueError, match="another kind of recurrence"):
        linrec.run(steps, inputs, plan=plan)


# Few numbers, many, many in rows that are no whole words of eight bytes, many apart in memory.
@pytest.mark.parametrize(
    "numbers",
    [
        torch.tensor(2.0),
        torch.ones(3),
        torch.ones(MANY),
        torch.ones(2, MANY),
        torch.ones(MANY, 3),
        torch.ones(MANY, 2, dtype=torch.complex128),
        torch.ones(MANY, 2).mT,
    ],
)
def test_values_are_compared_to_the_last(numbers: torch.Tensor) -> None:
    assert same_values(numbers, numbers.clone())
    changed = numbers.clone()
    changed[(-1,) * changed.ndim] = 3
    assert not same_values(numbers, changed) and not same_values(changed, numbers)
    assert not same_values(
        numbers, numbers.to(torch.float64 if numbers.is_floating_point() else torch.complex64)
    )
    assert not same_values(numbers, numbers.unsqueeze(0))
    assert not same_values(numbers, torch.empty(numbers.shape, device="meta"))


@pytest.mark.parametrize("write", [lambda A: A.mul_(0.5), lambda A: A.data.mul_(0.5)])
def test_a_stale_plan_is_refused(write) -> None:
    A = torch.eye(2)
    recurrence = linrec.LinearRecurrence(A, torch.ones(2, 1))
    plan = linrec.Toeplitz().prepare(recurrence, 5)
    equal = linrec.LinearRecurrence(torch.eye(2), torch.ones(2, 1))
    linrec.run(equal, torch.ones(5, 1), plan=plan)
    write(A)
    with pytest.raises(ValueError, match="a recurrence of other values"):
        linrec.run(recurrence, torch.ones(5, 1), plan=plan)


def test_what_is_no_plan_is_refused() -> None:
    with pytest.raises(TypeError, match=r"`plan` is of type str.*executor.prepare"):
        linrec.run(linrec.LinearRecurrence([[0.5]]), torch.ones(2, 1), plan="kept")  # type: ignore[arg-type]  # tested


def test_a_plan_without_gradients_is_refused_where_they_are_asked_for() -> None:
    A = torch.eye(2).requires_grad_()
    recurrence = linrec.LinearRecurrence(A, torch.ones(2, 1))
    with torch.no_grad():
        plan = linrec.Toeplitz().prepare(recurrence, 5)
        linrec.run(recurrence, torch.ones(5, 1), plan=plan)
    with pytest.raises(ValueError, match="prepared without gradients"):
        linrec.run(recurrence, torch.ones(5, 1), plan=plan)
    partly = linrec.Toeplitz().prepare(recurrence, 5)
    read = linrec.LinearRecurrence(A, recurrence.B, torch.eye(2))
    plan = linrec.Toeplitz().prepare(read, 5)
    assert read.C is not None
    read.C.requires_grad_()
    with pytest.raises(ValueError, match="prepared without gradients in C"):
        linrec.run(read, torch.ones(5, 1), plan=plan)
    assert partly.differentiable == {"A"}
    trained = linrec.Toeplitz().prepare(recurrence, 5)
    linrec.run(recurrence, torch.ones(5, 1), plan=trained).outputs.sum().backward()
    assert A.grad is not None and bool(A.grad.any())


def test_a_plan_without_tangents_is_refused_where_there_are_some() -> None:
    A, B = torch.eye(2), torch.ones(2, 1)
    plan = linrec.Toeplitz().prepare(linrec.LinearRecurrence(A, B), 5)
    with forward_ad.dual_level():
        carried = linrec.LinearRecurrence(forward_ad.make_dual(A, torch.ones(2, 2)), B)
        with pytest.raises(ValueError, match="prepared without the tangent of A"):
            linrec.run(carried, torch.ones(5, 1), plan=plan)
        again = linrec.Toeplitz().prepare(carried, 5)
        outputs = linrec.run(carried, torch.ones(5, 1), plan=again).outputs
        expected = linrec.run(carried, torch.ones(5, 1), executor=linrec.Recurrent()).outputs
        tangents = [forward_ad.unpack_dual(each).tangent for each in (outputs, expected)]
        torch.testing.assert_close(*tangents)
        other = linrec.LinearRecurrence(forward_ad.make_dual(A, torch.zeros(2, 2)), B)
        with pytest.raises(ValueError, match="prepared without the tangent of A"):
            linrec.run(other, torch.ones(5, 1), plan=again)


def test_the_keeper_keeps_few_plans_and_makes_stale_ones_anew() -> None:
    A = torch.tensor([[0.5]])
    recurrence = linrec.LinearRecurrence(A, [[1.0]])
    keeper = PlanCache(linrec.Toeplitz())
    for length in range(1, 20):
        keeper.run(recurrence, torch.ones(length, 1))
    assert len(keeper.plans) == PlanCache.capacity
    first = keeper.plan(prepare_call(recurrence, torch.ones(19, 1)), last_only=False)
    assert first is keeper.plan(prepare_call(recurrence, torch.ones(19, 1)), last_only=False)
    assert first is keeper.plan(prepare_call(recurrence, torch.ones(3, 19, 1)), last_only=False)
    A.mul_(0.5)
    assert first is not keeper.plan(prepare_call(recurrence, torch.ones(19, 1)), last_only=False)
    got = keeper.run(recurrence, torch.ones(19, 1)).outputs
    assert got.equal(linrec.run(recurrence, torch.ones(19, 1), executor=linrec.Toeplitz()).outputs)
