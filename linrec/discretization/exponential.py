"""Matrix exponentials in any unit of time, and their integrals."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# (Operations of `torch.library` and scipy's LAPACK functions have no types.)
# pyright: reportConstantRedefinition=false
# (A, B, C and D are variables.)
# pyright: reportMissingTypeStubs=false
# (Scipy has no annotations.)

import math

import numpy as np
import torch
from torch import Tensor

from linrec._tensors.annotated import matrix_exp, split, tensor_of
from linrec._tensors.known_values import has_values
from linrec._tensors.shapes import broadcast_shapes

# Taylor polynomials of this degree are used for matrices of at most this norm: the remainder is
# below 0.6^17 / 17! = 5e-19, after a first term of 0.6.
DEGREE, LARGEST = 16, 0.6


def exponential(A: Tensor, B: Tensor, count: int) -> tuple[Tensor, list[Tensor]]:
    """Compute exp(A), and φ_k(A) B for k = 1 … count.

    φ_k(z) = Σ_j z^j / (j+k)!, so that φ_1(A) = ∫₀¹ exp(A s) ds. The polynomial of A / 2^s is
    squared s times, but a matrix near the identity is stored as its difference from it: where
    exp(Y) = I + X,

        exp(2Y) = I + (2X + X²)      φ_1(2Y) B = (2 φ_1(Y) B + X φ_1(Y) B) / 2
        φ_2(2Y) B = (φ_1(Y) B + 2 φ_2(Y) B + X φ_2(Y) B) / 4

    I + X would round off the last digits of a small X. So slow states stay accurate beside fast
    ones, and more squarings than necessary do no harm. A diagonal entry far from 1 is stored
    directly, so that decayed states keep their digits too. All operations are sums and products:
    measuring states in other units, by powers of two, changes no digit. B enters linearly.

    Where no value can be read (in compiled graphs, inside vmap, on the meta device) the number of
    squarings is unknown, and `torch.linalg.matrix_exp` is used instead.

    Args:
        A (*batch, n, n): the matrices, times the step, in the coordinates of `balance`.
        B (*batch, n, m): the input matrix, in the same coordinates.
        count: the number of integrals, 0 to 2.

    Returns:
        The exponentials `(*batch, n, n)`, and the integrals `(*batch, n, m)` times B.

    Numerical error: as of a relative change of the entries of A by a few s·eps; docs/numerics.md
    has measured figures.

    References:
        Higham 2005, The scaling and squaring method for the matrix exponential revisited.
        Skaflestad and Wright 2009, The scaling and modified squaring method (for φ_k).
    """
    squarings = count_squarings(A)
    if squarings is None:
        return augmented_exponential(A, B, count)
    scaled = A * 0.5**squarings
    identity = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    phi = taylor(scaled, identity, max(count, 1))
    held = [phi @ B] if count else []
    for k in reversed(range(1, count)):
        phi = identity / math.factorial(k) + scaled @ phi
        held.insert(0, phi @ B)
    # exp = diag(near) + X, where `near` has ones for diagonal entries that are near 1.
    X, near = scaled @ phi, torch.ones_like(A[..., 0].real)
    for _ in range(squarings):
        rows = near.unsqueeze(-1)
        turned = [rows * each + X @ each for each in held]
        if count == 2:
            held[1] = (held[0] + held[1] + turned[1]) / 4
        if count:
            held[0] = (held[0] + turned[0]) / 2
        X, near = nearer(rows * X + X * near.unsqueeze(-2) + X @ X, near)
    return X + torch.diag_embed(near), held


def taylor(A: Tensor, identity: Tensor, order: int) -> Tensor:
    """Compute Σ_j A^j / (j + order)! up to j = 16, in powers of A⁴ (Paterson and Stockmeyer)."""
    square = A @ A
    powers, fourth = [identity, A, square, square @ A], square @ square
    result = fourth / math.factorial(DEGREE + order)
    for first in reversed(range(0, DEGREE, 4)):
        for j in reversed(range(4)):
            result = result + powers[j] / math.factorial(first + j + order)
        result = fourth @ result if first else result
    return result


def nearer(X: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
    """Store each diagonal entry of diag(near) + X, or its difference from 1: whichever is
    smaller."""
    whole = (X.diagonal(dim1=-2, dim2=-1) + near).detach()
    now = ((whole - 1).abs() <= whole.abs()).to(near.dtype)
    return X + torch.diag_embed(near - now), now


def count_squarings(A: Tensor) -> int | None:
    """Count the halvings that the largest matrix needs; None if no value can be read."""
    if torch.compiler.is_compiling():
        return None
    size = A.detach().abs()
    norms = torch.minimum(size.sum(-1).amax(-1), size.sum(-2).amax(-1))
    # (NaN marks missing steps. A sum that overflows has no exponential in any case.)
    norms = norms.nan_to_num(0.0, posinf=0.0)
    try:
        norm = float(norms.max()) if norms.numel() else 0.0
    except RuntimeError:
        return None
    halvings = max(0, math.frexp(norm / LARGEST)[1])
    # Chains longer than the polynomial are reached by squaring alone.
    n = A.shape[-1]
    return max(halvings, math.ceil(math.log2(n))) if n > DEGREE else halvings


def augmented_exponential(A: Tensor, B: Tensor, count: int) -> tuple[Tensor, list[Tensor]]:
    """Compute `exponential` by torch, as blocks of one exponential (Van Loan 1978, theorem 1).

        exp [[A, B, 0], [0, 0, I], [0, 0, 0]] = [[exp(A), φ_1(A) B, φ_2(A) B], …]

    The columns of B are scaled by their own size, since torch scales by the largest of all columns.
    """
    if count == 0:
        return matrix_exp(A), []
    n, m = B.shape[-2:]
    size = B.detach().abs().amax(-2, keepdim=True)
    size = torch.where(size > 0, size, torch.ones_like(size))
    columns = B / size
    batch = broadcast_shapes(A.shape[:-2], B.shape[:-2])
    rows = torch.cat([A.expand(*batch, n, n), columns.expand(*batch, n, m)], -1)
    augmented = torch.nn.functional.pad(rows, (0, (count - 1) * m, 0, count * m))
    if count > 1:
        shift = torch.diag_embed(B.new_ones((count - 1) * m))
        augmented = augmented + torch.nn.functional.pad(shift, (n + m, 0, n, m))
    first_row = matrix_exp(augmented)[..., :n, :]
    return first_row[..., :n], [held * size for held in split(first_row[..., n:], m, -1)]


def phi(z: Tensor, order: int) -> Tensor:
    """Compute φ_k(z) = Σ_j z^j / (j+k)!, smooth at 0.

    φ_{k+1}(z) = (φ_k(z) - 1/k!) / z cancels near 0. Below 1/4 the series takes over: after 14 terms
    the remainder is under 4^-14 / 14! < 1e-19. Each branch gets safe arguments, since the gradient
    of `where` multiplies the unused branch's gradient by zero, which keeps NaN.
    """
    near = z.abs() < 0.25
    small = torch.where(near, z, 0)
    series = torch.zeros_like(z)
    for j in reversed(range(14)):
        series = series * small + 1 / math.factorial(j + order)
    large = torch.where(near, 1, z)
    value = large.exp()
    for k in range(order):
        value = (value - 1 / math.factorial(k)) / large
    return torch.where(near, series, value)


def balance(A: Tensor) -> Tensor:
    """Choose units for the states in which no entry of A is needlessly large.

    Args:
        A (*batch, n, n): the matrices.

    Returns:
        s `(*batch, n)`, powers of two: A s_j / s_i is balanced, without any rounding.

    References:
        Parlett and Reinsch 1969, Balancing a matrix for calculation of eigenvalues.
    """
    size = A.detach().abs()
    # (The first call of a custom operation loads the compiler, which takes two seconds.)
    return call_gebal(size) if has_values(size) else balancing_units(size)


def call_gebal(size: Tensor) -> Tensor:
    """Call LAPACK's dgebal for each matrix."""
    matrices = np.ascontiguousarray(size.numpy(force=True), dtype=np.float64)
    n = matrices.shape[-1]
    from scipy.linalg import get_lapack_funcs  # (`import linrec` loads torch alone)

    (gebal,) = get_lapack_funcs(("gebal",), dtype=np.float64)
    units = np.ones((math.prod(matrices.shape[:-2]), n))
    for matrix, unit in zip(matrices.reshape(-1, n, n), units, strict=True):
        if np.isfinite(matrix).all():
            unit[:] = gebal(matrix, scale=1, permute=0)[3]
    return tensor_of(units.reshape(matrices.shape[:-1])).to(size.device)


@torch.library.custom_op("linrec::balancing_units", mutates_args=())
def balancing_units(size: Tensor) -> Tensor:
    """Call LAPACK in one operation, opaque to graphs and vmap."""
    return call_gebal(size)


@balancing_units.register_fake
def _(size: Tensor) -> Tensor:
    return size.new_empty(size.shape[:-1])


@balancing_units.register_vmap
def _(info: object, in_dims: tuple[int | None], size: Tensor) -> tuple[Tensor, int]:
    (axis,) = in_dims
    return balancing_units(size if axis is None else size.movedim(axis, 0)), 0
