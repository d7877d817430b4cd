"""Similarity transforms: a system in other coordinates of its states."""

# pyright: reportConstantRedefinition=false
# (A, B, C and D are variables.)

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from linrec._tensors.annotated import inv_ex, spectral_norm, unflatten
from linrec._tensors.arguments import as_tensor
from linrec._tensors.devices import in_double
from linrec._tensors.dtypes import double_dtype
from linrec._tensors.known_values import has_values, is_seen
from linrec._tensors.shapes import show
from linrec.coordinates.contraction import Contraction, contract, exactly
from linrec.powers import Powers, blocks_of
from linrec.structures import BlockDiagonal, Dense, Structure
from linrec.systems import LinearRecurrence, StateSpace, check_invariant, require_recurrence

System = TypeVar("System", LinearRecurrence, StateSpace)
Made = TypeVar("Made")

# Squaring may cancel this much (see `Powers.cancellation`) before other coordinates are sought.
# Measured over scipy's filters, the executors' error is about this many times the loop's.
HARMLESS = 4.0

# Coordinates are worth a condition number up to this many times the loss of the powers. Measured on
# filters over 8 to 300 steps, and on Jordan blocks at and near 1 in rotated coordinates.
WORTH = 256.0


@dataclass(frozen=True, eq=False)
class Coordinates:
    """Coordinates z of the states of a system, x = T z.

        A' = T⁻¹ A T        B' = T⁻¹ B        C' = C T        D' = D

    Outputs are the same; `enter` and `leave` convert states in double precision and round last. T
    is a constant: `transform` has gradients in A, B and C only.

    Args:
        basis: T, a structure of the system's states, in double precision.
        inverse: T⁻¹.
        matrix: T⁻¹ A T of the `original` A, as accurate as possible; blocks for a block-diagonal
            system.
        original: A, or its blocks.

    Example:
        >>> import torch, linrec
        >>> swing = linrec.LinearRecurrence([[0.9, -20.0], [0.0, 0.9]], [[0.0], [1.0]])
        >>> coordinates = linrec.contracting_coordinates(swing, 100)
        >>> torch.linalg.matrix_norm(coordinates.transform(swing).A.to_dense(), 2) < 1
        tensor(True)
    """

    basis: Structure
    inverse: Structure
    matrix: Tensor
    original: Tensor

    def enter(self, states: Tensor) -> Tensor:
        """Convert states to the new coordinates, z = T⁻¹ x.

        Args:
            states (*batch, n): x; for a recurrence with copies `(*batch, copies·n)`.
        """
        return convert(self.inverse, states)

    def leave(self, states: Tensor) -> Tensor:
        """Convert states back, x = T z.

        Args:
            states (*batch, n): z; for a recurrence with copies `(*batch, copies·n)`.
        """
        return convert(self.basis, states)

    def transform(self, system: System) -> System:
        """Write a system in the new coordinates, in double precision.

        If C was None, C' is T, so that outputs remain the states in the old coordinates.

        Raises:
            ValueError: the system varies with time, or has another number of states.
        """
        check_invariant(system, "transform")
        n = self.basis.state_size
        if system.A.state_size != n:
            raise ValueError(
                f"The coordinates are those of {n} states and the system has "
                f"{system.A.state_size}: expected the system that they were made of."
            )
        double = in_double(system)
        A = self.transformed(double.A)
        identity = torch.eye(double.A.state_size, dtype=A.dtype, device=A.device)
        B = (identity if double.B is None else double.B).to(A.dtype)
        C = None if double.C is None else double.C.to(A.dtype)
        B = apply_to_columns(self.inverse, B)
        read = self.basis.to_dense()
        read = read if C is None else C @ read
        if isinstance(double, LinearRecurrence):
            return LinearRecurrence(A, B, read, double.D, copies=double.copies)
        return StateSpace(A, B, read, double.D)

    def transformed(self, A: Structure) -> Structure:
        """Compute T⁻¹ A T = T⁻¹ A₀ T + T⁻¹ (A - A₀) T, whose first part is known accurately.

        For A₀ itself the second part is exactly 0, and carries the gradient.
        """
        basis, inverse, blocks = blocks_of(self.basis), blocks_of(self.inverse), blocks_of(A)
        moved = self.matrix + inverse @ (blocks - self.original) @ basis
        return Dense(moved) if A.as_block_diagonal() is None else BlockDiagonal(moved)


def convert(matrix: Structure, states: Tensor) -> Tensor:
    """Multiply the states of each copy in double precision, and round last.

    If their device has no double precision, states are moved to the matrix on the CPU and back.
    """
    device, states = states.device, states.to(matrix.device)
    n, size = matrix.state_size, states.shape[-1]
    if size % n:
        raise ValueError(
            f"`states` has shape {show(states.shape)}: expected (*batch, {n}), or a multiple of "
            f"{n} for the states of copies."
        )
    if size == n:
        converted = matrix.apply(states)
    else:
        each = matrix[..., None] if matrix.batch_shape else matrix
        converted = each.apply(unflatten(states, -1, (-1, n))).flatten(-2)
    # (With promote_types, complex64 makes a real dtype complex and keeps its precision.)
    least = torch.complex64 if converted.is_complex() else states.dtype
    return converted.to(torch.promote_types(states.dtype, least)).to(device)


def similarity_transform(system: System, basis: Tensor | object) -> System:
    """Rewrite a system in other coordinates of its states, x = T z, with the same outputs.

        A' = T⁻¹ A T        B' = T⁻¹ B        C' = C T        D' = D

    Args:
        system: a time-invariant recurrence or a StateSpace.
        basis (n, n): T, whose columns are the new basis vectors; real or complex.

    Returns:
        The system in the new coordinates, dense, in the dtype of the system, or the complex dtype
        of its precision if T is complex. If C was None it becomes T, so that outputs remain the
        states in the old coordinates.

    Raises:
        ValueError: T has another shape or is singular, or the system varies with time.

    Numerical error: up to n = 64 (complex: 40), T⁻¹ A T of numbers of any size is computed with as
    many digits as needed and rounded once; beyond that the error is eps·‖T⁻¹‖‖A‖‖T‖.

    Example:
        >>> import linrec
        >>> swing = linrec.LinearRecurrence([[0.9, -0.4], [0.1, 0.9]], [[0.0], [1.0]])
        >>> linrec.similarity_transform(swing, [[2.0, 0.0], [0.0, 1.0]]).A.to_dense()
        tensor([[ 0.9000, -0.2000],
                [ 0.2000,  0.9000]])

    References:
        Kailath 1980, Linear Systems, section 2.2.
    """
    check_invariant(system, "similarity_transform")
    n = system.A.state_size
    T = as_tensor("basis", basis, torch.float64, "cpu").detach()
    # (With promote_types, complex64 makes a real dtype complex and keeps its precision.)
    least = torch.complex64 if T.is_complex() else system.dtype
    dtype = torch.promote_types(system.dtype, least)
    T = T.to(double_dtype(dtype))
    if T.shape != (n, n):
        raise ValueError(
            f"`basis` has shape {show(T.shape)}: expected ({n}, {n}), a column a state."
        )
    inverse, failed = inv_ex(T)
    if failed or not inverse.isfinite().all():
        raise ValueError("`basis` is singular: expected linearly independent columns.")
    dense = system.A.to(T.dtype).to_dense().detach()
    coordinates = from_arrays(dense, T.numpy(force=True)[None], inverse.numpy(force=True)[None])
    return coordinates.transform(system).to(dtype)


def contracting_coordinates(recurrence: LinearRecurrence, length: int) -> Coordinates:
    """Find coordinates in which no power of A up to `length` is much larger than its eigenvalues.

    In them ‖A'‖ is close to (1 + ρ)/2 for a spectral radius ρ below 1, and to ρ(1 + 1/length) from
    1 on, where such coordinates exist. Recurrences in these coordinates lose fewer digits,
    especially in float32: `coordinates.transform(recurrence).to(torch.float32)`.

    Args:
        recurrence: a time-invariant recurrence.
        length: the number of steps it will run.

    Returns:
        The coordinates, constants without gradients.

    Raises:
        ValueError: the recurrence varies with time, or its values cannot be read (in a graph that
            is being compiled, under `torch.func` transforms).

    Example:
        >>> import linrec
        >>> slow = linrec.LinearRecurrence([[1.9, -0.9025], [1.0, 0.0]], [[1.0], [0.0]])
        >>> coordinates = linrec.contracting_coordinates(slow, 100)
        >>> float(coordinates.transform(slow).A.to_dense().norm(2)) < 1.5
        True

    References:
        Mullis and Roberts 1976, Synthesis of minimum roundoff noise fixed point digital filters.
    """
    require_recurrence(recurrence)
    check_invariant(recurrence, "contracting_coordinates")
    if not has_values(*recurrence.A.leaves().values()):
        raise ValueError(
            "`contracting_coordinates` looks at the values of A, which cannot be seen here: "
            "expected a call outside of torch.compile and torch.func transforms."
        )
    A = in_double(recurrence.A)
    check_finite(A=A.to_dense())
    return contracting(A, length)


def check_finite(**matrices: Tensor) -> None:
    """Refuse matrices that hold NaN or infinities."""
    for name, matrix in matrices.items():
        if is_seen(~matrix.isfinite()):
            raise ValueError(f"`{name}` holds NaN or an infinity: expected finite numbers.")


def contracting(A: Structure, length: int) -> Coordinates:
    """Find contracting coordinates of a structure in double precision."""
    blocks = blocks_of(A).detach()
    flat = blocks.reshape(-1, *blocks.shape[-2:]).numpy(force=True)
    return as_structures(A, blocks, contract(flat, length))


def from_arrays(A: Tensor, basis: np.ndarray, inverse: np.ndarray) -> Coordinates:
    """Make coordinates from arrays, with T⁻¹ A T as accurate as possible."""
    matrix = A.reshape(-1, *A.shape[-2:]).numpy(force=True)
    basis, inverse = (np.broadcast_to(each, matrix.shape) for each in (basis, inverse))
    found = exactly(matrix, Contraction(basis, inverse, inverse @ matrix @ basis))
    return as_structures(Dense(A), A, found)


def as_structures(A: Structure, blocks: Tensor, found: Contraction) -> Coordinates:
    """Shape arrays as the structure whose coordinates they are."""
    kind = Dense if A.as_block_diagonal() is None else BlockDiagonal
    basis, inverse, matrix = (
        torch.tensor(each, device=blocks.device).reshape(blocks.shape) for each in found
    )
    return Coordinates(kind(basis), kind(inverse), matrix, blocks.detach())


def better_coordinates(powers: Powers, length: int) -> Coordinates | None:
    """Find coordinates for powers that lost digits; None if they did not or none are better.

    Powers of triangular matrices with all eigenvalues at 1, and similar ones, grow without
    cancelling, and no other coordinates are better. Converting states costs at most ‖T‖‖T⁻¹‖
    roundings, and far fewer where T is ill-conditioned because states differ in size.
    """
    cancelled, level = powers.cancellation(length)
    if cancelled <= HARMLESS or not blocks_of(powers.squares[0]).isfinite().all():
        return None
    found = contracting(powers.squares[0], length)
    basis, inverse = blocks_of(found.basis), blocks_of(found.inverse)
    condition = spectral_norm(basis, 2) * spectral_norm(inverse, 2)
    return found if float(condition.amax()) < WORTH * cancelled * level else None


def take_powers(
    own: LinearRecurrence, length: int, compute: Callable[[LinearRecurrence, Powers], Made]
) -> tuple[Made, LinearRecurrence, Coordinates | None]:
    """Compute a result from powers of A, in coordinates in which squaring loses few digits.

    Squaring is judged afterwards, from the squares that were needed. Where it cancelled too much,
    everything is recomputed in coordinates in which A hardly stretches any vector. Where values
    cannot be read, the recurrence's own coordinates are used.

    Args:
        own: one copy of a time-invariant recurrence.
        length: how many powers matter.
        compute: computes the result from a system and the powers of its A in double precision.

    Returns:
        The result, the system it was computed from, and that system's coordinates (None: its own).
    """
    powers = Powers(in_double(own.A).to(double_dtype(own.dtype)))
    made = compute(own, powers)
    coordinates = better_coordinates(powers, length)
    if coordinates is None:
        return made, own, None
    moved = coordinates.transform(own)
    return compute(moved, Powers(moved.A)), moved, coordinates


def apply_to_columns(A: Structure, columns: Tensor) -> Tensor:
    """Multiply every column by A, `(*batch, n, m)`."""
    return (A[..., None] if A.batch_shape else A).apply(columns.mT).mT
