"""A norm of states in which a transition matrix hardly grows, and a bound on its growth."""

from dataclasses import dataclass

import torch
from torch import Tensor

from linrec.certificate.exact import INFLATED, UNDERFLOW, gamma

# The logarithm of a growth that costs nothing which matters, beside 2^-53 twice.
GOOD = 10.0

# A Gramian is complete when the latest powers add no more than this, relative to its largest entry.
DECAYED = 1e-20


@dataclass(frozen=True, eq=False)
class Norm:
    """The norm |v| = ‖S v‖₂ on the states of each system.

    Attributes:
        forward (*batch, n, n): S.
        backward (*batch, n, n): about the inverse of S.
        growth (*batch): |A v| ≤ growth · |v| for every v.
        rows (*batch, n): |v_i| ≤ rows_i · |v| for every v.
    """

    forward: Tensor
    backward: Tensor
    growth: Tensor
    rows: Tensor

    @property
    def condition(self) -> Tensor:
        """The growth of numbers in the transformation there and back, `(*batch)`."""
        return torch.linalg.matrix_norm(self.forward) * torch.linalg.vector_norm(self.rows, dim=-1)


def fitting_norm(A: Tensor, uncertainty: Tensor | None, steps: int) -> Norm:
    """Find a norm in which A grows as little as its powers do over some steps.

    With P = Σ_{k<N} (A/ρ)^k* (A/ρ)^k and ρ^N = ‖A^N‖, N ≥ steps, or ρ = 1 where that is less,

        (A/ρ)* P (A/ρ) = P - 1 + (A^N/ρ^N)* (A^N/ρ^N) ≤ P,

    so that |v|² = v* P v grows by ρ at most, and S is the Cholesky factor of P. It may be
    inaccurate: what is promised of S is computed from S itself, all rounding errors bounded.

    Args:
        A (*batch, n, n): the transition matrices, real.
        uncertainty (*batch, n, n): how far the true ones may be from A, by entries, or None.
        steps: the number of steps that it is for.
    """
    n = A.shape[-1]
    one = torch.eye(n, dtype=A.dtype, device=A.device).expand_as(A)
    best = bound_growth(A, uncertainty, one, one, one)
    best_cost = cost(best, steps)
    if bool((best_cost > GOOD).any()):
        P = gramian(A, steps)
        finite = torch.isfinite(P).all((-2, -1), keepdim=True)
        lower, failed = torch.linalg.cholesky_ex(torch.where(finite, P, one))
        usable = finite & (failed == 0)[..., None, None]
        forward = torch.where(usable, lower.mH, one)
        backward = torch.linalg.solve_triangular(forward, one, upper=True)
        found = bound_growth(A, uncertainty, forward, backward)
        best = select_norm(cost(found, steps) < best_cost, found, best)
    return best


def growth_rate(A: Tensor, steps: int) -> Tensor:
    """Compute ‖A^N‖^(1/N) for a power of two N ≥ steps, `(*batch)`."""
    power, logarithm, exponent = A, A.new_zeros(A.shape[:-2]), 1
    while True:
        size = torch.linalg.matrix_norm(power).clamp(min=1e-300)
        logarithm = logarithm + size.log()  # A^exponent = exp(logarithm) · power / size
        if exponent >= steps:
            return (logarithm / exponent).exp().clamp(min=1e-100)
        power = power / size[..., None, None]
        power, logarithm, exponent = power @ power, 2 * logarithm, 2 * exponent


def gramian(A: Tensor, steps: int) -> Tensor:
    """Compute Σ_k (A^k/ρ^k)* A^k/ρ^k for k < N, N ≥ steps, doubling their number; ρ ≥ 1."""
    total, power = sum_squares(A, steps)
    size = torch.linalg.matrix_norm(power)
    if not bool((size <= 1).all()):  # it grows, or overflows
        rate = growth_rate(A, steps).clamp(min=1)
        total, _ = sum_squares(A / rate[..., None, None], steps)
    return (total + total.mH) / 2


def sum_squares(A: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Compute Σ_k (A^k)* A^k for k < N, N ≥ steps, and A^N; less far where A has decayed."""
    total = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device).expand_as(A)
    for _ in range(max(steps - 1, 0).bit_length()):
        added = A.mH @ total @ A
        total = total + added
        A = A @ A
        if bool((added.abs().amax((-2, -1)) <= DECAYED * total.abs().amax((-2, -1))).all()):
            break
    return total, A


def bound_growth(
    A: Tensor, uncertainty: Tensor | None, S: Tensor, R: Tensor, V: Tensor | None = None
) -> Norm:
    """Bound the growth of A in the norm of S, with R about the inverse of S, V as `spectral_norm`.

    S R = 1 + E with ‖E‖ ≤ ε < 1, so that 1/S = R/(1 + E):

        ‖S A /S‖ ≤ ‖S A R‖ / (1 - ε)        |v_i| ≤ ‖R_i‖ |v| / (1 - ε)
    """
    n = A.shape[-1]
    one = torch.eye(n, dtype=A.dtype, device=A.device)
    off = (S @ R - one).abs() + gamma(n + 2) * (S.abs() @ R.abs() + one)
    epsilon = INFLATED * torch.linalg.matrix_norm(off)
    loss = torch.where(epsilon < 0.5, 1 - epsilon, torch.nan)
    sizes = A.abs() if uncertainty is None else torch.maximum(A.abs(), uncertainty)
    size = sizes.amax((-2, -1), keepdim=True).clamp(min=1e-290)  # so that nothing underflows
    error = gamma(2 * n + 3) * (A / size).abs()
    error = error if uncertainty is None else error + uncertainty / size
    error = torch.linalg.matrix_norm(S.abs() @ error @ R.abs())
    growth = size[..., 0, 0] * (spectral_norm(S @ (A / size) @ R, V) + error) / loss
    rows = torch.linalg.vector_norm(R, dim=-1) / loss[..., None] + UNDERFLOW**0.5
    return Norm(S, R, INFLATED * growth, INFLATED * rows)


def spectral_norm(M: Tensor, V: Tensor | None = None) -> Tensor:
    """Bound the largest singular value of matrices `(*batch, n, n)` from above, closely.

    With V about the eigenvectors of M* M, unless another one is given, W = M V has nearly
    orthogonal columns, so that the largest row sum of |W* W| is close to ‖W‖². And
    ‖M‖ ≤ ‖W‖ ‖1/V‖ with ‖1/V‖² ≤ 1 / (1 - ‖V* V - 1‖).
    """
    n = M.shape[-1]
    one = torch.eye(n, dtype=M.dtype, device=M.device)
    size = M.abs().amax((-2, -1), keepdim=True).clamp(min=1e-290)
    M = M / size  # no square that matters beside the largest, 1, underflows
    if V is None:
        finite = torch.isfinite(M).all((-2, -1), keepdim=True)
        _, V = torch.linalg.eigh(torch.where(finite, M.mH @ M, one))
    assert V is not None
    W = M @ V
    lost = gamma(n) * (M.abs() @ V.abs())
    squares = (W.mH @ W).abs() + gamma(n) * (W.abs().mH @ W.abs())
    largest = squares.sum(-1).amax(-1).sqrt() + torch.linalg.matrix_norm(lost)
    off = (V.mH @ V - one).abs() + gamma(n + 2) * (V.abs().mH @ V.abs() + one)
    off = off.sum(-1).amax(-1)
    loss = torch.where(off < 0.5, 1 - off, torch.nan)
    return INFLATED * size[..., 0, 0] * (largest / loss.sqrt() + UNDERFLOW)


def cost(norm: Norm, steps: int) -> Tensor:
    """Rate a norm: the logarithm of its growth of an error over all steps."""
    growth = norm.growth.log().clamp(min=-1.0 / max(steps, 1)) * steps
    return torch.nan_to_num(norm.condition.log() + growth, nan=torch.inf)


def select_norm(first: Tensor, yes: Norm, no: Norm) -> Norm:
    """Take one norm or the other for each system, `first (*batch)`."""
    return Norm(
        torch.where(first[..., None, None], yes.forward, no.forward),
        torch.where(first[..., None, None], yes.backward, no.backward),
        torch.where(first, yes.growth, no.growth),
        torch.where(first[..., None], yes.rows, no.rows),
    )
