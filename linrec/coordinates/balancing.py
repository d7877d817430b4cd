"""Balanced realisations: coordinates in which each state is as strongly driven as read."""

# pyright: reportConstantRedefinition=false
# (A, B, C and D are variables.)

from dataclasses import dataclass
from typing import Generic

import numpy as np
import torch
from torch import Tensor

from linrec._tensors.annotated import tensor_of
from linrec._tensors.dtypes import double_dtype
from linrec._tensors.known_values import has_values
from linrec._tensors.shapes import broadcast_shapes
from linrec.coordinates.contraction import contract
from linrec.coordinates.similarity import Coordinates, System, check_finite, from_arrays
from linrec.systems import LinearRecurrence, StateSpace, check_invariant

# Doublings within which a Gramian's sum converges, and the number of steps for a contraction.
DOUBLINGS, LENGTH = 50, 1 << 20


@dataclass(frozen=True, eq=False)
class BalancedRealization(Generic[System]):
    """A system in balanced coordinates, and the conversion to and from them.

    Attributes:
        system: the balanced system, in the dtype of the given one.
        coordinates: the coordinates of its states, x = T z (`enter`, `leave`, `transform`).
        singular_values (*batch, n): the Hankel singular values, largest first: how much of the
            input reaches the output through each state.
    """

    system: System
    coordinates: Coordinates
    singular_values: Tensor


def balanced_realization(system: System) -> BalancedRealization[System]:
    """Write a stable system in coordinates in which both Gramians are the same diagonal matrix.

        discrete    Σ_k A^k B B* A*^k = Σ_k A*^k C* C A^k = diag(σ)
        continuous  A W + W A* + B B* = 0,  A* W + W A + C* C = 0,  W = diag(σ)

    No coordinates lose fewer digits to rounding in fixed point, and states with a small σ can be
    dropped. The balanced system has the same outputs as the given one.

    Args:
        system: a time-invariant recurrence or a StateSpace, stable and minimal; if it has copies,
            one copy is balanced.

    Returns:
        The balanced system, its coordinates and its Hankel singular values.

    Raises:
        ValueError: the system is unstable or marginal, a state cannot be driven or read, the
            recurrence varies with time, or its values cannot be read.

    Numerical error: σ below about 1e-15 of the largest cannot be distinguished from zero.

    Example:
        >>> import linrec
        >>> A, B, C = [[1.9, -0.9025], [1.0, 0.0]], [[1.0], [0.0]], [[0.01, 0.0]]
        >>> slow = linrec.LinearRecurrence(A, B, C)
        >>> balanced = linrec.balanced_realization(slow)
        >>> balanced.singular_values
        tensor([2.4149, 0.4136], dtype=torch.float64)
        >>> linrec.impulse_response(balanced.system, 3).flatten()
        tensor([0.0100, 0.0190, 0.0271])

    References:
        Moore 1981, Principal component analysis in linear systems. Laub, Heath, Paige and Ward
        1987, Computation of system balancing transformations (the square-root method).
    """
    check_invariant(system, "balanced_realization")
    leaves = [*system.A.leaves().values(), system.B, system.C]
    if not has_values(*(leaf for leaf in leaves if leaf is not None)):
        raise ValueError(
            "`balanced_realization` looks at values, which cannot be seen here: expected a call "
            "outside of torch.compile and torch.func transforms."
        )
    dtype = double_dtype(system.dtype)
    A, B, C = matrices(system, dtype)
    check_finite(A=A, B=B, C=C)
    flat = [each.reshape(-1, *each.shape[-2:]).numpy(force=True) for each in (A, B, C)]
    continuous = isinstance(system, StateSpace)
    parts = [balance(*each, continuous=continuous) for each in zip(*flat, strict=True)]
    basis, inverse, values = (np.stack(each) for each in zip(*parts, strict=True))
    coordinates = from_arrays(A, basis, inverse)
    singular = tensor_of(values).to(A.device).reshape(*A.shape[:-2], -1)
    balanced = coordinates.transform(system).to(system.dtype)
    return BalancedRealization(balanced, coordinates, singular)


def matrices(system: LinearRecurrence | StateSpace, dtype: torch.dtype) -> list[Tensor]:
    """Write A, B and C out in double precision, with common batch axes and without gradients."""
    A = system.A.to(dtype).to_dense().detach()
    identity = torch.eye(A.shape[-1], dtype=dtype, device=A.device)
    given = [A, *(identity if each is None else each.detach() for each in (system.B, system.C))]
    batch = broadcast_shapes(*(each.shape[:-2] for each in given))
    return [each.to(dtype).expand(*batch, -1, -1) for each in given]


def balance(
    A: np.ndarray, B: np.ndarray, C: np.ndarray, *, continuous: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find T, T⁻¹ and the Hankel singular values of one system, by the square-root method."""
    if continuous:
        A, B, C = to_discrete(A, B, C)
    found = contract(A[None], LENGTH)
    T, X, moved = (each[0] for each in found)
    radius = float(np.abs(np.linalg.eigvals(found.matrix)).max())
    if not radius < 1 - 1e-12:
        where = "a pole on or right of the imaginary axis" if continuous else f"radius {radius:.6g}"
        raise ValueError(
            f"The system has {where}: expected a stable one, whose Gramians exist. Of others, "
            "`contracting_coordinates(recurrence, length)` finds coordinates."
        )
    driven = factor_gramian(moved, X @ B)
    read = factor_gramian(moved.conj().T, (C @ T).conj().T)
    left, values, right = np.linalg.svd(read.conj().T @ driven)
    if not values[-1] > 1e-15 * values[0]:
        raise ValueError(
            f"The Hankel singular values fall from {values[0]:.3g} to {values[-1]:.3g}: expected a "
            "minimal system. Some state cannot be driven by the inputs or read at the outputs."
        )
    scale = values**-0.5
    basis = T @ driven @ right.conj().T * scale
    inverse = scale[:, None] * (left.conj().T @ read.conj().T @ X)
    return basis, inverse, values


def to_discrete(
    A: np.ndarray, B: np.ndarray, C: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Map a continuous system to a discrete one with the same Gramians, z = (α + s) / (α - s).

    α is the geometric mean of the poles' sizes, whatever the unit of time.
    """
    sizes = np.abs(np.linalg.eigvals(A))
    alpha = float(np.exp(np.log(sizes[sizes > 0]).mean())) if (sizes > 0).any() else 1.0
    identity = np.eye(len(A))
    inverse = np.linalg.inv(alpha * identity - A)
    half = np.sqrt(2 * alpha)
    return (alpha * identity + A) @ inverse, half * inverse @ B, half * C @ inverse


def factor_gramian(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Find L with L L* = Σ_k A^k B B* A*^k by doubling, without ever forming the sum.

    From the factor of the first K terms, [L, A^K L] is that of 2K; a QR decomposition makes it
    square again. Small singular values keep their digits, which the sum would round away.
    """
    n = len(A)
    factor, power = square(B), A
    for _ in range(DOUBLINGS):
        more = power @ factor
        if np.abs(more).max() <= 1e-18 * np.abs(factor).max():
            break
        factor, power = square(np.hstack([factor, more])), power @ power
    return factor[:, :n]


def square(factor: np.ndarray) -> np.ndarray:
    """Find a square L with the same L L*, by a QR decomposition of the adjoint."""
    n, columns = factor.shape
    if columns < n:
        factor = np.hstack([factor, np.zeros((n, n - columns), factor.dtype)])
    triangle = np.linalg.qr(factor.conj().T)[1]
    return triangle.conj().T
