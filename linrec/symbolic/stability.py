"""Stability as inequalities between the coefficients of the characteristic polynomial."""

# sympy's annotations are narrower, or wider, than its behaviour.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

import sympy
from sympy.core.relational import Relational
from sympy.logic.boolalg import BooleanAtom

from linrec.symbolic.matrices import exact, is_zero, tidy
from linrec.symbolic.polynomials import characteristic_polynomial, determinant

Conditions = tuple[Relational | BooleanAtom, ...]


def hurwitz(A: sympy.MatrixBase) -> Conditions:
    """State when all eigenvalues have a negative real part."""
    return real_parts_negative(real_polynomial(A))


def schur(A: sympy.MatrixBase) -> Conditions:
    """State when all eigenvalues are inside the unit circle.

    z = (1 + s)/(1 - s) maps the left half-plane into the unit circle, so these are the Hurwitz
    conditions for (1 - s)ⁿ p((1 + s)/(1 - s)), which are equivalent to Jury's.

    References:
        Jury 1964, Theory and Application of the z-Transform Method, chapter 3.
    """
    polynomial = real_polynomial(A)
    s, n = polynomial.gen, polynomial.degree()
    terms = [
        coefficient * (1 + s) ** (n - i) * (1 - s) ** i
        for i, coefficient in enumerate(polynomial.all_coeffs())
    ]
    mapped = sympy.Poly(sympy.expand(sum(terms)), s)
    if mapped.degree() < n:  # a root at -1, on the circle
        return (sympy.false,)
    return real_parts_negative(mapped)


def real_polynomial(A: sympy.MatrixBase) -> sympy.Poly:
    """Compute a real polynomial that is stable when det(s I - A) is.

    For a real system it is p = det(s I - A) itself. For a complex one it is p times the polynomial
    with the conjugate coefficients, whose roots are the conjugates of the roots of p.
    """
    s = sympy.Dummy("s")
    taken = {symbol: sympy.Dummy(symbol.name, real=True) for symbol in A.free_symbols}
    taken = {symbol: real for symbol, real in taken.items() if symbol.is_real is None}
    polynomial = characteristic_polynomial(exact(A).xreplace(taken), s)
    parts = [coefficient.as_real_imag() for coefficient in polynomial.all_coeffs()]
    if any(not is_zero(imaginary) for _, imaginary in parts):
        if taken:
            names = ", ".join(sorted(symbol.name for symbol in taken))
            raise ValueError(
                f"The system is complex, and it is not known whether {names} are real: expected "
                'symbols that are declared to be, `sympy.Symbol("a", real=True)`.'
            )
        real, imaginary = (sympy.Poly([part[i] for part in parts], s) for i in (0, 1))
        polynomial = real * real + imaginary * imaginary
    back = {real: symbol for symbol, real in taken.items()}
    return sympy.Poly([c.xreplace(back) for c in polynomial.all_coeffs()], s)


def real_parts_negative(polynomial: sympy.Poly) -> Conditions:
    """State when all roots of a real polynomial have a negative real part.

    Of a₀ sⁿ + … + a_n with a₀ > 0 the conditions of Routh and Hurwitz are that all leading minors
    Δ₁ … Δ_n of the matrix H_ij = a_{2j-i} are positive. Liénard and Chipart need only every
    second one, and the coefficients: a₀ … a_n > 0 and Δ_{n-1}, Δ_{n-3}, … > 0.

    References:
        Gantmacher 1959, The Theory of Matrices, volume 2, chapter XV, sections 6 and 13.
    """
    coefficients, n = polynomial.all_coeffs(), polynomial.degree()
    known = dict(enumerate(coefficients))
    matrix = sympy.Matrix(n, n, lambda i, j: known.get(2 * (j + 1) - (i + 1), 0))
    minors = [determinant(matrix[:k, :k]) for k in range(n - 1, 1, -2)]
    return positive([*coefficients, *minors])


def positive(expressions: list[sympy.Expr]) -> Conditions:
    """List the inequalities expression > 0, without duplicates and tautologies."""
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
