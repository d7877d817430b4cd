"""Real form of complex systems whose outputs are read as real parts."""

from typing import TypeVar

import torch
from torch import Tensor

from linrec.structures import BlockDiagonal, Dense, Structure
from linrec.systems import LinearRecurrence, StateSpace, require_system

System = TypeVar("System", LinearRecurrence, StateSpace)


def real_part(system: System) -> System:
    """Rewrite a complex system in real numbers, for use where outputs are read as real parts.

        x_t = A x_{t-1} + B u_t        y_t = Re(C x_t + D u_t)        (u real)

    Each complex state becomes two real ones, Re x and Im x. Each number a + ib of A becomes the
    block [[a, -b], [b, a]], each number of B a column of two, and each number of C the row [a, -b];
    D becomes Re D. Imaginary parts of outputs are not computed, and convolution kernels are real.
    Use it for convolutions (`Toeplitz`, `FFTConvolution`, `Chunked`). `AssociativeScan` runs a
    complex diagonal elementwise, but the blocks made of it as matrices, which is slower.

    States that stand for pairs of conjugates are read as 2 Re(C x) (S4D, S5): pass 2 C.

    Args:
        system: a complex recurrence or continuous system; a real one is returned unchanged.

    Returns:
        The real system of 2n states, interleaved as `torch.view_as_real(x).flatten(-2)` has them;
        block-diagonal if A is diagonal or block-diagonal, dense otherwise. Its inputs should be
        real.

    Example:
        >>> import torch, linrec
        >>> turn = linrec.LinearRecurrence(linrec.Diagonal(torch.tensor([0.8 + 0.6j])), [[1.0]])
        >>> linrec.run(linrec.real_part(turn), torch.eye(3)[:, :1]).outputs.squeeze()
        tensor([1.0000, 0.8000, 0.2800])

    References:
        Gu, Gupta, Goel and Ré 2022, On the Parameterization and Initialization of Diagonal State
        Space Models, section 3.3.
    """
    require_system(system)
    if not system.dtype.is_complex:
        return system
    n = system.A.state_size
    A = real_structure(system.A)
    B = torch.eye(n, dtype=A.dtype, device=system.device) if system.B is None else system.B
    C = torch.eye(n, dtype=A.dtype, device=system.device) if system.C is None else system.C
    columns = torch.stack([real(B), imaginary(B)], -2).flatten(-3, -2)
    rows = torch.stack([real(C), -imaginary(C)], -1).flatten(-2)
    D = None if system.D is None else real(system.D)
    if isinstance(system, StateSpace):
        return StateSpace(A, columns, rows, D)  # type: ignore[return-value]  # System is StateSpace here
    return LinearRecurrence(  # type: ignore[return-value]  # as above
        A, columns, rows, D, time_varying=system.time_varying, copies=system.copies
    )


def real_structure(A: Structure) -> Structure:
    """Write each number a + ib of a matrix as the block [[a, -b], [b, a]]."""
    diagonal, blocks = A.as_diagonal(), A.as_block_diagonal()
    if diagonal is not None:
        blocks = diagonal[..., None, None]
    if blocks is not None:
        return BlockDiagonal(real_blocks(blocks))
    return Dense(real_blocks(A.to_dense()))


def real_blocks(matrix: Tensor) -> Tensor:
    """Write matrices `(*batch, n, m)` as real ones `(*batch, 2n, 2m)`."""
    a, b = real(matrix), imaginary(matrix)
    rows = torch.stack([torch.stack([a, -b], -1), torch.stack([b, a], -1)], -3)
    return rows.flatten(-2).flatten(-3, -2)


def real(tensor: Tensor) -> Tensor:
    """Return the real part; a real tensor is returned unchanged."""
    return tensor.real if tensor.is_complex() else tensor


def imaginary(tensor: Tensor) -> Tensor:
    """Return the imaginary part; zeros for a real tensor."""
    return tensor.imag if tensor.is_complex() else torch.zeros_like(tensor)
