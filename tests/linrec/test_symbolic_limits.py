"""Formulas of high order in free symbols finish, or are refused with an alternative."""

# sympy's annotations are narrower than what it does.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false

import pytest
import sympy

from linrec import symbolic
from linrec.symbolic import LinearRecurrence, NoClosedForm, StateSpace
from linrec.symbolic.functions import is_seen_irreducible

p = sympy.Symbol("p", positive=True)
s, z = sympy.symbols("s z")


@pytest.mark.parametrize("order", [12, pytest.param(30, marks=pytest.mark.slow)])
def test_formulas_of_high_order_end_or_are_refused(order: int) -> None:
    symbols = sympy.symbols(f"a1:{order + 1}", real=True)
    denominator = s**order + sum(c * s ** (order - 1 - i) for i, c in enumerate(symbols))
    for realization in ("controllable", "observable"):
        companion = StateSpace.from_transfer_function(1 / denominator, s, realization)
        assert sympy.expand(1 / companion.transfer_function(s)) == denominator
        assert isinstance(companion.discretize(p), symbolic.Discretized)
        assert isinstance(companion.discretize(p, "bilinear"), symbolic.Discretized)
    for call in (
        companion.poles,
        companion.stability_conditions,
        lambda: companion.impulse_response(p),
    ):
        with pytest.raises(NoClosedForm, match="`bind`"):
            call()


def test_a_full_matrix_of_free_symbols_is_refused() -> None:
    full = LinearRecurrence(sympy.Matrix(8, 8, lambda i, j: sympy.Symbol(f"m{i}_{j}")))
    for call in (full.poles, full.stability_conditions, lambda: full.transfer_function(z)):
        with pytest.raises(NoClosedForm, match="too many free symbols"):
            call()


def test_what_is_seen_to_be_irreducible_is() -> None:
    """sympy's factorisation, which draws at random, is asked where it ends quickly."""
    a, b, c = sympy.symbols("a b c")
    x = sympy.Symbol("x")
    pieces = [x + a, x - 2, x**2 + b, x**2 + a * x + c, x**3 + a * x + b * c + 1, a * x**2 + b / c]
    products = [*pieces, *(one * other for one in pieces for other in pieces)]
    seen = 0
    for product in products:
        polynomial = sympy.Poly(sympy.expand(product), x)
        factors = sum(multiplicity for _, multiplicity in polynomial.factor_list()[1])
        if is_seen_irreducible(polynomial):
            seen += 1
            assert factors == 1
    assert seen >= 4
