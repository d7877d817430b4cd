"""Systems read before each step, run directly and rewritten in linrec's form, against a loop."""

# The third party's results are of types that it does not declare.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportOptionalMemberAccess=false

import itertools
from typing import Any

import control
import pytest
import torch
from scipy import signal

import linrec
from linrec.interop import from_pre_update, run_pre_update, to_pre_update
from linrec.pre_update import one_step_early
from linrec.testing import error_bound
from tests.cases import EXECUTORS, SYSTEMS, TRANSITIONS, VARYING, data, normal

STEPS = 7
EPS = torch.finfo(torch.float64).eps
ALL = {name: make for name, make in TRANSITIONS.items()} | {
    name: (lambda make=make: make(STEPS)) for name, make in VARYING.items()
}
# Of copies there is one: the four matrices are those of one system.
PLAIN = [name for name in SYSTEMS if "copies" not in name]
everything = pytest.mark.parametrize(("transition", "system"), list(itertools.product(ALL, PLAIN)))


def matrices_of(recurrence: linrec.LinearRecurrence) -> tuple[Any, Any, Any, Any]:
    A = linrec.Varying(recurrence.A) if recurrence.time_varying else recurrence.A
    return A, recurrence.B, recurrence.C, recurrence.D


def loop(system: linrec.LinearRecurrence, inputs: Any, state: Any) -> tuple[Any, Any]:
    """The definition: the output first, then the state."""
    outputs = []
    for k in range(inputs.shape[-2]):
        now, u = system.at(k), inputs[..., k, :]
        outputs.append(now.read(state, u))
        state = now.A.apply(state) + now.drive(u)
    return torch.stack(outputs, -2), state


def absolute(system: linrec.LinearRecurrence) -> linrec.LinearRecurrence:
    A = system.A.to_dense().abs()
    rest = (None if each is None else each.abs() for each in matrices_of(system)[1:])
    return linrec.LinearRecurrence(A, *rest, time_varying=system.time_varying)


def allowed(system: linrec.LinearRecurrence, inputs: Any, state: Any) -> tuple[Any, Any]:
    """Twice what T + 1 sums of n + m products lose; complex ones round four times each."""
    outputs, last = loop(absolute(system), inputs.abs(), state.abs())
    roundings = 2 * 4 * (2 * system.state_size + system.input_size + 2) * (STEPS + 1) * EPS
    return roundings * outputs, roundings * last


def assert_within(got: Any, expected: Any, tolerance: Any) -> None:
    assert got.shape == expected.shape
    assert ((got - expected).abs() <= tolerance).all(), (got - expected).abs().max()


@everything
@pytest.mark.parametrize("executor", ["recurrent", "auto"])
def test_runs_as_the_loop(transition: str, system: str, executor: str) -> None:
    given = SYSTEMS[system](ALL[transition]())
    inputs, state = data(given, STEPS, 2)
    expected, last = loop(given, inputs, state)
    bounds = allowed(given, inputs, state)
    got = run_pre_update(*matrices_of(given), inputs, state, executor=EXECUTORS["recurrent"])
    assert_within(got.outputs, expected, bounds[0])
    assert_within(got.final_state, last, bounds[1])
    if executor == "auto":  # (whatever it chooses here)
        got = run_pre_update(*matrices_of(given), inputs, state)
        reading = given.rebuilt(given.A, given.B, one_step_early(given), None)
        own = error_bound(reading, inputs, linrec.Auto(), state)
        assert own.outputs.isfinite().all()
        later = torch.nn.functional.pad(own.outputs, (0, 0, 1, 0))[..., :-1, :]
        assert_within(got.outputs, expected, bounds[0] + later)
        assert_within(got.final_state, last, bounds[1] + own.final_state)


@everything
def test_written_as_a_recurrence_it_answers_the_same(transition: str, system: str) -> None:
    given = SYSTEMS[system](ALL[transition]())
    inputs, state = data(given, STEPS, 2)
    expected, last = loop(given, inputs, state)
    bounds = allowed(given, inputs, state)
    written = from_pre_update(*matrices_of(given))
    p, n = given.output_size, given.state_size
    assert written.state_size == n + min(p, n) and written.batch_shape == given.batch_shape
    start = torch.nn.functional.pad(state, (0, min(p, n)))
    got = linrec.run(written, inputs, start, executor=linrec.Recurrent())
    assert_within(got.outputs, expected, bounds[0])
    assert_within(got.final_state[..., :n], last, bounds[1])


@everything
def test_there_and_back(transition: str, system: str) -> None:
    """What a recurrence is when it is read before the step gives the recurrence's own outputs."""
    given = SYSTEMS[system](ALL[transition]())
    inputs, state = data(given, STEPS, 2)
    expected = linrec.run(given, inputs, state, executor=linrec.Recurrent())
    there = to_pre_update(given)
    bounds = allowed(linrec.LinearRecurrence(*there), inputs, state)
    got = run_pre_update(*there, inputs, state, executor=linrec.Recurrent())
    # (C A and C B + D are sums of parts that may cancel.)
    parts = absolute(given)
    magnitudes = linrec.run(parts, inputs.abs(), state.abs(), executor=linrec.Recurrent()).outputs
    roundings = 2 * 4 * (2 * given.state_size + given.input_size + 2) * (STEPS + 1) * EPS
    assert_within(got.outputs, expected.outputs, bounds[0] + roundings * magnitudes)
    assert_within(got.final_state, expected.final_state, bounds[1])


def test_is_scipys_and_controls_simulation() -> None:
    A, B, C, D = (
        normal(*shape, seed=i) for i, shape in enumerate([(4, 4), (4, 2), (3, 4), (3, 2)])
    )
    A = 0.5 * A
    inputs, state = normal(STEPS, 2, seed=5), normal(4, seed=6)
    got = run_pre_update(A, B, C, D, inputs, state, executor=linrec.Recurrent())
    bounds = allowed(linrec.LinearRecurrence(A, B, C, D), inputs, state)[0]
    arrays = [each.numpy() for each in (A, B, C, D)]
    theirs = signal.dlsim(signal.StateSpace(*arrays, dt=1), inputs.numpy(), x0=state.numpy())[1]
    assert_within(got.outputs, torch.from_numpy(theirs), bounds)
    response = control.forced_response(
        control.ss(*arrays, 1), inputs=inputs.numpy().T, initial_state=state.numpy()
    )
    assert_within(got.outputs, torch.from_numpy(response.outputs.T.copy()), bounds)


@pytest.mark.parametrize("transition", ["dense", "varying dense", "varying diagonal"])
def test_padding_reaches_nothing(transition: str) -> None:
    given = SYSTEMS["ABCD"](ALL[transition]())
    leaves = {name: leaf.clone() for name, leaf in given.leaves().items()}
    if given.time_varying:
        leaves["C"] = leaves["C"] + normal(STEPS, *leaves["C"].shape)
        leaves["A"][5:] = float("nan")
        leaves["C"][5:] = float("nan")
    leaves = {name: leaf.requires_grad_() for name, leaf in leaves.items()}
    given = given.with_leaves(leaves)
    inputs, state = data(given, STEPS, 3)
    own = torch.tensor([5, 2, 0])
    for row, length in enumerate(own):
        inputs[row, length:] = float("nan")
    inputs.requires_grad_()
    got = run_pre_update(
        *matrices_of(given), inputs, state, lengths=own, executor=linrec.Recurrent()
    )
    for row, length in enumerate(own.tolist()):
        if length:
            expected, last = loop(given, inputs[row, :length], state[row])
            assert torch.allclose(got.outputs[row, :length], expected, rtol=1e-12)
            assert torch.allclose(got.final_state[row], last, rtol=1e-12)
        else:
            assert torch.equal(got.final_state[row], state[row])
        assert not got.outputs[row, length:].any()
    (got.outputs.sum() + got.final_state.sum()).backward()
    assert all(bool(leaf.grad.isfinite().all()) for leaf in (*leaves.values(), inputs))


@pytest.mark.parametrize("name", ["dense", "diagonal complex", "varying low rank"])
def test_gradients(name: str) -> None:
    given = SYSTEMS["ABCD"](ALL[name]())
    names = list(given.leaves())
    leaves = [leaf.clone().requires_grad_() for leaf in given.leaves().values()]
    inputs, state = data(given, STEPS)

    def answer(inputs: Any, state: Any, *leaves: Any) -> Any:
        recurrence = given.with_leaves(dict(zip(names, leaves, strict=True)))
        return run_pre_update(*matrices_of(recurrence), inputs, state)

    everything = (inputs.requires_grad_(), state.requires_grad_(), *leaves)
    assert torch.autograd.gradcheck(answer, everything)


def test_no_steps_no_state_and_half_precision() -> None:
    A, B, C, D = [[0.5]], [[1.0]], [[2.0]], [[3.0]]
    nothing = run_pre_update(A, B, C, D, torch.zeros(2, 0, 1), torch.ones(2, 1))
    assert nothing.outputs.shape == (2, 0, 1) and nothing.final_state.tolist() == [[1], [1]]
    assert run_pre_update(A, B, C, D, torch.ones(2, 1)).outputs.flatten().tolist() == [3, 5]
    a, b, c, d = (torch.tensor(each, dtype=torch.bfloat16) for each in (A, B, C, D))
    got = run_pre_update(a, b, c, d, torch.ones(3, 1, dtype=torch.bfloat16))
    assert got.outputs.dtype == torch.bfloat16 and got.final_state.dtype == torch.float32
    with pytest.raises(ValueError, match="`inputs` has shape"):
        run_pre_update(A, B, C, D, torch.ones(3))
    with pytest.raises(ValueError, match="`B` has shape"):
        from_pre_update(A, [[1.0], [2.0]])


@pytest.mark.parametrize("steps", [0, 1, STEPS])
@pytest.mark.parametrize("axis", ["batch", "time", "time, beside one step of A"])
def test_a_d_with_an_axis_of_its_own(axis: str, steps: int) -> None:
    A, B, C = normal(2, 2) * 0.4, normal(2, 1), normal(3, 2)
    inputs, state = normal(steps, 1), normal(2)
    count = 4 if axis == "batch" else steps
    D = normal(count, 3, 1)
    given: Any = {"batch": A, "time": A, "time, beside one step of A": A[None]}[axis]
    if axis == "time":
        result = run_pre_update(linrec.Varying(A.expand(steps, 2, 2)), B, C, D, inputs, state)
    elif axis == "batch":
        result = run_pre_update(given, B, C, D, inputs, state)
    else:
        result = run_pre_update(linrec.Varying(given), B, C, D, inputs, state)
    x, read = state, []
    for k in range(steps):
        read.append(C @ x)
        x = A @ x + B @ inputs[k]
    expected = torch.stack(read) if read else torch.zeros(0, 3, dtype=A.dtype)
    through = (D.unsqueeze(1) if axis == "batch" else D) @ inputs.unsqueeze(-1)
    expected = expected + through.squeeze(-1)
    system = linrec.LinearRecurrence(A, B, C)
    y_allowed, x_allowed = allowed(system, inputs, state) if steps else (0.0, 0.0)
    y_allowed = y_allowed + 4 * EPS * through.squeeze(-1).abs()
    assert_within(result.outputs, expected, y_allowed)
    assert_within(result.final_state, x.expand(*expected.shape[:-2], 2), x_allowed)


def test_autocast_changes_no_matrix() -> None:
    parts = normal(3).float(), normal(3, 2).float(), normal(3, 2, seed=1).float()
    B, C = normal(3, 1).float(), normal(1, 3, seed=2).float()
    recurrence = linrec.LinearRecurrence(linrec.DiagonalPlusLowRank(*parts), B, C)
    expected = to_pre_update(recurrence)[1:]
    with torch.autocast("cpu", torch.bfloat16):
        found = to_pre_update(recurrence)[1:]
        kept = from_pre_update(recurrence.A, B, C).A.to_dense()
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype == torch.float32 and torch.equal(mine, theirs)
    assert torch.equal(kept, from_pre_update(recurrence.A, B, C).A.to_dense())
