"""Coordinates in which a matrix hardly stretches any vector, so that its powers stay small.

The powers of a matrix can be far larger than its spectral radius suggests: for a sixth-order
low-pass filter with poles within 0.96 they reach 1.4e5 before they decay. Squaring such a power
multiplies rounding errors by the square of that. By Lyapunov's theorem every matrix of spectral
radius below r has coordinates in which its norm is below r: with P = Σ_k (A/r)^k (A/r)^k* and a
Cholesky factor P = L L*, the matrix L⁻¹ A L has norm r·sqrt(1 - 1/‖P‖) or less.

For r close to the radius P is too ill-conditioned to be factored. The search therefore lowers r in
stages, each in the coordinates of the one before, where the matrix is smaller already and the next
P is harmless. Only the product of all stages, T, is kept; T⁻¹ A T is then recomputed with enough
digits (`linrec.coordinates.whole_numbers`), so that the stages' own rounding errors do not matter.
"""

from typing import NamedTuple

import numpy as np

from linrec.coordinates import whole_numbers

# Stages end when the norm is this close to the target, or when there have been too many. Rounding
# errors of very ill-conditioned stages add up; another round then starts from the exact matrix.
CLOSE, STAGES, ROUNDS = 1e-3, 60, 4

# A Gramian of a stage may be this ill-conditioned.
LARGEST_GRAMIAN = 1e6

# Squarings within which a Gramian's sum has converged: 2^40 terms.
SQUARINGS = 40

# Values of r that are tried at once, between the target and the present norm.
TRIED, TRIED_LARGE = 7, 3
LARGE = 32

# Up to this size, n³ times the number of systems, matrices are transformed in whole numbers.
EXACT_PRODUCTS = 1 << 19


class Contraction(NamedTuple):
    """New coordinates x = T z of some matrices, and the matrices in them.

    Attributes:
        basis (systems, n, n): T.
        inverse (systems, n, n): T⁻¹.
        matrix (systems, n, n): T⁻¹ A T.
    """

    basis: np.ndarray
    inverse: np.ndarray
    matrix: np.ndarray


def contract(A: np.ndarray, length: int) -> Contraction:
    """Find coordinates in which the powers of matrices decay almost as their spectral radius does.

    Args:
        A (systems, n, n): real or complex matrices in double precision.
        length: the number of powers that matter.

    Returns:
        The coordinates. The norm of T⁻¹ A T is close to the mean of the spectral radius and 1, or,
        from a radius of 1 on, to 1 + 1/length times the radius; it is larger where no Gramian
        could be factored.
    """
    identity = np.broadcast_to(np.eye(A.shape[-1], dtype=A.dtype), A.shape)
    found = Contraction(identity.copy(), identity.copy(), A.copy())
    for _ in range(ROUNDS):
        # In better coordinates eigenvalues are more accurate, and so is the target.
        radius: np.ndarray = np.abs(np.linalg.eigvals(found.matrix)).max(-1)
        target = np.where(radius < 1, (1 + radius) / 2, radius * (1 + 1 / max(length, 1)))
        if is_close(found.matrix, target).all():
            break
        found = exactly(A, in_stages(found, target))
    return found


def is_close(matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return which matrices have a norm close to the target or below."""
    return np.linalg.norm(matrix, 2, axis=(-2, -1)) <= target * (1 + CLOSE)


def in_stages(found: Contraction, target: np.ndarray) -> Contraction:
    """Lower the norm in stages, each by a Gramian that is well enough conditioned."""
    basis, _, matrix = found
    for _ in range(STAGES):
        if is_close(matrix, target).all():
            break
        factor = stage(matrix, target)
        matrix = np.linalg.solve(factor, matrix @ factor)
        basis = basis @ factor
    return Contraction(basis, invert_triangular(basis), matrix)


def invert_triangular(basis: np.ndarray) -> np.ndarray:
    """Invert lower triangular matrices by forward substitution.

    A general inverse leaves rounding errors of the largest entries above the diagonal, where the
    exact inverse is zero. Rows of T differ by many orders of magnitude, so that such an error,
    times an entry of 1e8, costs T⁻¹ T five digits.

    References:
        Higham 2002, Accuracy and Stability of Numerical Algorithms, section 14.2.
    """
    inverse = np.zeros_like(basis)
    for row in range(basis.shape[-1]):
        before = basis[:, row, None, :row] @ inverse[:, :row]
        inverse[:, row] = -before[:, 0]
        inverse[:, row, row] += 1
        inverse[:, row] /= basis[:, row, row, None]
    return inverse


def stage(matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Find a Cholesky factor for each matrix, for the smallest r whose Gramian is harmless.

    Returns:
        The factors, `(systems, n, n)`; the identity where the target is reached or no r will do.
    """
    systems, n = matrix.shape[0], matrix.shape[-1]
    tried = TRIED if n <= LARGE else TRIED_LARGE
    norm = np.linalg.norm(matrix, 2, axis=(-2, -1))
    lowest = np.minimum(np.maximum(target, norm / 2), norm)
    r = lowest[:, None] * (norm / lowest)[:, None] ** (np.arange(tried) / (tried - 1))
    gramians, harmless = sum_gramians(matrix[:, None] / r[..., None, None])
    harmless &= ~is_close(matrix, target)[:, None]
    best = harmless.argmax(-1)  # the first, and so the smallest r
    chosen = gramians[np.arange(systems), best]
    usable = harmless.any(-1)
    chosen[~usable] = np.eye(n)
    return np.linalg.cholesky(chosen)


def sum_gramians(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum Σ_k M^k M^k* by doubling, and return which sums converged to a harmless Gramian."""
    total = np.broadcast_to(np.eye(matrix.shape[-1], dtype=matrix.dtype), matrix.shape).copy()
    power = matrix.copy()
    harmless = np.ones(matrix.shape[:-2], bool)
    for _ in range(SQUARINGS):
        total = total + power @ total @ power.conj().swapaxes(-1, -2)
        power = power @ power
        harmless &= np.abs(total).max((-2, -1)) <= LARGEST_GRAMIAN
        total[~harmless], power[~harmless] = np.eye(matrix.shape[-1]), 0
        if np.abs(power).max() < 1e-12:
            return total, harmless
    return total, harmless & (np.abs(power).max((-2, -1)) < 1e-12)


def exactly(A: np.ndarray, found: Contraction) -> Contraction:
    """Recompute T⁻¹ A T, correctly rounded, if the matrices are small enough."""
    systems, n = A.shape[0], A.shape[-1] * (2 if np.iscomplexobj(A) else 1)
    if systems * n**3 > EXACT_PRODUCTS:
        return found
    matrix = found.matrix.copy()
    for system in range(systems):
        real = (in_real_numbers(each[system]) for each in (A, found.basis, found.inverse))
        turned = whole_numbers.similar(*real)
        if turned is not None:
            matrix[system] = in_complex_numbers(turned, like=A)
    return found._replace(matrix=matrix)


def in_real_numbers(matrix: np.ndarray) -> np.ndarray:
    """Write a complex matrix as a real one of twice the size, [[Re, -Im], [Im, Re]]."""
    if not np.iscomplexobj(matrix):
        return matrix
    real, imaginary = np.real(matrix), np.imag(matrix)
    return np.block([[real, -imaginary], [imaginary, real]])


def in_complex_numbers(matrix: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Undo `in_real_numbers`."""
    if not np.iscomplexobj(like):
        return matrix
    n = like.shape[-1]  # [[Re, -Im], [Im, Re]]
    return matrix[:n, :n] + 1j * matrix[n:, :n]
