"""Closed forms of systems in series that share poles: equal poles of two blocks are one."""

import itertools

import numpy as np
import pytest
import sympy
from scipy import linalg, signal

from linrec import symbolic
from linrec.symbolic.functions import is_same

z = sympy.Symbol("z")
p, q, c, w = sympy.symbols("p q c w")
LATER = sympy.Symbol("k", integer=True, nonnegative=True)
SHARED = {
    "a pole, first": (z**2 / ((z - p) * (z - q)), z / (z - q)),
    "a pole, last": (z / (z - q), z**2 / ((z - p) * (z - q))),
    "a pole, scaled": (z**2 / ((z - p) * (2 * z - q)), z / (z - q / 2)),
    "both poles": (z**2 / ((z - p) * (z - q)), z**2 / ((z - q) * (z - p))),
    "a pair": (z**2 / (z**2 - c * z + q), z**3 / ((z - p) * (z**2 - c * z + q))),
    "a pair, scaled": (
        z**2 / (z**2 - c * z + q),
        z**3 / ((z - p) * (3 * z**2 - 3 * c * z + 3 * q)),
    ),
}


@pytest.mark.parametrize("shared", SHARED)
def test_poles_that_two_systems_share_are_one_pole(shared: str) -> None:
    """Compared with the power series of the product, in w = 1 / z."""
    first, second = SHARED[shared]
    both = symbolic.series(
        *(symbolic.LinearRecurrence.from_transfer_function(each, z) for each in (first, second))
    )
    numbers = {p: sympy.Rational(1, 2), q: sympy.Rational(1, 3), c: sympy.Rational(1, 5)}
    formula = both.impulse_response(LATER).subs(numbers)
    product = sympy.cancel((first * second).subs(numbers).subs(z, 1 / w))
    expected = sympy.Poly(sympy.series(product, w, 0, 8).removeO(), w)
    for step in range(8):
        difference = formula.subs(LATER, step) - expected.coeff_monomial(w**step)
        assert abs(sympy.N(difference, 30)) < 1e-25
    found = both.poles()
    assert len(found) == both.A.rows
    assert [each for each, _ in itertools.groupby(found)] == list(dict.fromkeys(found))


def test_poles_that_are_nearly_equal_are_two() -> None:
    """Exact numbers and symbols are not merged, however close they are."""
    near = sympy.Rational(1, 2) + sympy.Rational(1, 10**40)
    x, y = sympy.symbols("x y", positive=True)
    for first, second in (
        (sympy.Rational(1, 2), near),
        (x, x + near - sympy.Rational(1, 2)),
        (x, y),
    ):
        system = symbolic.LinearRecurrence([[first, 1], [0, second]])
        assert len(set(system.poles())) == 2


def test_roots_that_are_written_differently_are_one() -> None:
    x = sympy.Symbol("x", positive=True)
    y, f = sympy.Symbol("y"), sympy.Function("f")(sympy.Symbol("t"))
    assert is_same(sympy.sqrt(x**2 * 2), x * sympy.sqrt(2))
    assert is_same(sympy.exp(-y), 1 / sympy.exp(y))
    assert is_same((y + 1) ** 2, y**2 + 2 * y + 1)
    assert not is_same(sympy.sqrt(y**2), y)  # at some complex y only
    assert not is_same(f, f + 1) and not is_same(1 / y, -1 / y) and not is_same(sympy.zoo, y)


ROOT = sympy.sqrt(2)
NUMBERS = {
    "decimals": ([0.1, 0.3], [0.1]),
    "decimals and a sum": ([0.1, 0.3], [0.1 + 0.2]),
    "three": ([0.3, 0.2], [0.3, 0.1 + 0.2]),
    "zeros": ([0.0, 0.5], [0.0]),
    "pairs": ([0.1 + 0.2j, 0.1 - 0.2j], [0.1 + 0.2j, 0.1 - 0.2j]),
    "a radical": ([sympy.Rational(1, 2), ROOT / 2], [ROOT / 2]),
    "radicals": ([ROOT - 1, sympy.Rational(1, 3)], [sympy.sqrt(3 - 2 * ROOT)]),
}


@pytest.mark.parametrize("poles", NUMBERS)
def test_numbers_that_are_equal_but_for_roundings_are_one_pole(poles: str) -> None:
    """Their formulas had differences of nearly equal terms, divided by roundings, or by zero."""
    first, second = NUMBERS[poles]
    both = symbolic.series(
        symbolic.LinearRecurrence.from_zpk([0] * len(first), first, 1),
        symbolic.LinearRecurrence.from_zpk([0] * len(second), second, 1),
    )
    formula = both.impulse_response(LATER)
    denominator = np.poly([complex(each) for each in (*first, *second)])
    expected = signal.lfilter([1.0], denominator, [1.0] + [0.0] * 11)
    found = [complex(sympy.N(formula.subs(LATER, step))) for step in range(12)]
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("poles", [each for each in NUMBERS if each != "zeros"])
def test_shared_poles_in_continuous_time(poles: str) -> None:
    first, second = ([-each for each in some] for some in NUMBERS[poles])
    both = symbolic.series(
        symbolic.StateSpace.from_zpk([], first, 1), symbolic.StateSpace.from_zpk([], second, 1)
    )
    time = sympy.Symbol("s", positive=True)
    formula = both.impulse_response(time)
    A, B, C = (np.array(each.tolist(), dtype=float) for each in (both.A, both.B, both.C))
    for at in (0.25, 1.0, 4.0):
        expected = (C @ linalg.expm(A * at) @ B).item()
        assert abs(complex(sympy.N(formula.subs(time, at))) - expected) < 1e-11
