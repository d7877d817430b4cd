"""Conversion of arguments to symbolic matrices, with checks."""

from collections.abc import Sequence
from numbers import Number
from typing import Any

import sympy
from sympy.core.function import AppliedUndef
from sympy.matrices import MatrixBase

Matrix = sympy.ImmutableDenseMatrix

# Above these numbers of operations, an expression is not simplified thoroughly, and one with
# complex coefficients is not factored over them.
LONG, LONG_COMPLEX = 80, 40


def as_expression(name: str, value: object) -> sympy.Expr:
    """Convert a sympy expression or a number; refuse strings, which sympy would evaluate."""
    if isinstance(value, str):
        raise TypeError(
            f"`{name}` is the string {value!r}: expected a sympy expression. Strings are never "
            "evaluated; make the symbols with `sympy.symbols` and write the expression with them."
        )
    if isinstance(value, Number) and not isinstance(value, bool):
        value = sympy.sympify(value, strict=True)
    if not isinstance(value, sympy.Expr) or not value.is_commutative:
        raise TypeError(
            f"`{name}` is of type {type(value).__name__}: expected a sympy expression or a number."
        )
    return value


def as_entry(name: str, value: object) -> sympy.Expr:
    """Convert an entry of a matrix, which must not contain undefined functions."""
    entry = as_expression(name, value)
    unknown = sorted(map(str, entry.atoms(AppliedUndef)))
    if unknown:
        raise ValueError(
            f"`{name}` holds {', '.join(unknown)}: expected parameters and known functions of "
            "them. Equations of functions of time are read by `from_equations`."
        )
    if entry.has(sympy.nan, sympy.zoo, sympy.oo):
        raise ValueError(f"`{name}` has the entry {entry}: expected finite ones.")
    return entry


def as_matrix(name: str, value: object) -> Matrix:
    """Convert a sympy matrix or nested lists of expressions."""
    if isinstance(value, MatrixBase):
        rows: Sequence[Sequence[object]] = value.tolist()
    elif isinstance(value, Sequence) and not isinstance(value, str):
        if not all(isinstance(row, Sequence) and not isinstance(row, str) for row in value):
            raise ValueError(f"`{name}` is {value!r}: expected a matrix, a list of rows.")
        rows = value
    else:
        raise TypeError(
            f"`{name}` is of type {type(value).__name__}: expected a sympy Matrix or nested lists "
            "of sympy expressions."
        )
    if not rows or not rows[0] or len({len(row) for row in rows}) > 1:
        raise ValueError(f"`{name}` is {value!r}: expected rows of one length, one entry or more.")
    return Matrix([[as_entry(name, entry) for entry in row] for row in rows])


def check_shape(name: str, matrix: Matrix, rows: int | None, columns: int | None) -> None:
    """Refuse a matrix that does not fit the others."""
    expected = (matrix.rows if rows is None else rows, matrix.cols if columns is None else columns)
    if matrix.shape != expected:
        turned = f" Pass `{name}.T`." if matrix.shape == expected[::-1] else ""
        raise ValueError(
            f"`{name}` has shape {matrix.shape}: expected {expected}, to fit the others.{turned}"
        )


def tidy(expression: sympy.Expr) -> sympy.Expr:
    """Simplify an expression, thoroughly only if it is short."""
    operations, is_complex = expression.count_ops(), expression.has(sympy.I)
    if expression.is_rational_function(*expression.free_symbols):
        if is_complex and operations > LONG_COMPLEX:
            return factor_real_parts(expression)
        return sympy.factor(expression)  # type: ignore[return-value]  # a factored Expr is one
    short = operations < (LONG_COMPLEX if is_complex else LONG)
    return sympy.simplify(expression) if short else sympy.factor_terms(expression)


def factor_real_parts(expression: sympy.Expr) -> sympy.Expr:
    """Write a rational function with complex coefficients as (a + i b) / (c + i d), each factored.

    a, b, c and d have rational coefficients, and common factors of all four are cancelled. Factors
    with complex coefficients are not: sympy finds them by remainder sequences over Z[i], which may
    take hours with three symbols; over Z they take a moment.
    """
    i = sympy.Dummy("i")
    fraction = sympy.fraction(sympy.together(expression.xreplace({sympy.I: i})))
    symbols = sorted(expression.free_symbols, key=str)
    parts = []
    for polynomial in fraction:
        rest = sympy.Poly(sympy.expand(polynomial), i).rem(sympy.Poly(i**2 + 1, i))
        parts += [rest.coeff_monomial(1), rest.coeff_monomial(i)]
    if parts[0] == parts[1] == 0:
        return sympy.Integer(0)
    if not symbols:
        return sympy.factor(expression)  # type: ignore[return-value]  # a factored Expr is one
    common = sympy.Poly(0, *symbols)
    for part in parts:
        common = common.gcd(sympy.Poly(part, *symbols))
    a, b, c, d = (
        sympy.factor(sympy.Poly(part, *symbols).exquo(common).as_expr()) for part in parts
    )
    return (a + sympy.I * b) / (c + sympy.I * d)


def tidy_matrix(matrix: sympy.MatrixBase) -> Matrix:
    """Simplify every entry of a matrix."""
    return Matrix(matrix.applyfunc(tidy))


def is_zero(expression: sympy.Expr) -> bool:
    """Whether an expression vanishes for all values of its symbols, as far as sympy can see."""
    known = expression.is_zero
    return tidy(expression).is_zero is True if known is None else known


def exact(matrix: sympy.MatrixBase) -> Matrix:
    """Convert floating-point numbers to fractions; doubles as the decimals that they stand for."""
    return Matrix(matrix.xreplace({each: as_fraction(each) for each in matrix.atoms(sympy.Float)}))


def as_fraction(number: Any) -> Any:
    """Convert a double to its shortest decimal, 0.1 to 1/10, and longer numbers exactly.

    The fraction of 55 bits that 0.1 is would stay in all formulas, and poles that are equal as
    decimals would differ by roundings.
    """
    if isinstance(number, float) or number == float(number):
        return sympy.Rational(repr(float(number)))
    return sympy.Rational(number)


def to_float(expression: sympy.Expr) -> sympy.Expr:
    """Convert numbers to floating point, except integers."""
    return expression.evalf()


def is_real(expression: sympy.Expr) -> bool:
    """Whether an expression is known to be real wherever it is defined.

    sympy's own `is_real` is unknown for 1/b, because b may be 0.
    """
    if expression.is_real is not None:
        return expression.is_real
    if not all(symbol.is_real for symbol in expression.free_symbols):
        return False
    return expression.as_real_imag()[1] == 0


def block_size(A: sympy.MatrixBase) -> int:
    """Find the size of the smallest equal diagonal blocks that hold all of A."""
    n = A.rows
    for size in range(1, n):
        outside = (
            A[i, j] for i in range(n) for j in range(n) if n % size == 0 and i // size != j // size
        )
        if n % size == 0 and not any(outside):
            return size
    return n


def scalar_or_matrix(response: sympy.MatrixBase) -> sympy.Expr | Matrix:
    """Return the matrix, or its one entry for a system of one input and one output."""
    return response[0, 0] if response.shape == (1, 1) else Matrix(response)
