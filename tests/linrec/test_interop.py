"""Systems from scipy.signal and python-control respond like the originals, sample by sample."""

import importlib
import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import signal

import linrec
from linrec.interop import from_control, from_scipy, to_control, to_scipy
from linrec.testing import exact_reference
from tests.cases import SYSTEMS, TRANSITIONS, VARYING, data

STEPS = 12
EPS = np.finfo(np.float64).eps
Matrices = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


PRE_UPDATE_A: dict[str, Callable[[], np.ndarray]] = {
    "one state": lambda: np.array([[0.5]]),
    "full": lambda: 0.3 * random(4, 4),
    "singular": lambda: np.outer([1.0, 2.0, -1.0], [0.3, 0.1, 0.2]),
    "nilpotent": lambda: np.eye(4, k=1),
    "zero": lambda: np.zeros((3, 3)),
    "nearly singular": lambda: np.diag([0.9, 1e-13]),
    "unstable": lambda: random(3, 3),
    "badly scaled": lambda: np.array([[0.5, 1e6], [1e-8, 0.9]]),
    "complex": lambda: 0.3 * random(3, 3) + 0.3j * random(3, 3, seed=1),
}
SHAPES: dict[str, tuple[int, int, bool]] = {  # inputs, outputs, whether there is a D
    "1 x 1": (1, 1, False),
    "1 x 1, D": (1, 1, True),
    "2 inputs, 3 outputs, D": (2, 3, True),
    "3 inputs, 1 output": (3, 1, False),
    "1 input, 6 outputs, D": (1, 6, True),
}
pre_update_systems = pytest.mark.parametrize(
    ("transition", "shape"), list(itertools.product(PRE_UPDATE_A, SHAPES))
)
single = [name for name in TRANSITIONS if "batch" not in name]


def pre_update_system(transition: str, shape: str) -> Matrices:
    A = PRE_UPDATE_A[transition]()
    m, p, through = SHAPES[shape]
    n = len(A)
    scale = 1 + 0.5j if np.iscomplexobj(A) else 1
    D = scale * random(p, m, seed=4) if through else np.zeros((p, m))
    return A, scale * random(n, m, seed=2), scale * random(p, n, seed=3), D


def simulate(matrices: Any, inputs: Any, state: Any) -> tuple[np.ndarray, np.ndarray]:
    """x[k+1] = A x[k] + B u[k], y[k] = C x[k] + D u[k]: all outputs, and the last state."""
    A, B, C, D = matrices
    outputs = []
    for vector in inputs:
        outputs.append(C @ state + D @ vector)
        state = A @ state + B @ vector
    return np.array(outputs), state


def bound(matrices: Any, inputs: Any, state: Any, run: Any = simulate) -> list[np.ndarray]:
    """How far two computations of the outputs and the last state lie apart, from `run` of moduli.

    Each of the t+1 steps behind an output rounds a sum of n+m products, of complex numbers at most
    4 roundings each; a matrix that is itself a product, C A or C B + D, brings as many again (the
    2 to begin with). Two computations, each of at most twice n states.
    """
    moduli = [None if matrix is None else np.abs(matrix) for matrix in matrices]
    n, m = len(state), inputs.shape[1]
    roundings = 2 * 4 * 2 * (2 * n + m + 2) * np.arange(2, STEPS + 2)[:, None] * EPS
    outputs, last = run(moduli, np.abs(inputs), np.abs(state))
    return [roundings * np.asarray(outputs), roundings[-1] * np.asarray(last)]


def assert_within(got: Any, expected: Any, tolerance: Any) -> None:
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    assert np.isfinite(got).all()
    assert (np.abs(got - expected) <= tolerance).all(), np.abs(got - expected).max()


def pre_update_data(matrices: Matrices, started: bool) -> tuple[np.ndarray, np.ndarray]:
    n, m = matrices[1].shape
    kind = 1j if np.iscomplexobj(matrices[0]) else 0
    inputs = random(STEPS, m, seed=5) + kind * random(STEPS, m, seed=6)
    return inputs, (random(n, seed=7) + kind * random(n, seed=8)) * started


def as_recurrence(system: object) -> linrec.LinearRecurrence:
    assert isinstance(system, linrec.LinearRecurrence)
    return system


def matrices_of(system: Any) -> Matrices:
    return system.A, system.B, system.C, system.D


def run_as_pre_update(
    recurrence: linrec.LinearRecurrence, inputs: np.ndarray, state: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Run what `from_...` made from a pre-update state; the states that the other side has."""
    start = torch.zeros(recurrence.state_size, dtype=recurrence.dtype)
    start[: len(state)] = torch.from_numpy(state)
    result = linrec.run(recurrence, torch.from_numpy(inputs), start, executor=linrec.Recurrent())
    return result.outputs.numpy(), result.final_state.numpy()[: len(state)]


@pytest.mark.parametrize("started", [False, True])
@pre_update_systems
def test_runs_as_the_scipy_system(transition: str, shape: str, started: bool) -> None:
    matrices = pre_update_system(transition, shape)
    inputs, state = pre_update_data(matrices, started)
    recurrence = as_recurrence(from_scipy(signal.StateSpace(*matrices, dt=0.5)))
    outputs, last = run_as_pre_update(recurrence, inputs, state)
    expected, expected_last = simulate(matrices, inputs, state)
    allowed, allowed_last = bound(matrices, inputs, state)
    assert_within(outputs, expected, allowed)
    assert_within(last, expected_last, allowed_last)
    if not np.iscomplexobj(matrices[0]):  # dlsim drops imaginary parts
        theirs = signal.dlsim(signal.StateSpace(*matrices, dt=0.5), inputs, x0=state)[1]
        assert_within(outputs, theirs, allowed)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("transition", single)
def test_the_scipy_system_answers_as_the_recurrence(transition: str, system: str) -> None:
    recurrence = SYSTEMS[system](TRANSITIONS[transition]())
    inputs, state = data(recurrence, STEPS)
    u, x = inputs.numpy(), state.numpy()

    def run(matrices: Any, inputs: Any, state: Any) -> Any:
        copied = linrec.LinearRecurrence(*matrices, copies=recurrence.copies)
        result = exact_reference(copied, torch.as_tensor(inputs), torch.as_tensor(state))
        return result.outputs, result.final_state

    matrices = [recurrence.A.to_dense(), recurrence.B, recurrence.C, recurrence.D]
    matrices = [None if matrix is None else matrix.numpy() for matrix in matrices]
    expected, expected_last = run(matrices, u, x)
    allowed, allowed_last = bound(matrices, u, x, run)
    discrete: Any = to_scipy(recurrence)
    assert len(discrete.A) == recurrence.state_size
    outputs, last = simulate(matrices_of(discrete), u, x)
    assert_within(outputs, expected, allowed)
    assert_within(last, expected_last, allowed_last)
    if not recurrence.dtype.is_complex:
        assert_within(signal.dlsim(discrete, u, x0=x)[1], expected, allowed)


@pre_update_systems
def test_there_and_back_answers_the_same(transition: str, shape: str) -> None:
    matrices = pre_update_system(transition, shape)
    inputs, state = pre_update_data(matrices, started=True)
    recurrence = as_recurrence(from_scipy(signal.StateSpace(*matrices, dt=1)))
    n, p, back = len(matrices[0]), len(matrices[2]), to_scipy(recurrence)
    assert recurrence.state_size == n + min(n, p)
    start = np.append(state, np.zeros(min(n, p)))
    outputs, _ = simulate(matrices_of(back), inputs, start)
    allowed, _ = bound(matrices, inputs, state)
    assert_within(outputs, simulate(matrices, inputs, state)[0], allowed)
    # As often as one likes: min(n, p) states more each time, and always the same answer.
    again = as_recurrence(from_scipy(back))
    assert again.state_size == recurrence.state_size + min(recurrence.state_size, p)
    assert_within(run_as_pre_update(again, inputs, start)[0], outputs, allowed)


@pytest.mark.parametrize("transition", PRE_UPDATE_A)
def test_the_matrices_are_copied_and_nothing_is_computed(transition: str) -> None:
    matrices = pre_update_system(transition, "2 inputs, 3 outputs, D")
    (A, B, C, D), n = matrices, len(matrices[0])
    recurrence: Any = from_scipy(signal.StateSpace(*matrices, dt=1))
    held_back = C if len(C) <= n else np.eye(n)
    assert np.array_equal(recurrence.A.to_dense()[:, :n], np.concatenate([A, held_back]))
    assert np.array_equal(recurrence.B[:n], B)
    assert np.array_equal(recurrence.D, D)


@pre_update_systems
def test_continuous_systems_are_copied(transition: str, shape: str) -> None:
    matrices = pre_update_system(transition, shape)
    system = from_scipy(signal.StateSpace(*matrices))
    assert isinstance(system, linrec.StateSpace)
    assert (system.D is None) == (not SHAPES[shape][2])
    back = to_scipy(system)
    assert isinstance(back, signal.lti) and back.dt is None
    for ours, theirs in zip(matrices_of(back), matrices, strict=True):
        assert ours.dtype == matrices[0].dtype
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("zeros", [0, 1, 3])
@pytest.mark.parametrize("poles", [[0.5], [0.0, 0.0, 0.0], [0.9, -0.3 + 0.4j, -0.3 - 0.4j]])
@pytest.mark.parametrize("form", ["TransferFunction", "ZerosPolesGain"])
def test_filters_answer_as_lfilter(form: str, poles: list[complex], zeros: int) -> None:
    zpk = ([0.7] * min(zeros, len(poles)), poles, 2.0)
    b, a = map(np.asarray, signal.zpk2tf(*zpk))
    coefficients = (b, a) if form == "TransferFunction" else zpk
    system: Any = getattr(signal, form)(*coefficients, dt=1)
    inputs = random(STEPS, 1, seed=9)
    outputs, _ = run_as_pre_update(as_recurrence(from_scipy(system)), inputs, np.zeros(len(poles)))
    padded = np.concatenate([np.zeros(len(a) - len(b)), b])  # powers of z are not those of 1/z
    A, B, _, D = matrices_of(system.to_ss())
    # C has the products b_i - b_0 a_i. lfilter adds in another order: the largest of all bounds.
    C = (np.abs(padded[1:]) + np.abs(padded[0] * a[1:]))[None]
    allowed, _ = bound((A, B, C, D), inputs, np.zeros(len(poles)))
    assert_within(outputs[:, 0], signal.lfilter(padded, a, inputs[:, 0]), allowed.max())


NO_STATES = dict(A=np.zeros((0, 0)), B=np.zeros((0, 1)), C=np.zeros((2, 0)), D=[[3.0], [-1.0]])


@pytest.mark.parametrize(
    "made",
    [
        lambda: from_scipy(signal.TransferFunction([[3.0], [-1.0]], [1.0], dt=1)),
        lambda: from_scipy(signal.StateSpace(*NO_STATES.values(), dt=1)),
        lambda: from_control(SimpleNamespace(**NO_STATES, dt=True)),
    ],
)
def test_a_gain_has_a_state_that_stays_zero(made: Callable[[], object]) -> None:
    inputs = torch.from_numpy(random(STEPS, 1))
    result = linrec.run(as_recurrence(made()), inputs, executor=linrec.Recurrent())
    assert torch.equal(result.outputs, torch.cat([3 * inputs, -inputs], -1))
    assert not result.final_state.any()


@pytest.mark.parametrize("given", [1, 0.5, True, np.float32(0.25)])
def test_the_step_is_kept(given: float) -> None:
    recurrence = linrec.LinearRecurrence(A=[[0.5]])
    assert to_scipy(recurrence, given).dt == given
    assert (to_scipy(recurrence, given).dt is True) == (given is True)
    assert isinstance(to_scipy(recurrence), signal.dlti) and to_scipy(recurrence).dt == 1


def test_sampling_here_is_sampling_there_one_step_later() -> None:
    """The input of step t has acted by y_t here, and acts on y[t+1] there (D = 0)."""
    continuous: Any = signal.StateSpace([[-1, 2], [0, -0.5]], [[1], [2]], [[1, 1]], [[0]])
    system: Any = from_scipy(continuous)
    inputs = random(STEPS, 1)
    here = linrec.discretize(system, dt=0.25)
    outputs = linrec.run(here, torch.from_numpy(inputs)).outputs.numpy()
    there = signal.dlsim(continuous.to_discrete(0.25), inputs)[1]
    # Two matrix exponentials of norm about 1, by different algorithms: some tens of roundings.
    assert_within(outputs[:-1], there[1:], 1000 * EPS)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_numbers_are_widened_before_they_are_multiplied(dtype: torch.dtype) -> None:
    system = SYSTEMS["ABCD"](TRANSITIONS["low rank"]()).to(dtype)
    wide = matrices_of(to_scipy(system.to(torch.float64)))
    for ours, expected in zip(matrices_of(to_scipy(system)), wide, strict=True):
        assert ours.dtype == np.float64
        assert np.array_equal(ours, expected)


@pytest.mark.parametrize(("one", "dtype"), [(1, torch.float64), (1j, torch.complex128)])
def test_integers_and_mixed_numbers_become_double(one: complex, dtype: torch.dtype) -> None:
    recurrence = as_recurrence(from_scipy(signal.StateSpace([[1]], [[one]], [[1]], [[0]], dt=1)))
    assert {leaf.dtype for leaf in recurrence.leaves().values()} == {dtype}


def test_nothing_is_shared_and_gradients_stay_behind() -> None:
    theirs = SimpleNamespace(A=np.eye(2), B=np.eye(2)[:, ::-1], C=np.eye(2), D=np.eye(2), dt=0)
    ours: Any = from_control(theirs)  # of scipy's systems, to_ss makes copies already
    for name in "ABCD":
        getattr(theirs, name)[:] = 7
    assert not any((m == 7).any() for m in (ours.A.to_dense(), ours.B, ours.C, ours.D))
    matrices = [torch.eye(2, dtype=torch.float64, requires_grad=True) for _ in "ABCD"]
    for system in (linrec.StateSpace(*matrices), linrec.LinearRecurrence(*matrices)):
        back = to_scipy(system)
        for name in "ABCD":
            getattr(back, name)[:] = 7
    assert all(torch.equal(matrix, torch.eye(2).double()) for matrix in matrices)


STAND_IN = SimpleNamespace(A=[[0.5]], B=[[1.0]], C=[[1.0]], D=[[0.0]], dt=True)


def changed(**attributes: Any) -> SimpleNamespace:
    return SimpleNamespace(**(vars(STAND_IN) | attributes))


@pytest.mark.parametrize("dt", [0, 0.0, False, True, 1, 0.1])
def test_the_kind_of_time_of_control(dt: float) -> None:
    kind = linrec.LinearRecurrence if dt else linrec.StateSpace
    assert type(from_control(changed(dt=dt))) is kind


@pre_update_systems
def test_control_systems_are_read_as_those_of_scipy(transition: str, shape: str) -> None:
    matrices = pre_update_system(transition, shape)
    stand_in = SimpleNamespace(**dict(zip("ABCD", matrices, strict=True)), dt=0.5)
    ours = as_recurrence(from_control(stand_in)).leaves()
    expected = as_recurrence(from_scipy(signal.StateSpace(*matrices, dt=0.5))).leaves()
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[name], expected[name]) for name in ours)


@pre_update_systems
def test_answers_as_python_control(transition: str, shape: str) -> None:
    control = pytest.importorskip("control")
    matrices = pre_update_system(transition.replace("complex", "full"), shape)  # control has none
    inputs, state = pre_update_data(matrices, started=True)
    theirs = control.ss(*matrices, True)
    recurrence = as_recurrence(from_control(theirs))
    allowed, _ = bound(matrices, inputs, state)
    response = control.forced_response(theirs, U=inputs.T, X0=state, squeeze=False)
    assert_within(run_as_pre_update(recurrence, inputs, state)[0], response.outputs.T, allowed)
    back = to_control(recurrence)
    assert isinstance(back, control.StateSpace)
    start = np.append(state, np.zeros(recurrence.state_size - len(state)))
    response = control.forced_response(back, U=inputs.T, X0=start, squeeze=False)
    assert_within(response.outputs.T, simulate(matrices, inputs, state)[0], allowed)


def test_control_keeps_states_steps_and_continuous_systems() -> None:
    control = pytest.importorskip("control")
    defaults = control.config.defaults
    kept = defaults["statesp.remove_useless_states"]
    idle = linrec.LinearRecurrence(A=torch.zeros(2, 2), B=torch.zeros(2, 1))
    try:
        defaults["statesp.remove_useless_states"] = True
        assert to_control(idle).nstates == 2
    finally:
        defaults["statesp.remove_useless_states"] = kept
    assert to_control(idle).dt == 1
    assert to_control(idle, 0.25).dt == 0.25
    assert to_control(idle, True).dt is True
    system = linrec.StateSpace(A=[[-1.0, 2.0], [0.0, -3.0]], B=[[1.0], [2.0]])
    theirs = to_control(system)
    assert theirs.isctime(strict=True)
    back: Any = from_control(theirs)
    assert torch.equal(back.A.to_dense(), system.A.to_dense().double())
    assert torch.equal(back.B, system.B.double())
    assert torch.equal(back.C, torch.eye(2).double()) and back.D is None


def test_only_to_control_imports_control(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, *_: Any, **__: Any) -> Any:
        raise ImportError(name) if name == "control" else AssertionError(name)

    monkeypatch.setattr(importlib, "import_module", refuse)
    assert isinstance(from_control(STAND_IN), linrec.LinearRecurrence)
    with pytest.raises(ImportError, match="pip install control"):
        to_control(linrec.LinearRecurrence(A=[[0.5]]))


ONE = linrec.LinearRecurrence(A=[[0.5]])
LAG = linrec.StateSpace(A=[[-1.0]], B=[[1.0]])
MANY = linrec.LinearRecurrence(torch.eye(2).expand(3, 2, 2))
BATCH = linrec.StateSpace(-torch.eye(2), torch.ones(1, 2, 1))
CHANGING = linrec.LinearRecurrence(VARYING["varying dense"](4))
MODULE = linrec.nn.Recurrence(ONE)
COMPLEX = linrec.LinearRecurrence(A=[[0.5j]])
FIR = signal.TransferFunction([1.0, 2.0, 3.0], [1.0], dt=1)
LEAD = signal.ZerosPolesGain([1.0, 2.0], [0.5], 1.0)
NO_MATRICES = SimpleNamespace(num=[], den=[], dt=0)

REFUSED: list[tuple[Callable[..., Any], tuple[Any, ...], type[Exception], str]] = [
    (from_scipy, (([1.0], [1.0, 0.5]),), TypeError, "is of type tuple.*`signal.Transfer"),
    (from_scipy, (ONE,), TypeError, "is of type LinearRecurrence"),
    (from_scipy, (STAND_IN,), TypeError, "to `from_control`"),
    (from_scipy, (FIR,), ValueError, "longer than `den`.*pad the shorter with zeros"),
    (from_scipy, (LEAD,), ValueError, "proper system, of no more zeros than poles"),
    (from_control, (NO_MATRICES,), TypeError, r"`A`, `B`, `C`, `D`: .*`control.ss\(system\)`"),
    (from_control, (LAG,), TypeError, "StateSpace, without `dt`"),
    (from_control, (changed(dt=None),), ValueError, "Set `system.dt = True`"),
    (to_scipy, (MODULE,), TypeError, r"pass its `recurrence`"),
    (to_control, (MODULE,), TypeError, r"pass its `recurrence`"),
    (to_scipy, (torch.eye(2),), TypeError, "is of type Tensor"),
    (to_scipy, (CHANGING,), ValueError, r"`to_scipy` got a time-varying.*`recurrence.at\(step\)`"),
    (to_scipy, (MANY,), ValueError, r"axes \(3,\): .*`to_scipy\(LinearRecurrence\(system.A\[0"),
    (to_control, (BATCH,), ValueError, r"batch axes \(1,\): .*`to_control\(StateSpace\("),
    (to_scipy, (ONE, 0), ValueError, "`dt` is 0: .*Pass `dt=1`"),
    (to_scipy, (ONE, False), ValueError, "`dt` is False"),
    (to_control, (ONE, float("inf")), ValueError, "`dt` is inf"),
    (to_scipy, (ONE, float("nan")), ValueError, "`dt` is nan"),
    (to_scipy, (ONE, torch.ones(3)), ValueError, "`dt` is tensor"),
    (to_scipy, (LAG, 0.1), ValueError, r"`to_scipy\(discretize\(system, 0.1\), 0.1\)`"),
    (to_control, (LAG, True), ValueError, r"`to_control\(discretize\(system"),
    (to_control, (COMPLEX,), ValueError, "complex64, and python-control .*`to_scipy`"),
]


@pytest.mark.parametrize(("call", "arguments", "kind", "words"), REFUSED)
def test_refusals_say_what_to_type(
    call: Callable[..., Any], arguments: tuple[Any, ...], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        call(*arguments)
