"""Matrix products in whole-number arithmetic: as many digits as needed, then one rounding.

A floating-point number is a whole number over a power of two, so that numpy's arrays of Python
integers hold matrices in fixed point without any rounding. Slow (about 0.1 µs a multiplication),
and for small matrices only.
"""

import numpy as np

# Bits after the binary point: twice the 53 of a double, and room for a condition number of 2^150.
POINT = 256

# A starting inverse may be off by less than 1 in norm; Newton's iteration squares the residual.
ITERATIONS = 12


def similar(A: np.ndarray, basis: np.ndarray, inverse: np.ndarray) -> np.ndarray | None:
    """Compute T⁻¹ A T with every entry rounded once, however ill-conditioned T is.

    Args:
        A (n, n): the matrix, real.
        basis (n, n): T, real; taken as exact.
        inverse (n, n): an approximation of T⁻¹, better than one digit.

    Returns:
        The product, `(n, n)`, with an error of one rounding of each entry and 2^-100 of the
        largest; None where the approximate inverse is too far off to be refined.
    """
    exact, turned = to_fixed(basis), to_fixed(A)
    refined = refine_inverse(exact, to_fixed(inverse))
    if refined is None:
        return None
    return to_float(multiply(multiply(refined, turned), exact))


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


def to_fixed(array: np.ndarray) -> np.ndarray:
    """Write doubles as whole multiples of 2^-POINT, smaller digits cut off."""
    mantissas, exponents = np.frexp(np.asarray(array, np.float64))
    whole = np.ldexp(mantissas, 53).astype(np.int64).astype(object)
    shifts = (exponents.astype(np.int64) - 53 + POINT).astype(object)
    return shift(whole, shifts)


def to_float(array: np.ndarray) -> np.ndarray:
    """Round whole multiples of 2^-POINT to doubles, each correctly."""
    one = 1 << POINT
    return np.array([entry / one for entry in array.flat], np.float64).reshape(array.shape)


def shift(whole: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Multiply whole numbers by powers of two."""
    moved = [
        number << by if by >= 0 else number >> -by
        for number, by in zip(whole.flat, shifts.flat, strict=True)
    ]
    return np.array(moved, object).reshape(whole.shape)
