"""Complex symbolic systems: closed forms, responses and stability keep the imaginary part."""

# sympy's annotations are narrower than what it does.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false
# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false

from typing import Any

import mpmath
import numpy as np
import pytest
import sympy
import torch
from sympy import I, Rational

from linrec import symbolic
from linrec.symbolic import LinearRecurrence, StateSpace

dt, omega = sympy.symbols("dt omega", positive=True)
a = sympy.Symbol("a", real=True)
s, z = sympy.symbols("s z")
k = sympy.Symbol("k", integer=True, nonnegative=True)
VALUES = {dt: Rational(3, 10), omega: Rational(17, 10), a: Rational(-7, 10)}
SYSTEMS: dict[str, StateSpace] = {
    "pole": StateSpace([[-1 + 2 * I]], [[1]]),
    "pole of parameters": StateSpace([[a + I * omega]], [[1]], [[I]]),
    "Hamiltonian": StateSpace(-I * sympy.Matrix([[1, 2], [2, 2]]), [[1], [0]]),
    "conjugate pair": StateSpace([[0, I], [I, 0]], [[1], [I]], [[1, 0]]),
    "complex and coupled": StateSpace([[a, I * omega], [1, -1]], [[1], [0]], [[0, 1]]),
    "defective": StateSpace([[I, 1], [0, I]], [[0], [1]], [[1, 0]]),
}


def numbers(expression: Any) -> np.ndarray:
    """Evaluate to 30 digits."""
    matrix = sympy.Matrix([[expression]]).subs(VALUES)
    return np.array(sympy.N(matrix, 30).tolist(), dtype=complex)


def exponential(A: sympy.MatrixBase) -> np.ndarray:
    """Let mpmath compute exp(A) to 40 digits."""
    with mpmath.workdps(40):
        rows = [[mpmath.mpmathify(sympy.N(each, 40)) for each in row] for row in A.tolist()]
        return np.array(mpmath.expm(mpmath.matrix(rows)).tolist(), dtype=complex)


# To simplify what these give takes seconds.
SLOW = {"Hamiltonian", "complex and coupled"}
NAMES = [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in SYSTEMS]


@pytest.mark.parametrize("name", NAMES)
def test_discretised_and_impulse_responses_are_exponentials(name: str) -> None:
    system = SYSTEMS[name]
    expected, discrete = exponential((system.A * dt).subs(VALUES)), system.discretize(dt)
    np.testing.assert_allclose(numbers(discrete.A), expected, rtol=0, atol=1e-15)
    response = numbers(system.impulse_response(dt))
    known = numbers(system.C) @ expected @ numbers(system.B)
    np.testing.assert_allclose(response, known, rtol=0, atol=1e-15)
    values = {
        p: torch.tensor(float(VALUES[p]), dtype=torch.float64) for p in (*system.parameters, dt)
    }
    bound = discrete.bind(values).A.to_dense().to(torch.complex128)
    torch.testing.assert_close(bound, torch.from_numpy(expected), rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_powers_and_transfer_functions(name: str) -> None:
    of = SYSTEMS[name]
    system = LinearRecurrence(of.A, of.B, of.C, [[I]] * of.output_size)
    A, B, C, D = map(numbers, system.matrices)
    formula = sympy.Matrix([[system.impulse_response(k)]])
    for step in range(5):
        expected = C @ np.linalg.matrix_power(A, step) @ B + (step == 0) * D
        np.testing.assert_allclose(numbers(formula.subs(k, step)), expected, atol=1e-12)
        np.testing.assert_allclose(numbers(system.impulse_response(step)), expected, atol=1e-12)
    point = 0.4 + 1.1j
    expected = C @ np.linalg.inv(np.eye(len(A)) - A / point) @ B + D
    H = sympy.Matrix([[system.transfer_function(z)]]).subs(z, point)
    np.testing.assert_allclose(numbers(H), expected, rtol=1e-12)
    poles = [numbers(pole)[0, 0] for pole in system.poles()]
    np.testing.assert_allclose(np.poly(poles), np.poly(A), atol=1e-12)


def test_steps_without_assumptions_have_the_same_closed_form() -> None:
    plain = sympy.Symbol("h")
    turning = StateSpace([[0, omega], [-omega, 0]], [[0], [1]])
    assert turning.discretize(plain).A.subs(plain, dt) == turning.discretize(dt).A
    step = sympy.Symbol("k")
    assert LinearRecurrence([[I / 2]]).impulse_response(step).subs(step, 3) == -I / 8


@pytest.mark.parametrize("real", [-1.5, -0.2, 0.1, 2.0])
@pytest.mark.parametrize("imaginary", [-1.3, 0.4])
def test_stability_of_complex_systems(real: float, imaginary: float) -> None:
    b = sympy.Symbol("b", real=True)
    A = sympy.Matrix([[a + I * b, 1], [0, Rational(-1, 2)]])
    values = {a: real, b: imaginary}
    for kind, stable in (
        (StateSpace, real < 0),
        (LinearRecurrence, abs(real + 1j * imaginary) < 1),
    ):
        conditions = kind(A).stability_conditions()
        assert all(bool(each.subs(values)) for each in conditions) == stable


def test_stability_that_is_known() -> None:
    assert StateSpace([[I]]).stability_conditions() == (sympy.false,)
    assert StateSpace([[-1 + I]]).stability_conditions() == ()
    assert LinearRecurrence([[I / 2]]).stability_conditions() == ()
    with pytest.raises(ValueError, match="whether g are real"):
        StateSpace([[I * sympy.Symbol("g")]]).stability_conditions()


def test_composition_of_complex_systems() -> None:
    first, second = SYSTEMS["pole of parameters"], SYSTEMS["complex and coupled"]
    H, G = first.transfer_function(s), second.transfer_function(s)
    behind, beside = symbolic.series(first, second), symbolic.parallel(first, second)
    assert sympy.simplify(behind.transfer_function(s) - H * G) == 0
    assert sympy.simplify(beside.transfer_function(s) - H - G) == 0


OUT_OF_RANGE = [(sympy.sqrt, -4.0), (sympy.log, -4.0), (sympy.cbrt, -8.0)] + [
    (function, value)
    for function in (sympy.asin, sympy.acos, sympy.acosh, sympy.atanh)
    for value in (-2.0, 2.0, -0.5, 0.5)
]


@pytest.mark.parametrize(("function", "value"), OUT_OF_RANGE)
@pytest.mark.parametrize("kind", [float, complex, torch.tensor])
def test_formulas_that_are_complex_at_a_real_value(function, value: float, kind) -> None:
    a = sympy.Symbol("a")
    system = symbolic.LinearRecurrence([[function(a) / 9]])
    got = complex(system.bind(a=kind(value)).A.to_dense().item())
    assert got == pytest.approx(complex((function(a) / 9).subs(a, value)), rel=1e-6, abs=1e-12)


def test_complex_formulas_of_a_batch_keep_gradients() -> None:
    """d √a / da = 1 / (2 √a), of which the part of the negative entry is imaginary."""
    a = torch.tensor([-4.0, 9.0], dtype=torch.float64, requires_grad=True)
    system = symbolic.LinearRecurrence([[sympy.sqrt(sympy.Symbol("a"))]]).bind(a=a)
    found = system.A.to_dense().flatten()
    torch.testing.assert_close(found.detach(), torch.tensor([2j, 3.0], dtype=torch.complex128))
    (found.real + found.imag).sum().backward()
    torch.testing.assert_close(a.grad, torch.tensor([-0.25, 1 / 6], dtype=torch.float64))
