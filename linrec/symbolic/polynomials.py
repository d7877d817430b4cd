"""Characteristic polynomials, resolvents and inverses of matrices of expressions, of bounded size.

Formulas in free symbols grow fast: the determinant of a full matrix of order n has n! terms.
Everything here is computed without divisions, in a ring of polynomials whose terms can be counted;
results that would exceed `LIMIT` are refused, where sympy would go on for hours.

With p(σ) = det(σ I - A) = Σ_k c_k σ^(n-k), the resolvent is (Faddeev and Leverrier)

    (σ I - A)⁻¹ B = Σ_k σ^(n-1-k) V_k / p(σ)        V_0 = B        V_k = A V_{k-1} + c_k B

and p itself is computed by Berkowitz's method, from the leading submatrices.

References:
    Berkowitz 1984, On computing the determinant in small parallel time using a small number of
    processors. Gantmacher 1959, The Theory of Matrices, volume 1, chapter IV, section 5.
"""

# sympy's annotations are narrower, or wider, than its behaviour.
# pyright: reportReturnType=false, reportArgumentType=false

from dataclasses import dataclass
from typing import Any

import sympy
from sympy.polys.domains.domain import Domain
from sympy.polys.matrices import DomainMatrix
from sympy.polys.matrices.exceptions import DMNonInvertibleMatrixError
from sympy.polys.polyerrors import CoercionFailed

Rows = list[list[Any]]

# Products of two terms, more for terms of many symbols: about a second.
LIMIT = 60_000
# Terms of a numerator times terms of its denominator, summed over the entries of an inverse.
LONGEST_INVERSE = 2_000


class NoClosedForm(ValueError):
    """No closed form exists, or none of a usable size."""


@dataclass
class Counter:
    """Counts products of terms, and refuses to go on at a limit."""

    left: int
    weight: int = 1

    def product(self, first: Any, second: Any) -> Any:
        """Multiply two elements of a domain."""
        self.left -= terms(first) * terms(second) * self.weight
        if self.left < 0:
            raise too_large()
        return first * second

    def times(self, rows: Rows, columns: Rows, zero: Any) -> Rows:
        """Multiply two matrices."""
        made = [[zero] * len(columns[0]) for _ in rows]
        for i, row in enumerate(rows):
            for k, left in enumerate(row):
                if not left:
                    continue
                for j, right in enumerate(columns[k]):
                    if right:
                        made[i][j] += self.product(left, right)
        return made


def terms(element: Any) -> int:
    """Count the terms of a polynomial; a number counts one for each 64 bits."""
    if hasattr(element, "__len__"):
        return len(element)
    digits = getattr(element, "numerator", 0)
    return 1 + digits.bit_length() // 64 if isinstance(digits, int) else 1


def too_large() -> NoClosedForm:
    """Make the error for a formula of too many terms."""
    return NoClosedForm(
        "The formula would have more terms than can be computed with: too many free symbols for "
        "the order of the system. Put numbers in the place of some, `system.subs({a: 2})`, or "
        "`bind` all of them and ask `linrec` for numbers."
    )


@dataclass(frozen=True)
class RingMatrix:
    """A matrix of numerators in a domain without divisions, over a common denominator."""

    rows: Rows
    denominator: sympy.Expr
    domain: Domain

    def counter(self, limit: int = LIMIT) -> Counter:
        """Make a counter for calculations with the entries."""
        weight = 20 if self.domain.is_EX else 1 + getattr(self.domain, "ngens", 0) // 8
        return Counter(limit, weight)

    def expression(self, element: Any) -> sympy.Expr:
        """Convert an element of the domain to an expression."""
        return self.domain.to_sympy(element)


def domain_matrices(*matrices: sympy.MatrixBase) -> list[DomainMatrix]:
    """Convert matrices to one domain, the field of expressions if sympy finds no other."""
    entries = [entry for matrix in matrices for entry in matrix.flat()]
    domain, _ = sympy.construct_domain(entries, field=True)
    if domain.is_RR or domain.is_CC or not domain.is_Exact:
        domain = sympy.EX
    try:
        return [
            DomainMatrix.from_Matrix(sympy.Matrix(m)).convert_to(domain).to_dense()
            for m in matrices
        ]
    except (CoercionFailed, TypeError):  # sympy 1.14 cannot unify CC and polynomials
        return [DomainMatrix.from_Matrix(sympy.Matrix(m)).convert_to(sympy.EX) for m in matrices]


def ring_matrices(*matrices: sympy.MatrixBase) -> list[RingMatrix]:
    """Convert matrices to numerators over a denominator each, all in one domain."""
    made = []
    for matrix in domain_matrices(*matrices):
        if matrix.domain.has_assoc_Ring and matrix.domain.is_Composite:
            denominator, cleared = matrix.clear_denoms(convert=True)
            made.append(RingMatrix(cleared.to_list(), denominator.to_sympy(), cleared.domain))
        else:
            made.append(RingMatrix(matrix.to_list(), sympy.Integer(1), matrix.domain))
    return made


def berkowitz(rows: Rows, domain: Domain, counter: Counter) -> list[Any]:
    """Compute the coefficients of det(σ I - A), highest power first."""
    coefficients = [domain.one]
    for r, row in enumerate(rows):
        leading = [each[:r] for each in rows[:r]]
        column = [[each[r]] for each in rows[:r]]
        first = [domain.one, -row[r]]
        for _ in range(r):
            first.append(-counter.times([row[:r]], column, domain.zero)[0][0])
            column = counter.times(leading, column, domain.zero)
        longer = [domain.zero] * (r + 2)
        for i in range(r + 2):
            for j, known in enumerate(coefficients[: i + 1]):
                if known and first[i - j]:
                    longer[i] += counter.product(first[i - j], known)
        coefficients = longer
    return coefficients


def monic_coefficients(matrix: RingMatrix) -> list[Any]:
    """Compute the coefficients of det(σ I - A) for the matrix of numerators.

    The two orders of the states differ in cost: for a companion matrix, one order has no terms
    except those of the result, the other as many as n has partitions. Both are first tried with a
    small limit.
    """
    turned = [row[::-1] for row in matrix.rows[::-1]]
    for rows, limit in ((matrix.rows, LIMIT // 6), (turned, LIMIT // 6), (turned, LIMIT)):
        try:
            return berkowitz(rows, matrix.domain, matrix.counter(limit))
        except NoClosedForm:
            continue
    raise too_large()


def characteristic_polynomial(A: sympy.MatrixBase, variable: sympy.Symbol) -> sympy.Poly:
    """Compute det(λ I - A).

    Raises:
        NoClosedForm: it has too many terms.
    """
    (matrix,) = ring_matrices(A)
    below = matrix.denominator
    coefficients = [matrix.expression(c) for c in monic_coefficients(matrix)]
    if below != 1:
        coefficients = [sympy.cancel(c / below**power) for power, c in enumerate(coefficients)]
    return sympy.Poly(coefficients, variable)


def determinant(matrix: sympy.MatrixBase) -> sympy.Expr:
    """Compute a determinant.

    Raises:
        NoClosedForm: it has too many terms.
    """
    (ring,) = ring_matrices(matrix)
    last = ring.expression(monic_coefficients(ring)[-1])
    return (-1) ** matrix.rows * last / ring.denominator**matrix.rows


def resolvent(
    A: sympy.MatrixBase, B: sympy.MatrixBase, C: sympy.MatrixBase, variable: sympy.Symbol
) -> tuple[sympy.Matrix, sympy.Expr]:
    """Compute C (s I - A)⁻¹ B as numerators `(p, m)` over a denominator, without cancelling.

    Raises:
        NoClosedForm: it has too many terms.
    """
    matrix, inward, outward = ring_matrices(A, B, C)
    domain, n = matrix.domain, len(matrix.rows)
    coefficients, counter = monic_coefficients(matrix), matrix.counter()
    numerators = sympy.zeros(len(outward.rows), len(inward.rows[0]))
    # With A = M / d and σ = d s the resolvent is d (σ I - M)⁻¹.
    d = matrix.denominator
    V = inward.rows
    for k in range(n):
        if k:
            V = add_multiple(
                counter.times(matrix.rows, V, domain.zero), inward.rows, coefficients[k], counter
            )
        read = counter.times(outward.rows, V, domain.zero)
        part = sympy.Matrix([[matrix.expression(each) for each in row] for row in read])
        numerators += part * (d ** (n - k) * variable ** (n - 1 - k))
    below = sum(
        matrix.expression(c) * (d * variable) ** (n - k) for k, c in enumerate(coefficients)
    )
    scale = outward.denominator * inward.denominator
    return numerators, below * scale


def add_multiple(total: Rows, rows: Rows, factor: Any, counter: Counter) -> Rows:
    """Add a multiple of a matrix."""
    return [
        [
            each + counter.product(factor, other) if factor and other else each
            for each, other in zip(row, given, strict=True)
        ]
        for row, given in zip(total, rows, strict=True)
    ]


def apply_power(
    A: sympy.MatrixBase, B: sympy.MatrixBase, exponent: int
) -> sympy.ImmutableDenseMatrix:
    """Compute A^k B for a number k.

    Raises:
        NoClosedForm: it has too many terms, or digits.
    """
    if exponent == 0:
        return sympy.ImmutableDenseMatrix(B)
    matrix, inward = ring_matrices(A, B)
    counter, zero, V = matrix.counter(), matrix.domain.zero, inward.rows
    try:
        for _ in range(exponent):
            counter.left -= 1
            V = counter.times(matrix.rows, V, zero)
    except NoClosedForm:
        raise NoClosedForm(
            f"A^{exponent} B has too many terms or digits: expected fewer steps. Pass a symbol k "
            "for the formula, or `bind` the system and ask `linrec.impulse_response` for numbers."
        ) from None
    below = matrix.denominator**exponent * inward.denominator
    return sympy.ImmutableDenseMatrix([[matrix.expression(v) / below for v in row] for row in V])


def inverse(matrix: sympy.MatrixBase) -> sympy.ImmutableDenseMatrix | None:
    """Invert a matrix over the rational functions of its symbols.

    Returns:
        The inverse, whose entries are in lowest terms; None if there is none.

    Raises:
        NoClosedForm: it has too many terms.
    """
    (whole,) = domain_matrices(matrix)
    if not whole.domain.is_Composite:
        try:
            return sympy.ImmutableDenseMatrix(whole.to_field().inv().to_Matrix())
        except DMNonInvertibleMatrixError:
            return None
    n, s = matrix.rows, sympy.Dummy()
    numerators, below = resolvent(-matrix, sympy.eye(n), sympy.eye(n), s)
    numerators, below = numerators.subs(s, 0), sympy.expand(below.subs(s, 0))
    if below == 0:
        return None
    sizes = sum(len(sympy.Add.make_args(each)) for each in numerators.flat())
    if sizes * len(sympy.Add.make_args(below)) > LONGEST_INVERSE:
        raise too_large()
    return sympy.ImmutableDenseMatrix(numerators.applyfunc(lambda each: sympy.cancel(each / below)))
