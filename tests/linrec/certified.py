"""Exponentials with proven bounds, by ball arithmetic (python-flint's arb) of sufficient precision.

`exponential` returns the nearest doubles to entries whose error is bounded by arb itself, and
`after_one_rounding` how far these move if each entry of A changes by one unit roundoff.
"""

from typing import Any

import numpy as np
import pytest

UNIT = np.finfo(float).eps / 2  # the unit roundoff u


def exponential(A: np.ndarray, step: float = 1.0) -> np.ndarray:
    """Compute exp(A·step), both taken for the exact numbers that they are."""
    flint = pytest.importorskip("flint")
    before = flint.ctx.prec
    try:
        for bits in (300, 1000, 4000):  # order 8 in GHz has entries of 1e78
            flint.ctx.prec = bits
            balls: Any = flint.arb_mat([[flint.arb(float(entry)) for entry in row] for row in A])
            flat = (balls * flint.arb(float(step))).exp().entries()
            radii = np.array([float(ball.rad()) for ball in flat])
            middle = np.array([float(ball.mid()) for ball in flat])
            # Proven to more digits than a double has; or zero to all intents.
            if (radii <= np.maximum(1e-20 * np.abs(middle), 1e-300)).all():
                return middle.reshape(np.shape(A))
        raise AssertionError(f"{bits} bits do not prove the exponential: radii to {radii.max()}")
    finally:
        flint.ctx.prec = before


def augmented(A: np.ndarray, B: np.ndarray, ramp: bool = False) -> np.ndarray:
    """Write [[A, B], [0, 0]], or [[A, B, 0], [0, 0, I], [0, 0, 0]] (Van Loan 1978)."""
    n, m = B.shape
    result = np.zeros((n + m * (1 + ramp), n + m * (1 + ramp)))
    result[:n, :n], result[:n, n : n + m] = A, B
    if ramp:
        result[n : n + m, n + m :] = np.eye(m)
    return result


def after_one_rounding(A: np.ndarray, step: float = 1.0, pieces: int = 32) -> np.ndarray:
    """Bound how far exp(A·step) moves, to first order, if entries of A change by a unit roundoff.

    The derivative in the direction E is ∫₀¹ exp((1-r) Z) E exp(r Z) dr with Z = A·step, so that
    |E| ≤ u |Z| moves it by at most u ∫₀¹ |exp((1-r) Z)| |Z| |exp(r Z)| dr; the integral is a sum
    over pieces here, of products with a certified exponential of one piece. The result itself is
    rounded, which adds u |exp(Z)|.
    """
    powers = [np.eye(len(A))]
    piece = exponential(A, step / pieces)
    for _ in range(pieces):
        powers.append(powers[-1] @ piece)
    size = np.abs(A) * step
    terms = [np.abs(powers[k]) @ size @ np.abs(powers[pieces - k]) for k in range(pieces + 1)]
    return UNIT * (np.mean(terms, axis=0) + np.abs(powers[-1]))
