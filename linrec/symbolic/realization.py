"""Matrices that have a given transfer function: companion forms, and the Padé delay.

They are derived in w, which is 1/s in continuous time and 1/z in discrete time. A proper rational
function is N(w) / D(w) with D(0) = 1, N = b₀ + b₁ w + … and D = 1 + a₁ w + … + a_n wⁿ.
"""

# sympy's annotations are narrower, or wider, than its behaviour.
# pyright: reportGeneralTypeIssues=false

from collections.abc import Sequence
from itertools import pairwise

import sympy

from linrec.symbolic.matrices import Matrix, as_expression, tidy
from linrec.symbolic.parameters import refuse_namesakes

REALIZATIONS = ("controllable", "observable", "balanced")
Matrices = tuple[Matrix, Matrix, Matrix, Matrix]


def realize(
    transfer: sympy.Expr, variable: sympy.Symbol, realization: str, *, discrete: bool
) -> Matrices:
    """Find A, B, C, D of a scalar transfer function.

    With A the companion matrix of D, first row -a₁ … -a_n and ones below the diagonal, and B the
    first unit vector, (I - w A)⁻¹ B = [1, w, …, w^(n-1)]ᵀ / D(w). A discrete system has the
    transfer function C (I - w A)⁻¹ B + D, so C holds the coefficients of N, after padding N and D
    with zeros to equal sizes. A continuous one has C w (I - w A)⁻¹ B + D: D is b₀, and C holds the
    coefficients of (N - b₀ D)/w.
    """
    if realization not in REALIZATIONS:
        raise ValueError(
            f"`realization` is {realization!r}: expected one of {', '.join(REALIZATIONS)}."
        )
    numerator, denominator = coefficients(transfer, variable)
    if discrete:
        numerator, denominator = trim(numerator), trim(denominator)
        n = max(len(denominator) - 1, len(numerator))
        C, D = pad(numerator, n), sympy.Integer(0)
    else:
        D = numerator[0]
        C = [b - D * a for a, b in zip(denominator, numerator, strict=True)][1:]
        n = len(C)
        if n == 0:  # a gain needs no state, but a system must have one: it stays 0
            return Matrix([[-1]]), Matrix([[0]]), Matrix([[0]]), Matrix([[D]])
    shift = [sympy.Integer(1)] * (n - 1)
    if realization == "balanced":
        shift = scales(pad(denominator, n + 1))
    return companion(pad(denominator, n + 1)[1:], shift, C, D, realization)


def companion(
    a: Sequence[sympy.Expr],
    shift: Sequence[sympy.Expr],
    C: Sequence[sympy.Expr],
    D: sympy.Expr,
    realization: str,
) -> Matrices:
    """Write the companion form, its states scaled such that `shift` is below the diagonal."""
    n, scale = len(a), [sympy.Integer(1)]
    for ratio in shift:
        scale.append(scale[-1] * ratio)
    A, B = sympy.zeros(n, n), sympy.zeros(n, 1)
    A[0, :] = sympy.Matrix([[-each / s for each, s in zip(a, scale, strict=True)]])
    for i, ratio in enumerate(shift):
        A[i + 1, i] = ratio
    B[0, 0] = 1
    read = sympy.Matrix([[each / s for each, s in zip(C, scale, strict=True)]])
    if realization == "observable":
        A, B, read = A.T, read.T, B.T
    tidy_matrices = (Matrix(matrix.applyfunc(sympy.cancel)) for matrix in (A, B, read))
    return *tidy_matrices, Matrix([[D]])  # type: ignore[return-value]  # three and one are four


def scales(denominator: Sequence[sympy.Expr]) -> list[sympy.Expr]:
    """Choose a_{i+1} / a_i for the entries below the diagonal, 1 where that is 0 or infinite.

    All entries of the first row are then -a₁. The entries of a companion matrix of several poles
    differ by orders of magnitude; these hardly differ.
    """
    one = sympy.Integer(1)
    return [
        one if a.is_zero or b.is_zero else sympy.cancel(b / a) for a, b in pairwise(denominator[1:])
    ]


def pad(values: Sequence[sympy.Expr], length: int) -> list[sympy.Expr]:
    """Add zeros."""
    return [*values, *[sympy.Integer(0)] * (length - len(values))]


def coefficients(
    transfer: sympy.Expr, variable: sympy.Symbol
) -> tuple[list[sympy.Expr], list[sympy.Expr]]:
    """Find the coefficients of N and D, by rising powers of w = 1 / variable."""
    transfer = as_expression("transfer_function", transfer)
    if not isinstance(variable, sympy.Symbol):
        raise TypeError(f"`variable` is {variable!r}: expected a symbol, s or z.")
    refuse_namesakes(variable, transfer.free_symbols)
    numerator, denominator = sympy.fraction(sympy.cancel(sympy.together(transfer)))
    try:
        N, D = sympy.Poly(numerator, variable), sympy.Poly(denominator, variable)
    except sympy.PolynomialError:
        N = D = None
    if N is None or D is None or variable in (N.free_symbols_in_domain | D.free_symbols_in_domain):
        raise ValueError(
            f"`{transfer}` is not a rational function of {variable}: expected a ratio of "
            "polynomials. For a delay pass `StateSpace.from_delay`, its Padé approximant."
        )
    if N.degree() > D.degree():
        raise ValueError(
            f"`{transfer}` has a numerator of degree {N.degree()} and a denominator of degree "
            f"{D.degree()}: expected it proper, since otherwise it asks for what is to come."
        )
    leading = D.LC()
    missing = D.degree() - max(N.degree(), 0)
    top = [sympy.Integer(0)] * missing + N.all_coeffs()
    below = D.all_coeffs()
    return [tidy(each / leading) for each in top], [tidy(each / leading) for each in below]


def trim(values: list[sympy.Expr]) -> list[sympy.Expr]:
    """Remove zeros at the end, but keep the first value."""
    while len(values) > 1 and values[-1].is_zero:
        values = values[:-1]
    return values


def from_roots(
    zeros: Sequence[object], poles: Sequence[object], gain: object, variable: sympy.Symbol
) -> sympy.Expr:
    """Write gain · Π (x - zero) / Π (x - pole)."""
    above = [variable - as_expression("zeros", zero) for zero in zeros]
    below = [variable - as_expression("poles", pole) for pole in poles]
    return as_expression("gain", gain) * sympy.Mul(*above) / sympy.Mul(*below)


def pade(theta: sympy.Expr, numerator: int, denominator: int, s: sympy.Symbol) -> sympy.Expr:
    """Approximate exp(-θ s) by a rational function of the given degrees p and q.

        N(s) = Σ_i C(p, i) (p+q-i)! (-θ s)^i        D(s) = Σ_i C(q, i) (p+q-i)! (θ s)^i

    It agrees with the delay in its first p + q + 1 derivatives at s = 0.

    References:
        Baker and Graves-Morris 1996, Padé Approximants, section 1.2.
    """
    p, q = numerator, denominator
    if not (isinstance(p, int) and isinstance(q, int) and 0 <= p <= q and q >= 1):
        raise ValueError(
            f"The orders are {p!r} and {q!r}: expected whole numbers, the numerator's at most "
            "that of the denominator, which is 1 or more."
        )

    def series(degree: int, z: sympy.Expr) -> sympy.Expr:
        weights = [
            sympy.binomial(degree, i) * sympy.factorial(p + q - i) for i in range(degree + 1)
        ]
        return sympy.Add(*[w * z**i for i, w in enumerate(weights)])

    return series(p, -theta * s) / series(q, theta * s)
