"""The methods of discretisation, each for a step of length 1."""

import torch
from torch import Tensor

from linrec._tensors.annotated import eigvals, inv_ex, solve
from linrec._tensors.known_values import is_seen
from linrec.discretization.exponential import exponential, phi
from linrec.structures import Dense, Diagonal, Structure
from linrec.systems import StateSpace


def exponential_integrals(system: StateSpace, count: int) -> tuple[Structure, list[Tensor]]:
    """Compute exp(A), and φ_k(A)·B for k = 1 … count, φ_k(z) = Σ_j z^j / (j+k)!."""
    A, B = system.A, system.B
    z = A.as_diagonal()
    if z is not None:
        return Diagonal(z.exp()), [phi(z, k).unsqueeze(-1) * B for k in range(1, count + 1)]
    turned, held = exponential(A.to_dense(), B, count)
    return Dense(turned), held


def zero_order_hold(system: StateSpace) -> tuple[Structure, Tensor, Tensor | None, Tensor | None]:
    """Hold the inputs: x[k+1] = exp(A) x[k] + φ₁(A) B u[k] (Franklin et al. 1998, section 4.3)."""
    A, (gamma,) = exponential_integrals(system, count=1)
    return A, gamma, system.C, system.D


def first_order_hold(
    system: StateSpace,
) -> tuple[Structure, Tensor, Tensor | None, Tensor]:
    """Join the inputs by straight lines (Franklin et al. 1998, section 6.3.2).

    The state obeys x[k+1] = Φ x[k] + (Γ₁ - Γ₂) u[k] + Γ₂ u[k+1], and w = x - Γ₂ u needs no
    u[k+1]: w[k+1] = Φ w[k] + (Γ₁ - Γ₂ + Φ Γ₂) u[k], y[k] = C w[k] + (D + C Γ₂) u[k].
    """
    A, (gamma_1, gamma_2) = exponential_integrals(system, count=2)
    turned = A.to_dense() @ gamma_2
    through = gamma_2 if system.C is None else system.C @ gamma_2
    through = through if system.D is None else through + system.D
    return A, gamma_1 - gamma_2 + turned, system.C, through


def impulse_invariant(
    system: StateSpace,
) -> tuple[Structure, Tensor, Tensor | None, Tensor]:
    """Sample the impulse response: every input is an impulse of area dt·u at its step's start."""
    if system.D is not None and is_seen(system.D != 0, wait=False):
        raise ValueError(
            '`method` is "impulse" and the system has a D: an impulse through D cannot be sampled. '
            "Expected D = None; discretise without it and add `D` afterwards."
        )
    A, _ = exponential_integrals(system, count=0)
    impulse = system.B
    through = impulse if system.C is None else system.C @ impulse
    return A, A.to_dense() @ impulse, system.C, through


def generalized_bilinear(
    system: StateSpace, alpha: float
) -> tuple[Structure, Tensor, Tensor | None, Tensor | None]:
    """Step (I - α A) x[k+1] = (I + (1-α) A) x[k] + B (α u[k+1] + (1-α) u[k]).

    As in scipy, the state is changed so that u[k+1] is not needed, which changes C and D.
    """
    A, B, C, D = system.A, system.B, system.C, system.D
    z = A.as_diagonal()
    if z is not None:
        inverse = 1 / (1 - alpha * z)
        structure: Structure = Diagonal(inverse * (1 + (1 - alpha) * z))
        solved = inverse.unsqueeze(-1) * B
        read = torch.diag_embed(inverse) if C is None else C * inverse.unsqueeze(-2)
    else:
        z = A.to_dense()
        identity = torch.eye(A.state_size, dtype=z.dtype, device=z.device)
        implicit = identity - alpha * z
        structure = Dense(solve(implicit, identity + (1 - alpha) * z))
        solved = divide(implicit, B)
        read = divide(implicit, identity if C is None else C, left=False)
    if alpha == 0:
        return structure, solved, C, D
    through = alpha * (solved if C is None else C @ solved)
    return structure, solved, read, through if D is None else D + through


def check_no_pole(A: Structure, steps: Tensor | None, alpha: float, method: str) -> None:
    """Refuse a system with a pole where an implicit method divides by zero: I - α A singular."""
    eps = torch.finfo(torch.float64).eps
    diagonal = A.as_diagonal()
    if diagonal is not None:
        distance = (1 - alpha * diagonal.detach()).abs().amin(-1)
        wrong = distance <= 4 * eps
    else:
        z = A.to_dense().detach().nan_to_num()
        n = A.state_size
        inverse, info = inv_ex(torch.eye(n, dtype=z.dtype, device=z.device) - alpha * z)
        # Rounding hides most zeros: the inverse is then large, but a correct inverse may be large
        # too.
        if not is_seen((info != 0) | ~(inverse.abs().amax((-2, -1)) < 1e12), wait=False):
            return
        distance = (1 - alpha * eigvals(z)).abs().amin(-1)
        wrong = (info != 0) | (distance <= 64 * n * eps)
    if not is_seen(wrong, wait=False):
        return
    place = tuple(int(axis) for axis in wrong.nonzero()[0])
    step = None if steps is None else float(steps.expand(wrong.shape)[place])
    raise ValueError(
        f"The system has a pole at {'1/(α dt)' if step is None else f'{1 / (alpha * step):.6g}'}"
        f"{f' (entry {list(place)} of the batch axes)' if place else ''}, where {method!r} divides "
        f"by zero: 1 - α·dt·pole = 0 for α = {alpha:g}. Expected another `dt`, or a method that "
        'divides by nothing, such as "zoh".'
    )


def divide(by: Tensor, matrices: Tensor, *, left: bool = True) -> Tensor:
    """Multiply matrices by an inverse from the left or the right, batch axes broadcasting.

    torch takes `(k, n)` with `(k, n, n)` for k vectors. With as many axes it cannot.
    """
    return solve(by, matrices[(None,) * (by.ndim - matrices.ndim)], left=left)
