"""Properties of symbolic systems, against numbers, scipy and other formulas."""

# Wrong arguments are passed on purpose, and sympy's annotations are narrower than what it does.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false
# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportGeneralTypeIssues=false

from typing import Any

import numpy as np
import pytest
import scipy.signal
import sympy
import torch
from sympy import Rational

import linrec
from linrec import symbolic
from linrec.symbolic import Bounded, LinearRecurrence, NoClosedForm, StateSpace

k = sympy.Symbol("k", integer=True, nonnegative=True)
a, b, c, d, s, z, t = sympy.symbols("a b c d s z t", real=True)
tau, dt, omega, theta = sympy.symbols("tau dt omega theta", positive=True)
zeta = Bounded("zeta", 0, 1)
VALUES = {a: -0.7, b: 0.4, c: 1.3, d: -0.2, tau: 2.5, dt: 0.3, omega: 1.7, theta: 4.0, zeta: 0.3}

CONTINUOUS: dict[str, StateSpace] = {
    "lag": StateSpace([[-1 / tau]], [[1 / tau]]),
    "rate of any sign": StateSpace([[a]], [[b]], [[c]], [[d]]),
    "integrator": StateSpace([[0]], [[1]]),
    "two integrators": StateSpace([[0, 1], [0, 0]], [[0], [1]], [[1, 0]]),
    "diagonal": StateSpace([[a, 0], [0, -1 / tau]], [[1], [b]], [[1, c]]),
    "cascade": StateSpace([[-1 / tau, 0], [1, a]], [[1], [0]], [[0, 1]]),
    "turning": StateSpace([[0, omega], [-omega, 0]], [[0], [1]]),
    "damped": StateSpace([[0, 1], [-(omega**2), -2 * zeta * omega]], [[0], [1]], [[1, 0]]),
    "defective": StateSpace([[-1, 1, 0], [0, -1, 1], [0, 0, -1]], [[0], [b], [1]], [[1, 0, 0]]),
    "numbers": StateSpace([[-1, 2], [-3, -4]], [[1, 0], [0, 1]], [[1, 1]], [[0, 2]]),
    "two turning": StateSpace(
        sympy.diag(sympy.Matrix([[0, 1], [-1, 0]]), sympy.Matrix([[a, omega], [-omega, a]])),
        [[1], [0], [0], [1]],
    ),
}
METHODS = ["zoh", "foh", "bilinear", "euler", "backward_diff", "impulse", "gbt"]
DISCRETE: dict[str, LinearRecurrence] = {
    "one": LinearRecurrence([[a]], [[b]], [[c]], [[d]]),
    "delay line": LinearRecurrence([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[1], [0], [0]], [[0, 0, 1]]),
    "resonance": LinearRecurrence([[1, Rational(-1, 2)], [1, 0]], [[1], [0]], [[1, 0]]),
    "repeated": LinearRecurrence([[a, 1], [0, a]], [[0], [1]], [[1, 0]]),
    "singular": LinearRecurrence([[a, 1], [0, 0]], [[b], [1]]),
    "two roots": LinearRecurrence([[c + d, -c * d], [1, 0]], [[1], [0]], [[1, 0]]),
    "dense": LinearRecurrence([[1, 2], [3, 4]], [[1, 0], [2, 1]], [[1, 1]], [[0, 3]]),
}


def numeric(expression: Any) -> np.ndarray:
    """Evaluate by mpmath, to 30 digits, which shares nothing with torch."""
    matrix = sympy.Matrix([[expression]])
    return np.array(sympy.N(matrix.subs(VALUES), 30).tolist(), dtype=complex)


def bound(system: Any) -> Any:
    """Bind with double precision."""
    values = {p: torch.tensor(VALUES[p], dtype=torch.float64) for p in system.parameters}
    return system.bind(values).to(torch.float64)


def options(method: str) -> dict[str, float]:
    return {"alpha": 0.25} if method == "gbt" else {}


SLOW = {"damped", "numbers", "two turning"}  # to simplify


@pytest.mark.parametrize(
    ("name", "method"),
    [(n, m) for n in CONTINUOUS for m in METHODS if n not in SLOW or m in ("zoh", "bilinear")],
)
@pytest.mark.sampled(2)
def test_the_closed_form_is_what_is_computed_numerically(name: str, method: str) -> None:
    system = CONTINUOUS[name]
    if method == "impulse" and any(system.D.flat()):
        with pytest.raises(ValueError, match="has a D"):
            system.discretize(dt, method)
        return
    discrete = system.discretize(dt, method, **options(method))
    assert isinstance(discrete, LinearRecurrence)
    known = linrec.discretize(bound(system), VALUES[dt], method, **options(method))
    n, m, p = system.state_size, system.input_size, system.output_size
    expected = (
        known.A.to_dense(),
        torch.eye(n) if known.B is None else known.B,
        torch.eye(n) if known.C is None else known.C,
        torch.zeros(p, m) if known.D is None else known.D,
    )
    for matrix, values in zip(discrete.matrices, expected, strict=True):
        np.testing.assert_allclose(numeric(matrix), values, rtol=0, atol=1e-13)


def warped(frequency: Any, step: Any = dt, method: str = "bilinear") -> Any:
    return CONTINUOUS["lag"].discretize(step, method, prewarp_frequency=frequency)


@pytest.mark.parametrize("name", ["lag", "turning", "damped", "rate of any sign"])
@pytest.mark.sampled(2)
def test_warped_frequencies(name: str) -> None:
    """The formula, what is bound of it, and what is computed numerically are the same."""
    system = CONTINUOUS[name]
    discrete = system.discretize(dt, "bilinear", prewarp_frequency=theta)
    known = linrec.discretize(
        bound(system), VALUES[dt], "bilinear", prewarp_frequency=VALUES[theta]
    )
    np.testing.assert_allclose(numeric(discrete.A), known.A.to_dense(), rtol=0, atol=1e-13)
    torch.testing.assert_close(bound(discrete).A.to_dense(), known.A.to_dense())
    of_numbers = discrete.subs({theta: 4}).subs({dt: Rational(3, 10)})
    torch.testing.assert_close(bound(of_numbers).A.to_dense(), known.A.to_dense())


def test_warped_frequencies_are_checked_when_they_are_bound() -> None:
    discrete = warped(theta)
    frequencies = torch.tensor([4.0, 5.0])
    assert discrete.bind(tau=2.5, dt=0.3, theta=frequencies).batch_shape == (2,)
    with pytest.raises(ValueError, match="from 0 to less than π/dt"):
        discrete.bind(tau=2.5, dt=0.3, theta=torch.tensor([4.0, 11.0]))
    plain = CONTINUOUS["lag"].discretize(dt, "bilinear")
    assert warped(0).A == plain.A


@pytest.mark.parametrize("name", DISCRETE)
def test_the_impulse_response_is_that_of_powers(name: str) -> None:
    system = DISCRETE[name]
    formula = sympy.Matrix([[system.impulse_response(k)]])
    numbers = {symbol: Rational(value) for symbol, value in VALUES.items()}
    A, B, C, D = (matrix.subs(numbers) for matrix in system.matrices)
    for step in range(6):
        expected = C * A**step * B + (D if step == 0 else 0 * D)
        of_a_number = sympy.Matrix([[system.impulse_response(step)]]).subs(numbers)
        assert sympy.simplify(of_a_number - expected).is_zero_matrix
        np.testing.assert_allclose(
            numeric(formula.subs(k, step)), numeric(expected), rtol=1e-12, atol=1e-14
        )


def test_the_response_of_what_was_discretised_is_a_sampled_one() -> None:
    turning = CONTINUOUS["turning"].discretize(dt, "impulse")
    cosine = sympy.Matrix([[turning.impulse_response(k)]])[1]
    assert sympy.simplify(cosine.subs(k, 3) - dt * sympy.cos(4 * omega * dt)) == 0


@pytest.mark.parametrize("name", CONTINUOUS)
def test_a_continuous_impulse_response_is_an_exponential(name: str) -> None:
    system = CONTINUOUS[name]
    at = sympy.Symbol("at", positive=True)
    system_numbers = bound(system)
    exponential = torch.linalg.matrix_exp(system_numbers.A.to_dense() * 0.8)
    B, C = system_numbers.B, system_numbers.C
    expected = exponential @ B if C is None else C @ exponential @ B
    got = sympy.Matrix([[system.impulse_response(at)]]).subs(at, 0.8)
    np.testing.assert_allclose(numeric(got), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", [*CONTINUOUS, *DISCRETE])
def test_transfer_function_and_poles_are_those_of_the_numbers(name: str) -> None:
    system = (CONTINUOUS | DISCRETE)[name]
    variable = s if name in CONTINUOUS else z
    point = 0.6 + 0.9j
    H = numeric(sympy.Matrix([[system.transfer_function(variable)]]).subs(variable, point))
    A, B, C, D = (numeric(matrix) for matrix in system.matrices)
    resolvent = np.linalg.inv(point * np.eye(len(A)) - A)
    expected = C @ resolvent @ B * (1 if name in CONTINUOUS else point) + D
    np.testing.assert_allclose(H, expected, rtol=1e-12, atol=1e-12)
    # Compared by their polynomials, which, unlike poles, have no order and no sharp corners.
    poles = [numeric(pole)[0, 0] for pole in system.poles()]
    np.testing.assert_allclose(np.poly(poles), np.poly(A), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [StateSpace, LinearRecurrence])
def test_poles_of_high_order_are_roots_where_the_coefficients_are_numbers(kind: type) -> None:
    companion = sympy.Matrix([[0, 1, 1], [1, 0, 0], [0, 1, 0]])
    roots = [complex(root.evalf(30)) for root in kind(companion).poles()]
    np.testing.assert_allclose(np.poly(roots), [1, 0, -1, -1], atol=1e-12)
    with pytest.raises(NoClosedForm, match="of degree 3"):
        kind(a * companion).poles()


@pytest.mark.parametrize("name", ["one", "resonance", "two roots", "repeated"])
def test_recurrences_in_series_multiply_and_in_parallel_add(name: str) -> None:
    first, second = DISCRETE[name], LinearRecurrence([[b]], [[1]], [[c]], [[a]])
    H, G = first.transfer_function(z), second.transfer_function(z)
    assert sympy.simplify(symbolic.series(first, second).transfer_function(z) - H * G) == 0
    assert sympy.simplify(symbolic.parallel(first, second).transfer_function(z) - H - G) == 0
    numbers = linrec.series(bound(first), bound(second))
    composed = bound(symbolic.series(first, second))
    torch.testing.assert_close(
        linrec.impulse_response(composed, 9), linrec.impulse_response(numbers, 9)
    )


def test_continuous_systems_in_series_and_parallel() -> None:
    lag, integrator = CONTINUOUS["rate of any sign"], CONTINUOUS["two integrators"]
    H, G = lag.transfer_function(s), integrator.transfer_function(s)
    assert sympy.simplify(symbolic.series(lag, integrator).transfer_function(s) - H * G) == 0
    assert sympy.simplify(symbolic.parallel(lag, integrator).transfer_function(s) - H - G) == 0
    with pytest.raises(TypeError, match="Discretise the continuous one"):
        symbolic.series(lag, DISCRETE["one"])
    with pytest.raises(ValueError, match="has 1 outputs and `second` 2 inputs"):
        symbolic.series(lag, CONTINUOUS["numbers"])
    with pytest.raises(ValueError, match="expected the same numbers"):
        symbolic.parallel(lag, CONTINUOUS["numbers"])


def polynomials(degree: int) -> list[list[float]]:
    """Polynomials with roots inside and outside of both regions."""
    random = np.random.default_rng(degree)
    return [
        [1.0, *random.normal(size=degree) * scale]
        for scale in (0.2, 0.6, 1.5, 4)
        for _ in "12345678"
    ]


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_stability_conditions_hold_just_where_the_roots_are_stable(degree: int) -> None:
    symbols = sympy.symbols(f"a1:{degree + 1}", real=True)
    companion = sympy.Matrix(
        degree, degree, lambda i, j: -symbols[j] if i == 0 else 1 if i == j + 1 else 0
    )
    conditions = {
        kind: kind(companion).stability_conditions() for kind in (StateSpace, LinearRecurrence)
    }
    found = {True: 0, False: 0}
    for polynomial in polynomials(degree):
        roots = np.roots(polynomial)
        values = dict(zip(symbols, polynomial[1:], strict=True))
        for kind, stable in (
            (StateSpace, (roots.real < 0).all()),
            (LinearRecurrence, (abs(roots) < 1).all()),
        ):
            assert all(bool(each.subs(values)) for each in conditions[kind]) == stable
            found[bool(stable)] += 1
    assert min(found.values()) > 5


def test_stability_conditions_that_are_known() -> None:
    a1, a2 = sympy.symbols("a1 a2", real=True)
    triangle = LinearRecurrence([[-a1, -a2], [1, 0]]).stability_conditions()
    assert set(triangle) == {a1 + a2 + 1 > 0, 1 - a2 > 0, -a1 + a2 + 1 > 0}
    assert CONTINUOUS["damped"].stability_conditions() == ()
    assert CONTINUOUS["integrator"].stability_conditions() == (sympy.false,)
    assert CONTINUOUS["damped"].discretize(dt).stability_conditions() == ()
    assert LinearRecurrence([[Rational(1, 2)]]).stability_conditions() == ()
    assert LinearRecurrence([[-1]]).stability_conditions() == (sympy.false,)
    assert StateSpace([[sympy.I]]).stability_conditions() == (sympy.false,)


def test_no_closed_form_is_left_unevaluated() -> None:
    A = sympy.Matrix(3, 3, lambda i, j: a if i == 0 else 1 if i == j + 1 else 0)
    system = StateSpace(A, [[1], [0], [0]])
    discrete = system.discretize(dt)
    assert isinstance(discrete, symbolic.Discretized)
    assert discrete.parameters == (a, dt)
    expected = linrec.discretize(bound(system), VALUES[dt])
    torch.testing.assert_close(bound(discrete).A.to_dense(), expected.A.to_dense())
    torch.testing.assert_close(bound(discrete).B, expected.B)
    assert isinstance(system.discretize(dt, "bilinear"), LinearRecurrence)
    assert isinstance(discrete.subs({a: 0}), LinearRecurrence)
    assert "without a closed form" in str(discrete) and "aligned" in discrete.latex()


def test_where_a_formula_divides_zero_by_zero_numbers_are_right() -> None:
    double = sympy.Symbol("zeta", positive=True)
    damped = StateSpace([[0, 1], [-1, -2 * double]], [[0], [1]]).discretize(dt)
    critical = linrec.discretize(linrec.StateSpace([[0.0, 1.0], [-1.0, -2.0]], [[0.0], [1.0]]), 0.5)
    torch.testing.assert_close(damped.bind(zeta=1.0, dt=0.5).A.to_dense(), critical.A.to_dense())
    assert isinstance(damped.subs({double: 1}), LinearRecurrence)
    drift = StateSpace([[a]], [[1]]).discretize(1)
    assert drift.bind(a=0.0).B == 1 or drift.bind(a=0.0).B is None


@pytest.mark.parametrize("realization", ["controllable", "observable", "balanced"])
@pytest.mark.parametrize(
    "transfer",
    [
        1 / (tau * s + 1),
        (s + b) / (s**2 + a * s + c),
        (b * s**2 + 1) / (s**2 + a * s),
        (2 * s**3 + a) / (s**3 + 2 * s**2 + 3 * s + tau),
    ],
)
def test_a_realisation_has_its_transfer_function(transfer: sympy.Expr, realization: str) -> None:
    system = StateSpace.from_transfer_function(transfer, s, realization)
    assert sympy.simplify(system.transfer_function(s) - transfer) == 0
    discrete = LinearRecurrence.from_transfer_function(transfer.subs(s, z), z, realization)
    assert sympy.simplify(discrete.transfer_function(z) - transfer.subs(s, z)) == 0


@pytest.mark.parametrize("realization", ["controllable", "observable", "balanced"])
@pytest.mark.parametrize("orders", [(0, 1), (1, 2), (2, 2), (5, 6), (8, 8)])
def test_a_pade_delay_agrees_with_the_delay(orders: tuple[int, int], realization: str) -> None:
    p, q = orders
    system = StateSpace.from_delay(theta, p, q, realization)
    assert system.state_size == q and (p == q) == bool(any(system.D))
    H = system.subs({theta: 1}).transfer_function(s)
    expected = sympy.series(sympy.exp(-s), s, 0, p + q + 1).removeO()
    assert sympy.series(H, s, 0, p + q + 1).removeO().equals(expected)


def test_the_balanced_form_is_better_balanced() -> None:
    def spread(realization: str) -> float:
        A = StateSpace.from_delay(1, 7, 8, realization).bind().A.to_dense()
        entries = A[A != 0].abs()
        return float(entries.max() / entries.min())

    assert spread("balanced") < 1e2 < 1e8 < spread("controllable")


def test_zeros_poles_and_gain_are_those_of_scipy() -> None:
    zeros, poles, gain = [Rational(-1, 2)], [-1, -2, Rational(-1, 4)], 3
    system = StateSpace.from_zpk(zeros, poles, gain, "observable")
    known = scipy.signal.ZerosPolesGain([-0.5], [-1, -2, -0.25], 3.0)
    frequencies = np.linspace(0.1, 3, 7)
    expected = known.freqresp(frequencies)[1]
    got = linrec.frequency_response(system.bind().to(torch.float64), torch.tensor(frequencies))
    np.testing.assert_allclose(got.flatten(), expected, rtol=1e-6)
    discrete = LinearRecurrence.from_zpk([], [a, b], 1)
    assert sympy.simplify(discrete.transfer_function(z) - 1 / ((z - a) * (z - b))) == 0


def test_systems_are_written_out() -> None:
    lag = CONTINUOUS["lag"]
    assert str(lag) == (
        "StateSpace of 1 state, 1 input, 1 output\n  x'(t) = u(t)/tau - x(t)/tau\n  y(t) = x(t)"
    )
    assert lag.latex() == (
        r"\begin{aligned} x'(t) &= \left[\begin{matrix}- \frac{1}{\tau}\end{matrix}\right] x(t) + "
        r"\left[\begin{matrix}\frac{1}{\tau}\end{matrix}\right] u(t) \\ y(t) &= x(t) \end{aligned}"
    )
    shown = DISCRETE["one"]._repr_latex_()
    assert shown.startswith(r"$\displaystyle \begin{aligned} x_{t} &=") and shown.endswith("$")
    assert "x1(t) = a*x1(t - 1) + x2(t - 1)" in str(DISCRETE["repeated"])
    assert lag == StateSpace([[-1 / tau]], [[1 / tau]]) != CONTINUOUS["integrator"]
    assert len({lag, StateSpace([[-1 / tau]], [[1 / tau]])}) == 1


REFUSED: dict[str, tuple[Any, str]] = {
    "not square": (lambda: StateSpace([[1, 2]]), r"`A` has shape \(1, 2\): expected \(2, 2\)"),
    "turned B": (lambda: StateSpace(sympy.eye(2), [[1, 2]]), r"expected \(2, 2\)"),
    "B": (lambda: StateSpace([[1]], [[1], [2]]), r"`B` has shape \(2, 1\): expected \(1, 1\)"),
    "wide B": (lambda: StateSpace(sympy.eye(2), [[1, 2, 3]]), r"`B` has shape \(1, 3\)"),
    "string": (lambda: StateSpace([["a"]]), "is the string 'a'"),
    "string matrix": (lambda: StateSpace("[[a]]"), "is of type str"),
    "ragged": (lambda: LinearRecurrence([[1, 2], [3]]), "rows of one length"),
    "vector": (lambda: LinearRecurrence([1, 2]), "a list of rows"),
    "object": (lambda: LinearRecurrence([[object()]]), "of type object"),
    "infinite": (lambda: LinearRecurrence([[sympy.oo]]), "has the entry oo"),
    "function": (lambda: LinearRecurrence([[sympy.Function("f")(a)]]), r"holds f\(a\)"),
    "namesakes": (
        lambda: LinearRecurrence([[sympy.Symbol("a", positive=True) + sympy.Symbol("a")]]),
        "Two symbols are called `a`",
    ),
    "time": (lambda: StateSpace([[sympy.Symbol("t")]]), "depend on t"),
    "names": (lambda: LinearRecurrence([[a]], states=[]), "has 0 names"),
    "method": (lambda: CONTINUOUS["lag"].discretize(dt, "exact"), "`method` is 'exact'"),
    "alpha": (lambda: CONTINUOUS["lag"].discretize(dt, "gbt"), "`alpha` is None"),
    "step": (lambda: CONTINUOUS["lag"].discretize(-1), "`dt` is -1"),
    "endless step": (lambda: CONTINUOUS["lag"].discretize(sympy.oo), "`dt` is oo"),
    "no number": (lambda: CONTINUOUS["lag"].discretize(float("nan")), "`dt` is nan"),
    "warped hold": (lambda: warped(omega, method="zoh"), 'only "bilinear" warps'),
    "warped beyond": (lambda: warped(50, 0.1), r"less than π/dt = 10\.0\*pi"),
    "warped below": (lambda: warped(-omega), "`prewarp_frequency` is -omega"),
    "warped by nothing": (lambda: warped(float("nan")), "`prewarp_frequency` is nan"),
    "string step": (lambda: CONTINUOUS["lag"].discretize("dt"), "is the string 'dt'"),
    "variable": (lambda: CONTINUOUS["lag"].transfer_function(tau), "does not have"),
    "realization": (lambda: StateSpace.from_delay(1, 1, 2, "modal"), "`realization` is 'modal'"),
    "Padé orders": (lambda: StateSpace.from_delay(1, 3, 2), "The orders are 3 and 2"),
    "improper": (lambda: StateSpace.from_transfer_function(s, s), "expected it proper"),
    "irrational": (lambda: StateSpace.from_transfer_function(sympy.exp(-s), s), "not a rational"),
    "namesake of s": (
        lambda: StateSpace.from_transfer_function(1 / (sympy.Symbol("s") + 1), s),
        "Two symbols are called `s`",
    ),
    "bounds": (lambda: Bounded("zeta", 1, 0), "the smaller first"),
    "no bound": (lambda: Bounded("zeta", 0, float("inf")), "two finite numbers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_systems_are_told_why(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises((ValueError, TypeError), match=message):
        make()
