"""Closed forms of systems in series that share poles: equal poles of two blocks are one."""

import itertools

import pytest
import sympy

from linrec import symbolic

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
