"""Matrix products in whole-number arithmetic: as many digits as needed, then one rounding.

A floating-point number is a whole number times a power of two, so that numpy's arrays of Python
integers hold matrices in fixed point without any rounding. Slow (about 0.1 µs a multiplication),
and for small matrices only.
"""

import math

import numpy as np

# Bits after the binary point: twice the 53 of a double, and room for a condition number of 2^150.
POINT = 256

# A starting inverse may be off by less than 1 in norm; Newton's iteration squares the residual.
ITERATIONS = 12


def similar(A: np.ndarray, basis: np.ndarray, inverse: np.ndarray) -> np.ndarray | None:
    """Compute T⁻¹ A T with every entry rounded once, however ill-conditioned T is.

    Rows and columns of T are scaled by powers of two first, T = R T' S, so that numbers of any size
    fit: T⁻¹ A T = S⁻¹ T'⁻¹ (R⁻¹ A R) T' S, in which all scaling is exact.

    Args:
        A (n, n): the matrix, real.
        basis (n, n): T, real; taken as exact.
        inverse (n, n): an approximation of T⁻¹, better than one digit.

    Returns:
        The product, `(n, n)`, with an error of one rounding of each entry and 2^-100 of the
        largest in the scaled coordinates, S = 1; None where the approximate inverse is too far off
        to be refined.
    """
    if not (np.isfinite(A).all() and np.isfinite(basis).all() and np.isfinite(inverse).all()):
        return None
    rows, columns = largest_exponents(basis)
    exact = to_fixed(basis, -rows[:, None] - columns)
    refined = refine_inverse(exact, to_fixed(inverse, columns[:, None] + rows))
    if refined is None:
        return None
    # The digits of R⁻¹ A R, however far apart, are all kept.
    moves = rows - rows[:, None]
    exponents = np.frexp(A)[1] + moves
    digits = 53 - int(exponents[A != 0].min(initial=53))
    turned = to_fixed(A, moves + digits - POINT)
    return to_float(refined @ turned @ exact, columns - columns[:, None] - digits - 2 * POINT)


def largest_exponents(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find exponents of two of the largest entries of rows, and of columns of the scaled rows."""
    smallest = -(1 << 20)
    exponents = np.where(matrix == 0, smallest, np.frexp(matrix)[1].astype(np.int64))
    rows = exponents.max(1)
    return rows, (exponents - rows[:, None]).max(0)


def refine_inverse(matrix: np.ndarray, inverse: np.ndarray) -> np.ndarray | None:
    """Improve an approximate inverse by Newton's iteration, X ← X + X (I - M X), in fixed point."""
    identity = to_fixed(np.eye(len(matrix)))
    worst = float("inf")
    for _ in range(ITERATIONS):
        residual = identity - multiply(matrix, inverse)
        size = float(np.abs(to_float(residual)).sum(-1).max())
        if size < 2.0**-110:
            return inverse
        if not size < min(worst, 0.9):
            return None
        worst = size
        inverse = inverse + multiply(inverse, residual)
    return None


def multiply(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Multiply two matrices in fixed point."""
    return (left @ right) >> POINT


def to_fixed(array: np.ndarray, scale: np.ndarray | int = 0) -> np.ndarray:
    """Write doubles times 2^scale as whole multiples of 2^-POINT, smaller digits cut off."""
    mantissas, exponents = np.frexp(np.asarray(array, np.float64))
    whole = np.ldexp(mantissas, 53).astype(np.int64).astype(object)
    return shift(whole, exponents.astype(np.int64) - 53 + POINT + scale)


def to_float(array: np.ndarray, scale: np.ndarray | int = -POINT) -> np.ndarray:
    """Round whole numbers times 2^scale to doubles, each correctly."""
    scales = np.broadcast_to(scale, array.shape).flat
    rounded = [divide(entry, int(by)) for entry, by in zip(array.flat, scales, strict=True)]
    return np.array(rounded, np.float64).reshape(array.shape)


def divide(whole: int, exponent: int) -> float:
    """Round a whole number times a power of two, correctly; beyond the range it is infinite."""
    try:
        return float(whole << exponent) if exponent >= 0 else whole / (1 << -exponent)
    except OverflowError:
        return math.copysign(math.inf, whole)


def shift(whole: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Multiply whole numbers by powers of two."""
    moved = [
        number << by if by >= 0 else number >> -by
        for number, by in zip(whole.flat, shifts.astype(object).flat, strict=True)
    ]
    return np.array(moved, object).reshape(whole.shape)
