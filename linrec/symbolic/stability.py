"""Stability as inequalities between the coefficients of the characteristic polynomial."""

# sympy's annotations are narrower, or wider, than what it does.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

import sympy
from sympy.core.relational import Relational
from sympy.logic.boolalg import BooleanAtom

from linrec.symbolic.matrices import tidy

Conditions = tuple[Relational | BooleanAtom, ...]


def hurwitz(polynomial: sympy.Poly) -> Conditions:
    """State when all roots have a negative real part.

    Of a₀ sⁿ + … + a_n with a₀ > 0 the conditions of Routh and Hurwitz are that all leading minors
    Δ₁ … Δ_n of the matrix H_ij = a_{2j-i} are positive. Liénard and Chipart need only every
    second one, and the coefficients: a₀ … a_n > 0 and Δ_{n-1}, Δ_{n-3}, … > 0.

    References:
        Gantmacher 1959, The Theory of Matrices, volume 2, chapter XV, sections 6 and 13.
    """
    coefficients, n = polynomial.all_coeffs(), polynomial.degree()
    if any(coefficient.is_real is False for coefficient in coefficients):
        raise ValueError("The system is complex: expected one with real coefficients.")
    known = dict(enumerate(coefficients))
    matrix = sympy.Matrix(n, n, lambda i, j: known.get(2 * (j + 1) - (i + 1), 0))
    minors = [matrix[:k, :k].det(method="berkowitz") for k in range(n - 1, 1, -2)]
    return positive([*coefficients, *minors])


def schur(polynomial: sympy.Poly) -> Conditions:
    """State when all roots are inside the unit circle.

    z = (1 + s)/(1 - s) maps the left half of the plane into the circle, so that these are the
    conditions of Hurwitz for (1 - s)ⁿ p((1 + s)/(1 - s)), which are equivalent to Jury's.

    References:
        Jury 1964, Theory and Application of the z-Transform Method, chapter 3.
    """
    s, n = polynomial.gen, polynomial.degree()
    terms = [
        coefficient * (1 + s) ** (n - i) * (1 - s) ** i
        for i, coefficient in enumerate(polynomial.all_coeffs())
    ]
    mapped = sympy.Poly(sympy.expand(sum(terms)), s)
    if mapped.degree() < n:  # a root at -1, on the circle
        return (sympy.false,)
    return hurwitz(mapped)


def positive(expressions: list[sympy.Expr]) -> Conditions:
    """Write that all are positive; leave out what always is, and what is said twice."""
    found: dict[Relational | BooleanAtom, None] = {}
    for expression in expressions:
        condition = without_positive_factors(tidy(expression)) > 0
        if condition == sympy.false:
            return (sympy.false,)
        if condition != sympy.true:
            found[condition] = None
    return tuple(found)


def without_positive_factors(expression: sympy.Expr) -> sympy.Expr:
    """Divide by the factors that are known to be positive."""
    numerator, denominator = sympy.fraction(sympy.together(expression))
    product = sympy.Integer(1)
    for part in sympy.Mul.make_args(sympy.factor(numerator * denominator)):
        if part.is_positive:
            continue
        if part.is_number and part.is_negative:
            product = -product
            continue
        base, exponent = part.as_base_exp()
        product *= base if exponent.is_odd else part
    return product
