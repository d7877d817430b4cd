"""Three methods to compute all states in double precision, and to propagate bounds on errors.

The accuracy of the states is checked afterwards. Bounds are propagated in sums and products of
non-negative numbers, whose rounding `INFLATED` covers.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from linrec.certificate.exact import INFLATED, gamma, multiply
from linrec.certificate.norm import Norm, fitting_norm
from linrec.certificate.real import RealSystem, whole
from linrec.executors.carry import carry, pairings
from linrec.scan import linear_scan

# The least bound that is propagated: any underflow is negligible compared with it.
LEAST = 2.0**-990


class Propagation(Protocol):
    """A method to compute states of a system and bounds on their errors, from step to step."""

    def solve(self, drive: Tensor, start: Tensor) -> Tensor:
        """Compute the states x_t = A x_{t-1} + b_t, `(*batch, k, time, b)`, in some precision.

        Args:
            drive (*batch, k, time, b): b.
            start (*batch, k, b): x_{-1}.
        """
        ...

    def carry(self, s: Tensor, error: Tensor) -> Tensor:
        """Bound f_t = A f_{t-1} + s_t, f_{-1} = 0, entry by entry, `(*batch, k, time, b)`.

        Args:
            s (*batch, k, time, b): s, up to an error.
            error (*batch, k, time, b): a bound on it.
        """
        ...


def choose_propagation(system: RealSystem, is_complex: bool) -> Propagation:
    """Choose the method for a system that was real or complex."""
    if system.A.shape[-1] == (2 if is_complex else 1):
        return Elementwise.of(system, is_complex)
    if system.by_step["A"]:
        return Rotating.of(system)
    return Contracting.of(system)


@dataclass(frozen=True, eq=False)
class Elementwise:
    """Systems of one state each, real or complex, in which a number is multiplied by a number.

    Attributes:
        factors (*batch, k, [time] or 1): the numbers.
        is_complex: whether states are a real and an imaginary part.
    """

    factors: Tensor
    is_complex: bool

    @classmethod
    def of(cls, system: RealSystem, is_complex: bool) -> "Elementwise":
        """Read the numbers."""
        first = system.A[..., 0, 0]
        factors = torch.complex(first, system.A[..., 1, 0]) if is_complex else first
        return cls(factors if system.by_step["A"] else factors.unsqueeze(-1), is_complex)

    def solve(self, drive: Tensor, start: Tensor) -> Tensor:
        """Scan."""
        numbers = whole(drive, self.is_complex).squeeze(-1).mT
        states = linear_scan(self.factors.mT, numbers, whole(start, self.is_complex).squeeze(-1))
        states = states.mT.unsqueeze(-1)
        return torch.view_as_real(states).flatten(-2) if self.is_complex else states

    def carry(self, s: Tensor, error: Tensor) -> Tensor:
        """|f_t| ≤ |a_t| |f_{t-1}| + |s_t|."""
        sizes = INFLATED * (s.abs() + error).sum(-1)
        return accumulate(INFLATED * self.factors.abs(), sizes).unsqueeze(-1).expand_as(s)


@dataclass(frozen=True, eq=False)
class Contracting:
    """One matrix for all steps, in the norm in which it grows least.

    Attributes:
        A (*batch, k, b, b): the matrix.
        norm: this norm.
        steps: the number of steps.
    """

    A: Tensor
    norm: Norm
    steps: int

    @classmethod
    def of(cls, system: RealSystem) -> "Contracting":
        """Find the norm."""
        steps = max(system.inputs.shape[-2], 1)
        return cls(system.A, fitting_norm(system.A, system.doubt("A"), steps), steps)

    def solve(self, drive: Tensor, start: Tensor) -> Tensor:
        """Scan in pairs of steps, in the coordinates S x, in which no power of A loses digits."""
        S, R = (M.squeeze(-3) for M in (self.norm.forward, self.norm.backward))
        start = (S @ start.transpose(-1, -2)).squeeze(-1)
        drive = multiply(S, drive.squeeze(-3), False)
        start = start.expand(drive[..., 0, :].shape)
        before, last = carry(self.powers, drive, start)
        states = torch.cat([before[..., 1:, :], last.unsqueeze(-2)], -2)
        return multiply(R, states, False).unsqueeze(-3)

    @cached_property
    def powers(self) -> Tensor:
        """A, A², A⁴, … in the coordinates S x, once for the states and their correction."""
        A = (self.norm.forward @ self.A @ self.norm.backward).squeeze(-3)
        powers = [A]
        for _ in range(pairings(self.steps)):
            powers.append(powers[-1] @ powers[-1])
        return torch.stack(powers)

    def carry(self, s: Tensor, error: Tensor) -> Tensor:
        """‖S f_t‖ ≤ growth ‖S f_{t-1}‖ + Σ_i |s_i| ‖column i of S‖."""
        columns = torch.linalg.vector_norm(self.norm.forward, dim=-2).unsqueeze(-1)
        sizes = INFLATED * ((s.abs() + error) @ columns).squeeze(-1)
        radius = accumulate(self.norm.growth.unsqueeze(-1), sizes)
        return INFLATED * self.norm.rows.unsqueeze(-2) * radius.unsqueeze(-1)


@dataclass(frozen=True, eq=False)
class Rotating:
    """A matrix for each step, in coordinates that turn with the states (Lohner 1987).

    With Q_t of a QR decomposition A_t Q_{t-1} = Q_t R_t, f_t = Q_t g_t and Q* Q = 1 + E, ‖E‖ ≤ ε,

        |g_t| ≤ |(1 + E)^-1 Q_t* A_t Q_{t-1}| |g_{t-1}| + |(1 + E)^-1 Q_t* s_t|

    where the matrix is R_t up to bounded errors, nearly triangular. Products of |R_t| grow little
    more than products of A_t itself; products of |A_t| would grow without limit.

    Attributes:
        A (*batch, k, time, b, b): the matrices.
        uncertainty: a bound on how far they are from the true ones, or None.
    """

    A: Tensor
    uncertainty: Tensor | None

    @classmethod
    def of(cls, system: RealSystem) -> "Rotating":
        """Keep the matrices."""
        return cls(system.A, system.doubt("A"))

    def solve(self, drive: Tensor, start: Tensor) -> Tensor:
        """Go step by step."""
        state, states = start.unsqueeze(-1), []
        for A, now in zip(self.A.unbind(-3), drive.unsqueeze(-1).unbind(-3), strict=True):
            state = A @ state + now
            states.append(state)
        return torch.stack(states, -3).squeeze(-1)

    def carry(self, s: Tensor, error: Tensor) -> Tensor:
        """Carry |g_t|, step by step."""
        n = self.A.shape[-1]
        one = torch.eye(n, dtype=s.dtype, device=s.device)
        turned = [one.expand_as(self.A[..., 0, :, :])]
        for A in self.A.unbind(-3):
            turned.append(torch.linalg.qr(A @ turned[-1]).Q)
        Q = torch.stack(turned, -3)
        before, Q = Q[..., :-1, :, :], Q[..., 1:, :, :]
        off = (Q.mH @ Q - one).abs() + gamma(n + 2) * (Q.abs().mH @ Q.abs() + one)
        epsilon = torch.linalg.matrix_norm(off)
        spread = torch.where(epsilon < 0.5, 2.02 * epsilon, torch.nan)[..., None, None]

        R = Q.mH @ self.A @ before
        blurred = gamma(2 * n + 2) * self.A.abs()
        blurred = blurred if self.uncertainty is None else blurred + self.uncertainty
        R = R.abs() + Q.abs().mH @ blurred @ before.abs()
        R = INFLATED * (R + spread * R.sum(-2, keepdim=True))
        s, error = s.unsqueeze(-1), error.unsqueeze(-1)
        s = (Q.mH @ s).abs() + Q.abs().mH @ (error + gamma(n) * s.abs())
        s = INFLATED * (s + spread * s.sum(-2, keepdim=True)) + LEAST

        g, bounds = torch.zeros_like(s[..., 0, :, :]), []
        for matrix, now in zip(R.unbind(-3), s.unbind(-3), strict=True):
            g = matrix @ g + now
            bounds.append(g)
        return INFLATED * (Q.abs() @ torch.stack(bounds, -3)).squeeze(-1)


def accumulate(growth: Tensor, sizes: Tensor) -> Tensor:
    """Bound f_t = growth_t f_{t-1} + sizes_t, f_{-1} = 0, from above.

    Args:
        growth (*batch, k, time or 1): the factors.
        sizes (*batch, k, time): the added terms.
    """
    sizes = sizes + LEAST
    if sizes.shape[-1] == 0:
        return sizes
    if growth.shape[-1] > 1 and bool((growth > 1).any()):
        f, found = torch.zeros_like(sizes[..., 0]), []
        for factor, now in zip(growth.unbind(-1), sizes.unbind(-1), strict=True):
            f = factor * f + now
            found.append(f)
        return INFLATED * torch.stack(found, -1)
    # A scan multiplies factors with each other. Products of factors of at least 1 cannot underflow;
    # partial products of factors below 1 are below 1, so any underflow is negligible beside LEAST
    # times the largest f.
    small = scan_last_axis(growth.clamp(max=1), sizes)
    small = small + LEAST * torch.nan_to_num(small, 0.0).amax(-1, keepdim=True)
    if not bool((growth > 1).any()):
        return INFLATED * small
    return INFLATED * torch.where(growth > 1, scan_last_axis(growth.clamp(min=1), sizes), small)


def scan_last_axis(growth: Tensor, sizes: Tensor) -> Tensor:
    """Scan along the last axis."""
    return linear_scan(growth.mT, sizes.mT).mT
