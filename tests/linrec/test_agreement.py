"""Every executor agrees with the definition: outputs, final state, last step, one step."""

# Wrong arguments are passed on purpose, and matrices known to be there are used as such.
# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false, reportOptionalMemberAccess=false, reportOptionalOperand=false

import pytest
import torch
from torch import Tensor

import linrec
from linrec.testing import error_bound, exact_reference
from linrec.testing.bounds import Bounds
from tests.cases import EXECUTORS, SYSTEMS, TRANSITIONS, VARYING, data, normal


def assert_within(got: Tensor, expected: Tensor, bound: Tensor, what: object = "") -> None:
    """Every component is within its bound."""
    assert got.shape == expected.shape
    difference = (got.to(expected.dtype) - expected).abs()
    worst = (difference - bound).max() if difference.numel() else torch.tensor(0.0)
    assert not worst > 0, f"{what}: over by {float(worst):.2g}, bound {float(bound.max()):.2g}"
    assert bool(difference.isfinite().all()), f"{what}: not finite"


def check(
    recurrence: linrec.LinearRecurrence,
    executors: dict[str, linrec.Executor] | linrec.Executor,
    inputs: Tensor,
    state: Tensor | None,
) -> None:
    """Outputs, final state and last step of one or several executors against the reference."""
    expected = exact_reference(recurrence, inputs, state)
    named = executors if isinstance(executors, dict) else {"": executors}
    bounds = Bounds(recurrence, inputs, state)
    for name, executor in named.items():
        bound = bounds.of(executor)
        result = linrec.run(recurrence, inputs, state, executor=executor)
        assert_within(result.outputs, expected.outputs, bound.outputs, name)
        assert_within(result.final_state, expected.final_state, bound.final_state, name)
        last = linrec.final(recurrence, inputs, state, executor=executor)
        assert_within(last.outputs, expected.outputs[..., -1, :], bound.outputs[..., -1, :], name)
        assert_within(last.final_state, expected.final_state, bound.final_state, name)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("transition", TRANSITIONS)
@pytest.mark.sampled(3)
def test_invariant(transition: str, system: str) -> None:
    recurrence = SYSTEMS[system](TRANSITIONS[transition]())
    for steps, starts in ((1, (True, False)), (2, (True,)), (13, (True,)), (16, (True, False))):
        inputs, state = data(recurrence, steps)
        for given in starts:
            check(recurrence, EXECUTORS, inputs, state if given else None)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("transition", VARYING)
@pytest.mark.sampled(2)
def test_varying(transition: str, system: str) -> None:
    able = {name: EXECUTORS[name] for name in ("recurrent", "scan", "auto")}
    for steps in (1, 2, 13):
        recurrence = SYSTEMS[system](VARYING[transition](steps))
        inputs, state = data(recurrence, steps)
        check(recurrence, able, inputs, state)
        check(recurrence, able, inputs, None)


@pytest.mark.parametrize("many", [("A",), ("B",), ("C",), ("D",), ("A", "C"), ("B", "D")])
def test_many_systems_that_share_matrices(many: tuple[str, ...]) -> None:
    """Three systems that differ in some matrices are three systems."""
    sizes = {"A": (4, 4), "B": (4, 2), "C": (3, 4), "D": (3, 2)}
    given = {
        name: normal(*([3] if name in many else []), *size, seed=seed)
        for seed, (name, size) in enumerate(sizes.items())
    }
    recurrence = linrec.LinearRecurrence(**given)
    check(recurrence, EXECUTORS, normal(3, 13, 2, seed=5), normal(3, 4, seed=6))


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("batch", [(), (1,), (3,), (2, 3), (0,), (2, 0)])
@pytest.mark.parametrize("system", ["AB", "ABCD, 2 copies"])
@pytest.mark.parametrize("transition", ["dense", "diagonal", "dense batch"])
@pytest.mark.sampled(3)
def test_batch_axes(transition: str, system: str, batch: tuple[int, ...], executor: str) -> None:
    recurrence = SYSTEMS[system](TRANSITIONS[transition]())
    inputs, state = data(recurrence, 7, *batch)
    result = linrec.run(recurrence, inputs, state, executor=EXECUTORS[executor])
    assert result.outputs.shape == (*inputs.shape[:-1], recurrence.output_size)
    if inputs.numel():
        check(recurrence, EXECUTORS[executor], inputs, state)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_systems_broadcast_against_inputs(executor: str) -> None:
    recurrence = SYSTEMS["AB"](TRANSITIONS["dense batch"]())
    inputs, state = data(recurrence, 9)
    check(recurrence, EXECUTORS[executor], inputs[0], state[0])
    check(recurrence, EXECUTORS[executor], inputs.unsqueeze(1), state)


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("steps", [97, 128, 200])
@pytest.mark.sampled(2)
def test_longer_than_a_block(steps: int, executor: str) -> None:
    for transition, system in (("legendre", "AB"), ("dense", "ABC"), ("diagonal", "A")):
        recurrence = SYSTEMS[system](TRANSITIONS[transition]())
        inputs, state = data(recurrence, steps)
        check(recurrence, EXECUTORS[executor], inputs, state)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_no_steps(executor: str) -> None:
    recurrence = SYSTEMS["ABC"](TRANSITIONS["dense"]())
    inputs, state = data(recurrence, 0, 2)
    result = linrec.run(recurrence, inputs, state, executor=EXECUTORS[executor])
    assert result.outputs.shape == (2, 0, 1)
    assert torch.equal(result.final_state, state)
    last = linrec.final(recurrence, inputs, None, executor=EXECUTORS[executor])
    assert torch.equal(last.outputs, torch.zeros(2, 1, dtype=torch.float64))
    assert torch.equal(last.final_state, torch.zeros(2, 4, dtype=torch.float64))


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.complex64]
)
@pytest.mark.sampled(2)
def test_dtypes(dtype: torch.dtype, executor: str) -> None:
    for transition in ("dense", "legendre", "diagonal", "blocks", "low rank"):
        recurrence = SYSTEMS["ABCD"](TRANSITIONS[transition]()).to(dtype)
        inputs, state = data(recurrence, 21, 2, dtype=torch.float64)
        inputs, state = inputs.to(dtype), state.to(dtype)
        check(recurrence, EXECUTORS[executor], inputs, state)
        result = linrec.run(recurrence, inputs, executor=EXECUTORS[executor])
        half = dtype in (torch.bfloat16, torch.float16)
        assert result.outputs.dtype == dtype
        assert result.final_state.dtype == (torch.float32 if half else dtype)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_real_and_complex_mix(executor: str) -> None:
    real, turning = (SYSTEMS["AB"](TRANSITIONS[name]()) for name in ("dense", "diagonal complex"))
    inputs, state = data(real, 11)
    check(real, EXECUTORS[executor], inputs, state * (1 + 1j))
    check(real, EXECUTORS[executor], inputs * (2 - 1j), state)
    inputs, state = data(turning, 11, dtype=torch.float64)
    check(turning, EXECUTORS[executor], inputs, state)
    mixed = linrec.LinearRecurrence(turning.A, turning.B.real, turning.C, turning.D)
    check(mixed, EXECUTORS[executor], inputs, state)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("transition", TRANSITIONS)
@pytest.mark.sampled(2)
def test_step_by_step(transition: str, system: str) -> None:
    recurrence = SYSTEMS[system](TRANSITIONS[transition]())
    inputs, state = data(recurrence, 9)
    expected = exact_reference(recurrence, inputs, state)
    bound = error_bound(recurrence, inputs, linrec.Recurrent(), state)
    for t in range(9):
        output, state = linrec.step(recurrence, inputs[..., t, :], state)
        assert_within(output, expected.outputs[..., t, :], bound.outputs[..., t, :])
    assert_within(state, expected.final_state, bound.final_state)


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("transition", [*TRANSITIONS])
@pytest.mark.sampled(3)
def test_two_runs_joined_by_the_state_are_one(transition: str, executor: str) -> None:
    recurrence = SYSTEMS["AB"](TRANSITIONS[transition]())
    inputs, state = data(recurrence, 17)
    bound = error_bound(recurrence, inputs, EXECUTORS[executor], state)
    run = EXECUTORS[executor]
    whole = linrec.run(recurrence, inputs, state, executor=run)
    first = linrec.run(recurrence, inputs[..., :6, :], state, executor=run)
    second = linrec.run(recurrence, inputs[..., 6:, :], first.final_state, executor=run)
    joined = torch.cat([first.outputs, second.outputs], -2)
    assert_within(joined, whole.outputs, 2 * bound.outputs)
    assert_within(second.final_state, whole.final_state, 2 * bound.final_state)


def test_a_broken_executor_is_seen() -> None:
    """The check itself can fail: one step off, one sign off, a state forgotten."""

    class Broken(linrec.Executor):
        def __init__(self, spoil) -> None:
            self.spoil = spoil

        def execute(self, recurrence, plan, inputs, state):
            return self.spoil(linrec.Recurrent().execute(recurrence, plan, inputs, state))

        def cost(self, work):
            return linrec.Cost(0, 0, 0)

    recurrence = SYSTEMS["AB"](TRANSITIONS["dense"]())
    inputs, state = data(recurrence, 8)
    for spoil in (
        lambda r: linrec.Result(r.outputs.roll(1, -2), r.final_state),
        lambda r: linrec.Result(-r.outputs, r.final_state),
        lambda r: linrec.Result(r.outputs, 0 * r.final_state),
        lambda r: linrec.Result(r.outputs * (1 + 1e-9), r.final_state),
    ):
        with pytest.raises(AssertionError):
            check(recurrence, Broken(spoil), inputs, state)
    check(recurrence, Broken(lambda result: result), inputs, state)
