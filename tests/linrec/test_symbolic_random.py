"""Random symbolic systems, real and complex, against mpmath at 30 digits."""

# sympy's annotations are narrower than what it does.
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportIndexIssue=false
# pyright: reportAttributeAccessIssue=false

from typing import Any

import mpmath
import pytest
import sympy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from linrec import symbolic
from linrec.symbolic import LinearRecurrence, NoClosedForm, StateSpace

a, b = sympy.symbols("a b", real=True)
dt = sympy.Symbol("dt", positive=True)
k = sympy.Symbol("k", integer=True, nonnegative=True)
s = sympy.Symbol("s")
VALUES = {a: sympy.Rational(-7, 10), b: sympy.Rational(13, 10), dt: sympy.Rational(3, 10)}
POINT = sympy.Rational(2, 5) + sympy.Rational(11, 10) * sympy.I
ENTRIES = [0, 0, 1, -1, sympy.Rational(1, 2), a, b, a * b, a + 1]
COMPLEX = [*ENTRIES, sympy.I, a * sympy.I, 1 - b * sympy.I / 2]
TOLERANCE = mpmath.mpf(10) ** -20


@st.composite
def systems(draw: st.DrawFn, kind: type, largest: int) -> Any:
    """Draw a system of one input and one output."""
    n, entries = (
        draw(st.integers(1, largest)),
        st.sampled_from(draw(st.sampled_from([ENTRIES, COMPLEX]))),
    )

    def matrix(rows: int, columns: int) -> list[list[sympy.Expr]]:
        return [[draw(entries) for _ in range(columns)] for _ in range(rows)]

    return kind(matrix(n, n), matrix(n, 1), matrix(1, n), matrix(1, 1))


def number(expression: Any) -> Any:
    """Evaluate to 30 digits."""
    return mpmath.mpmathify(sympy.N(sympy.sympify(expression).subs(VALUES), 30))


def numbers(matrix: sympy.MatrixBase) -> Any:
    """Evaluate a matrix to 30 digits."""
    return mpmath.matrix([[number(entry) for entry in row] for row in matrix.tolist()])


def check(got: Any, expected: Any) -> None:
    assert abs(number(got) - expected) <= TOLERANCE * (1 + abs(expected))


def transfer(system: Any, point: Any) -> Any:
    """Evaluate C (s I - A)⁻¹ B + D, or C (I - A / z)⁻¹ B + D."""
    A, B, C, D = map(numbers, system.matrices)
    solved = mpmath.lu_solve(point * mpmath.eye(A.rows) - A, B)
    return (C * solved)[0] * (point if system.discrete else 1) + D[0]


def check_continuous(system: Any) -> None:
    with mpmath.workdps(30):
        A, B, C, _ = map(numbers, system.matrices)
        try:
            response = system.impulse_response(dt)
        except NoClosedForm:
            assert system.state_size > 2  # of two states the poles are always found
            return
        exponential = mpmath.expm(A * number(dt))
        check(response, (C * exponential * B)[0])
        got = numbers(system.discretize(dt).A)
        assert mpmath.norm(got - exponential) <= TOLERANCE * (1 + mpmath.norm(exponential))


def check_discrete(system: Any) -> None:
    with mpmath.workdps(30):
        A, B, C, D = map(numbers, system.matrices)
        try:
            formula = system.impulse_response(k)
        except NoClosedForm:
            assert system.state_size > 2  # as above
            formula = None
        for step in range(4):
            expected = (C * A**step * B)[0] + (D[0] if step == 0 else 0)
            check(system.impulse_response(step), expected)
            if formula is not None:
                check(formula.subs(k, step), expected)


def check_composed(first: Any, second: Any) -> None:
    with mpmath.workdps(30):
        H, G = (transfer(system, number(POINT)) for system in (first, second))
        for system, expected in (
            (first, H),
            (symbolic.series(first, second), H * G),
            (symbolic.parallel(first, second), H + G),
        ):
            check(system.transfer_function(s).subs(s, POINT), expected)


FEW = settings(
    max_examples=4, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
MANY = settings(FEW, max_examples=60)


@FEW
@given(systems(StateSpace, 2))
def test_exponentials(system: Any) -> None:
    check_continuous(system)


@FEW
@given(systems(LinearRecurrence, 2))
def test_powers(system: Any) -> None:
    check_discrete(system)


@FEW
@given(systems(StateSpace, 2), systems(StateSpace, 2))
def test_compositions(first: Any, second: Any) -> None:
    check_composed(first, second)


@pytest.mark.slow
@MANY
@given(systems(StateSpace, 4), systems(LinearRecurrence, 4), systems(LinearRecurrence, 4))
def test_more_and_larger_systems(continuous: Any, first: Any, second: Any) -> None:
    check_continuous(continuous)
    check_discrete(first)
    check_composed(first, second)
