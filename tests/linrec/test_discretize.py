"""Discretisation against scipy, in closed form, with gradients, and with steps of any length."""

# Wrong arguments are passed on purpose, and matrices known to be there are used as such.
# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false, reportOptionalMemberAccess=false, reportOptionalOperand=false
# pyright: reportOptionalSubscript=false

import math

import numpy as np
import pytest
import scipy.signal
import torch
from torch import Tensor

import linrec
from linrec import StateSpace, discretize
from tests.cases import normal

METHODS = {
    "zoh": None,
    "foh": None,
    "bilinear": None,
    "tustin": None,
    "euler": None,
    "forward_diff": None,
    "backward_diff": None,
    "impulse": None,
    "gbt": 0.3,
}
TRANSITIONS = {
    "dense": normal(4, 4, seed=1),
    "singular": torch.tensor([[0.0, 1, 0], [0, 0, 1], [0, 0, 0]]).double(),
    "zero": torch.zeros(2, 2).double(),
    "stiff": torch.diag(torch.tensor([-1e-6, -1.0, -40.0]).double()),
    "unstable": normal(3, 3, seed=2) + 2 * torch.eye(3).double(),
    "oscillating": torch.tensor([[0.0, -5.0], [5.0, 0.0]]).double(),
    "one": torch.tensor([[-0.7]]).double(),
}
STEPS = [1e-4, 0.3, 1.0]


def around(A: Tensor, through: bool) -> StateSpace:
    n = A.shape[-1]
    D = normal(2, 3, seed=5) if through else None
    return StateSpace(A, normal(n, 3, seed=3), normal(2, n, seed=4), D)


def close(got: Tensor, expected: np.ndarray, condition: float) -> None:
    """Both are products with exponentials or inverses: eps times what those amplify."""
    limit = 1e3 * np.finfo(float).eps * condition * max(np.abs(expected).max(), 1.0)
    assert np.abs(got.numpy() - expected).max() <= limit


@pytest.mark.parametrize("dt", STEPS)
@pytest.mark.parametrize("name", TRANSITIONS)
@pytest.mark.parametrize("method", METHODS)
def test_against_scipy(method: str, name: str, dt: float) -> None:
    A, alpha = TRANSITIONS[name], METHODS[method]
    system = around(A, through=method != "impulse")
    D = torch.zeros(2, 3).double() if system.D is None else system.D
    arrays = [matrix.numpy() for matrix in (A, system.B, system.C, D)]
    scipys = "euler" if method == "forward_diff" else method
    expected = scipy.signal.cont2discrete(arrays, dt, scipys, alpha=alpha)[:4]
    condition = math.exp(float(torch.linalg.matrix_norm(A, 2)) * dt / 4)
    diagonal = bool((A == torch.diag(A.diagonal())).all())
    structures = [linrec.Dense(A)] + ([linrec.Diagonal(A.diagonal())] if diagonal else [])
    for structure in structures:
        made = discretize(StateSpace(structure, *system.matrices()), dt, method, alpha=alpha)
        assert type(made.A) is type(structure)
        got = (made.A.to_dense(), made.B, made.C, D if made.D is None else made.D)
        for mine, theirs in zip(got, expected, strict=True):
            close(mine, theirs, condition)


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_gradients(method: str, diagonal: bool) -> None:
    A = normal(3, seed=1) if diagonal else normal(3, 3, seed=1)
    B, C, D = normal(3, 2, seed=3), normal(2, 3, seed=4), normal(2, 2, seed=5)

    def call(A: Tensor, B: Tensor, C: Tensor, dt: Tensor) -> tuple[Tensor, ...]:
        structure = linrec.Diagonal(A) if diagonal else linrec.Dense(A)
        system = StateSpace(structure, B, C, None if method == "impulse" else D)
        made = discretize(system, dt, method, alpha=METHODS[method])
        return tuple(made.leaves().values())

    arguments = [tensor.requires_grad_() for tensor in (A, B, C, torch.tensor(0.3).double())]
    assert torch.autograd.gradcheck(call, arguments)


def test_zero_order_hold_is_exact_for_held_inputs() -> None:
    """A lag driven by 1: x(t) = 1 - exp(-t) at the end of every step."""
    lag = StateSpace([[-1.0]], [[1.0]])
    states = linrec.run(discretize(lag, 0.25), torch.ones(8, 1)).outputs.squeeze()
    time = 0.25 * torch.arange(1, 9)
    torch.testing.assert_close(states, 1 - (-time).exp(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_outputs_are_scipys_one_step_later(method: str) -> None:
    """y_t here is scipy's y[t+1], its feedthrough being that of the input held, u_t."""
    system = around(TRANSITIONS["dense"], through=method != "impulse")
    made = discretize(system, 0.1, method, alpha=METHODS[method])
    D = np.zeros((2, 3)) if made.D is None else made.D.numpy()
    matrices = [m.numpy() for m in (made.A.to_dense(), made.B, made.C)]
    inputs = normal(20, 3, seed=6)
    outputs = scipy.signal.dlsim((*matrices, D, 1.0), inputs.numpy())[1]
    held = inputs.numpy()[:-1] - inputs.numpy()[1:]
    expected = outputs[1:] + held @ D.T
    got = linrec.run(made, inputs).outputs[:-1].numpy()
    assert np.abs(got - expected).max() <= 1e-12 * np.abs(expected).max()


@pytest.mark.parametrize("structure", [linrec.Dense, linrec.Diagonal])
@pytest.mark.parametrize("method", METHODS)
def test_steps_of_their_own_length(method: str, structure: type) -> None:
    A = normal(3, 3, seed=1) if structure is linrec.Dense else normal(3, seed=1)
    matrices = (normal(3, 2, seed=3), normal(1, 3, seed=4))
    system, alpha = StateSpace(structure(A), *matrices), METHODS[method]
    dt = torch.rand(2, 5, dtype=torch.float64) + 0.1
    varying = discretize(system, dt, method, alpha=alpha)
    assert varying.time_varying
    assert varying.steps == 5 and varying.batch_shape == (2,)
    for row in range(2):
        for step in range(5):
            single = discretize(system, dt[row, step], method, alpha=alpha)
            torch.testing.assert_close(varying.A.to_dense()[row, step], single.A.to_dense())
            for mine, theirs in ((varying.B, single.B), (varying.C, single.C)):
                assert mine is not None and theirs is not None
                expanded = mine.expand(2, 5, *mine.shape[-2:]) if mine.ndim > 2 else mine
                torch.testing.assert_close(
                    expanded[row, step] if mine.ndim > 2 else expanded, theirs
                )
    inputs = normal(2, 5, 2, seed=6)
    assert linrec.run(varying, inputs).outputs.shape == (2, 5, 1)


def test_equal_steps_give_the_same_as_one_step() -> None:
    system = around(TRANSITIONS["dense"], through=True)
    inputs = normal(7, 3, seed=6)
    same = linrec.run(discretize(system, torch.full((7,), 0.2, dtype=torch.float64)), inputs)
    once = linrec.run(discretize(system, 0.2), inputs)
    torch.testing.assert_close(same.outputs, once.outputs, rtol=1e-13, atol=1e-13)


def test_batches_of_systems() -> None:
    A, B = normal(2, 3, 3, seed=1), normal(3, 1, seed=2)
    both = discretize(StateSpace(A, B), 0.1)
    for row in range(2):
        one = discretize(StateSpace(A[row], B), 0.1)
        torch.testing.assert_close(both.A.to_dense()[row], one.A.to_dense())
    assert discretize(StateSpace(A, B), torch.rand(5)).batch_shape == (2,)


@pytest.mark.parametrize("structure", [linrec.Dense, linrec.Diagonal])
@pytest.mark.parametrize("method", METHODS)
def test_states_are_the_outputs_where_there_is_no_C(method: str, structure: type) -> None:
    A = normal(3, 3, seed=1) if structure is linrec.Dense else normal(3, seed=1)
    B, identity, alpha = normal(3, 2, seed=3), torch.eye(3).double(), METHODS[method]
    got = discretize(StateSpace(structure(A), B), 0.3, method, alpha=alpha)
    expected = discretize(StateSpace(structure(A), B, identity), 0.3, method, alpha=alpha)
    for mine, theirs in ((got.B, expected.B), (got.D, expected.D)):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            torch.testing.assert_close(mine, theirs, rtol=1e-13, atol=1e-13)
    read = identity if got.C is None else got.C
    torch.testing.assert_close(read, expected.C, rtol=1e-13, atol=1e-13)


# As many systems, or steps, as states, inputs and outputs: no axis is taken for another.
@pytest.mark.parametrize("C", [None, normal(2, 2, seed=4)])
@pytest.mark.parametrize("structure", [linrec.Dense, linrec.Diagonal])
@pytest.mark.parametrize("method", METHODS)
def test_axes_of_equal_size(method: str, structure: type, C: Tensor | None) -> None:
    matrix = structure is linrec.Dense
    A, B = normal(2, 2, 2, seed=1) if matrix else normal(2, 2, seed=1), normal(2, 2, seed=3)
    dt, alpha = torch.tensor([0.1, 0.4]).double(), METHODS[method]
    several = discretize(StateSpace(structure(A), B, C), 0.3, method, alpha=alpha)
    varying = discretize(StateSpace(structure(A[0]), B, C), dt, method, alpha=alpha)
    for row in range(2):
        one = discretize(StateSpace(structure(A[row]), B, C), 0.3, method, alpha=alpha)
        now = discretize(StateSpace(structure(A[0]), B, C), dt[row], method, alpha=alpha)
        for got, expected in ((several, one), (varying, now)):
            for name, leaf in expected.leaves().items():
                mine = got.leaves()[name]
                mine = mine[row] if mine.ndim > leaf.ndim and len(mine) > 1 else mine.squeeze(0)
                torch.testing.assert_close(mine, leaf, rtol=1e-13, atol=1e-13)


def test_inputs_of_their_own_for_each_system() -> None:
    A, B = normal(3, 3, seed=1), normal(2, 3, 1, seed=2)
    both = discretize(StateSpace(A, B), 0.1)
    for row in range(2):
        torch.testing.assert_close(both.B[row], discretize(StateSpace(A, B[row]), 0.1).B)


@pytest.mark.parametrize("structure", [linrec.Dense, linrec.Diagonal])
def test_steps_are_mapped(structure: type) -> None:
    A = normal(3, 3, seed=1) if structure is linrec.Dense else normal(3, seed=1)
    steps = torch.tensor([0.1, 0.7]).double()
    call = lambda dt: discretize(StateSpace(structure(A), torch.ones(3, 1).double()), dt).B  # noqa: E731  # said once for both
    torch.testing.assert_close(torch.vmap(call)(steps)[1], call(steps[1]))


def test_a_step_is_one_unit_of_time_unless_said() -> None:
    system = around(TRANSITIONS["dense"], through=True)
    assert discretize(system).A.to_dense().equal(discretize(system, 1.0, "zoh").A.to_dense())


@pytest.mark.parametrize("alpha, method", [(0, "euler"), (1, "backward_diff"), (0.5, "bilinear")])
def test_the_family_has_its_ends(alpha: float, method: str) -> None:
    system = around(TRANSITIONS["dense"], through=True)
    got, expected = discretize(system, 0.1, "gbt", alpha=alpha), discretize(system, 0.1, method)
    for name, leaf in expected.leaves().items():
        assert got.leaves()[name].equal(leaf)


def test_prewarping_keeps_the_response_at_its_frequency() -> None:
    system = StateSpace([[0.0, 1.0], [-4.0, -0.5]], [[0.0], [1.0]], [[1.0, 0.0]], [[0.0]])
    system = StateSpace(*(m.double() for m in (system.A.to_dense(), *system.matrices())))
    dt, omega = 0.4, 2.0
    made = discretize(system, dt, "bilinear", prewarp_frequency=omega)
    # As scipy reads the matrices: H(z) = C (z I - A)^-1 B + D.
    z = torch.exp(torch.tensor(1j * omega * dt, dtype=torch.complex128))
    A, B, C, D = (m.to(torch.complex128) for m in (made.A.to_dense(), made.B, made.C, made.D))
    got = C @ torch.linalg.solve(z * torch.eye(2, dtype=A.dtype) - A, B) + D
    expected = linrec.frequency_response(system, torch.tensor([omega]).double())[0]
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    unwarped = discretize(system, dt, "bilinear")
    assert not torch.allclose(unwarped.A.to_dense(), made.A.to_dense())


@pytest.mark.parametrize("shape", [(12,), (3, 12)])
@pytest.mark.parametrize("repeated", [False, True])
def test_a_frequency_for_each_step(shape: tuple[int, ...], repeated: bool) -> None:
    """Each step as scipy's own, of 2 tan(ω dt / 2) / ω, also where steps or frequencies repeat."""
    A, B = np.array([[0.0, 1.0], [-4.0, -0.1]]), np.array([[0.0], [1.0]])
    system = StateSpace(A, B)
    few = torch.linspace(0.1, 0.2, 2 if repeated else 12, dtype=torch.float64)
    dt = few.repeat_interleave(12 // len(few)).expand(shape)
    omega = torch.arange(1.0, 4.0, dtype=torch.float64).repeat(4)
    for frequency in (omega, omega.view(-1, 1, 1)):
        got = discretize(system, dt, "bilinear", dt_per="step", prewarp_frequency=frequency)
        warped = (2 * torch.tan(frequency * dt / 2) / frequency).numpy()
        assert got.A.batch_shape == warped.shape
        for place in np.ndindex(warped.shape):
            made = scipy.signal.cont2discrete((A, B, A, 0 * B), warped[place], "bilinear")
            np.testing.assert_allclose(got.A.to_dense()[place], made[0], rtol=1e-12)
            np.testing.assert_allclose(got.B[place], made[1], rtol=1e-12)


@pytest.mark.parametrize("C", [None, normal(2, 6, seed=2)])
@pytest.mark.parametrize("method", METHODS)
def test_float32_is_computed_in_float64(method: str, C: Tensor | None) -> None:
    A, B, alpha = normal(6, 6, seed=1).float(), torch.ones(6, 1), METHODS[method]
    C = None if C is None else C.float()
    single = discretize(StateSpace(A, B, C), 0.7, method, alpha=alpha)
    wide = (None if matrix is None else matrix.double() for matrix in (A, B, C))
    double = discretize(StateSpace(*wide), 0.7, method, alpha=alpha)
    for name, leaf in double.leaves().items():
        assert single.leaves()[name].dtype == torch.float32
        torch.testing.assert_close(single.leaves()[name], leaf.float(), rtol=0, atol=0)


@pytest.mark.parametrize("omega", [0.0, 0, 1e-300])
def test_nothing_is_warped_at_frequency_zero(omega: float) -> None:
    lag = StateSpace([[-1.0]], [[1.0]])
    warped = discretize(lag, 0.1, "bilinear", prewarp_frequency=omega)
    assert warped.A.to_dense().equal(discretize(lag, 0.1, "bilinear").A.to_dense())


def test_poles_where_implicit_methods_divide_by_zero() -> None:
    """A pole at 1/(α dt) is named, in one system and in one of many, plain and hidden."""
    turn = torch.linalg.qr(normal(3, 3, seed=1))[0]
    hidden = turn @ torch.diag(torch.tensor([20.0, -1.0, -3.0]).double()) @ turn.mT
    many = torch.stack([-torch.eye(3).double(), hidden])
    diagonal = linrec.Diagonal(torch.tensor([-1.0, 10.0]).double())
    ones, two_steps = torch.ones(3, 1).double(), torch.tensor([0.3, 0.1], dtype=torch.float64)
    for system, dt, method, words in (
        (StateSpace([[20.0]], [[1.0]]), 0.1, "bilinear", "a pole at 20, where 'bilinear'"),
        (StateSpace(hidden, ones), 0.1, "bilinear", "a pole at 20, where"),
        (StateSpace(many, ones), 0.1, "bilinear", r"a pole at 20 \(entry \[1\] of the batch"),
        (StateSpace(diagonal, ones[:2]), 0.1, "backward_diff", "a pole at 10, where"),
        (StateSpace(hidden, ones), two_steps, "bilinear", r"entry \[1\]"),
    ):
        with pytest.raises(ValueError, match=words):
            discretize(system, dt, method)
    # Large is not singular: 2^62 in the corner of the inverse, exactly.
    chain = StateSpace(torch.ones(64, 64).double().tril(-1), torch.ones(64, 1).double())
    made = discretize(chain, 1.0, "backward_diff")
    assert float(made.A.to_dense()[-1, 0]) == 2.0**62


@pytest.mark.parametrize("method", METHODS)
def test_a_step_for_each_system_of_a_bank(method: str) -> None:
    A, B, alpha = normal(3, 2, 4, 4, seed=1), normal(4, 1, seed=2), METHODS[method]
    dt = torch.tensor([[0.1], [0.2], [0.7]]).double()
    bank = discretize(StateSpace(A, B), dt, method, dt_per="system", alpha=alpha)
    assert not bank.time_varying and bank.batch_shape == (3, 2)
    for row in range(3):
        one = discretize(StateSpace(A[row, 1], B), dt[row, 0], method, alpha=alpha)
        for name, leaf in one.leaves().items():
            mine = bank.leaves()[name]
            mine = mine.expand(3, 2, *leaf.shape)[row, 1] if mine.ndim > 2 else mine
            torch.testing.assert_close(mine, leaf, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("method", METHODS)
def test_a_step_for_each_state(method: str) -> None:
    """As the time of each state were measured in units of its own (S5)."""
    poles, B, C, alpha = (
        -normal(4, seed=1).exp(),
        normal(4, 2, seed=2),
        normal(3, 4),
        METHODS[method],
    )
    dt = torch.tensor([0.1, 0.2, 0.5, 1.0]).double()
    one = StateSpace(linrec.Diagonal(poles), B, C)
    got = discretize(one, dt, method, dt_per="state", alpha=alpha)
    assert isinstance(got.A, linrec.Diagonal)
    for state in range(4):
        alone = StateSpace(linrec.Diagonal(poles[state : state + 1]), B[state : state + 1])
        expected = discretize(alone, float(dt[state]), method, alpha=alpha)
        torch.testing.assert_close(got.A.diagonal[state], expected.A.to_dense()[0, 0])
        torch.testing.assert_close(got.B[state], expected.B[0])


@pytest.mark.parametrize(
    "dt, dt_per, error",
    [
        (torch.tensor([0.1, 0.2]), None, "expected to be told whether it is the length of each"),
        (torch.tensor([0.1, 0.2, 0.3]), "system", "expected axes that broadcast against those"),
        (torch.tensor([0.1, 0.2]), "state", "A is not diagonal"),
        (0.1, "step", r"expected `dt \(\*batch, time\)`"),
        (0.1, "second", "`dt_per` is 'second': expected one of step, system, state"),
        (torch.tensor([0.1, math.nan]), "system", "`dt` has an entry of nan"),
        (torch.tensor([0.1, math.inf]), "step", "`dt` has an entry of inf"),
        (math.inf, None, "`dt` is inf: expected a positive step, and a finite one"),
        (math.nan, None, "`dt` is nan: expected a positive step"),
        (torch.tensor(math.nan), None, "`dt` is nan: expected a positive step"),
    ],
)
def test_steps_that_cannot_be(dt: object, dt_per: str | None, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        discretize(StateSpace(normal(2, 3, 3), normal(3, 1)), dt, dt_per=dt_per)


@pytest.mark.parametrize("omega", [-1.0, 10 * math.pi, 50.0, math.inf, math.nan])
def test_frequencies_that_no_step_shows(omega: float) -> None:
    with pytest.raises(ValueError, match=r"less than π/dt = 31\.4159 radians per unit of time"):
        discretize(StateSpace([[-1.0]], [[1.0]]), 0.1, "bilinear", prewarp_frequency=omega)


@pytest.mark.parametrize(
    "arguments, error",
    [
        ({"method": "zho"}, r"`method` is 'zho': expected one of zoh, foh"),
        ({"dt": -1.0}, "`dt` is -1.0: expected a positive step"),
        ({"dt": 0}, "`dt` is 0: expected a positive step"),
        ({"dt": torch.tensor([0.5, 0.0])}, "`dt` has an entry of 0.0: expected a positive step"),
        ({"method": "gbt"}, "`alpha` is None and `method` 'gbt'"),
        ({"method": "zoh", "alpha": 0.5}, "None for every other method"),
        ({"method": "gbt", "alpha": 1.5}, "`alpha` is 1.5: expected a number from 0 to 1"),
        ({"prewarp_frequency": 1.0}, 'only "bilinear" warps'),
        ({"method": "impulse"}, "the system has a D"),
    ],
)
def test_bad_arguments(arguments: dict, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        discretize(StateSpace([[-1.0]], [[1.0]], [[1.0]], [[1.0]]), **arguments)


@pytest.mark.parametrize("dt, error", [("a", "`dt` is of type str"), (1j, "`dt` has dtype")])
def test_steps_that_are_no_real_numbers(dt: object, error: str) -> None:
    with pytest.raises(TypeError, match=error):
        discretize(StateSpace([[-1.0]], [[1.0]]), dt)


def test_only_continuous_systems() -> None:
    with pytest.raises(TypeError, match="in discrete time already"):
        discretize(linrec.LinearRecurrence([[0.5]]))  # type: ignore[arg-type]  # tested


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 5)])
@pytest.mark.parametrize("method", ["zoh", "bilinear"])
def test_no_steps(shape: tuple[int, ...], method: str) -> None:
    lag = linrec.StateSpace([[-1.0]], [[1.0]])
    made = linrec.discretize(lag, torch.zeros(shape), method)
    assert made.A.to_dense().shape == (*shape, 1, 1) and made.time_varying
    module, inputs = linrec.nn.SampledSystem(lag), torch.zeros(2, *shape[-1:], 1)[: shape[0] or 2]
    dt = torch.zeros(len(inputs), shape[-1])
    assert module(inputs[:0], dt=dt[:0]).outputs.shape == (0, shape[-1], 1)
    assert module(inputs[:, :0], dt=dt[:, :0]).outputs.shape == (len(inputs), 0, 1)
