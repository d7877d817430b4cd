"""Error bounds of executors with plans that change the coordinates of the states."""

import numpy as np
import torch
from torch import Tensor

from linrec.coordinates import Coordinates, whole_numbers
from linrec.coordinates.contraction import EXACT_PRODUCTS, in_complex_numbers, in_real_numbers
from linrec.executors import Executor
from linrec.testing.bounds.own_coordinates import ErrorBounds
from linrec.testing.paths import Path

# Executors compute this many first steps of an impulse response in the system's own coordinates.
FIRST_STEPS = 8

# The allowed error of an inverse, in multiples of its rounding errors; a larger one is a bug.
STAGES = 64


class MovedBounds:
    """The bounds of a system that is run in coordinates z of its states, x = T z.

    Three errors add up. First, the system run in its new coordinates has the bounds of
    `ErrorBounds` there, which |C T| and |T| transform back. Second, it is not quite the same
    system: with W for the inverse of T as it is stored,

        |A' - T⁻¹ A T| ≤ u |A'|    |B' - T⁻¹ B| ≤ u |B'| + (u n |W| + |W - T⁻¹|) |B|

    (A' is rounded once), and C' = C T and the initial state differ similarly; each difference is a
    source of errors at each step, carried on by the exact system. Third, the first steps of the
    impulse response come from a loop in double precision in the old coordinates.

    Args:
        own: the bounds in the recurrence's own coordinates.
        coordinates: the coordinates of the plan, for one copy.
    """

    def __init__(self, own: ErrorBounds, coordinates: Coordinates) -> None:
        self.own = own
        one = own.recurrence.per_copy()
        lengths = own.lengths
        if lengths is not None and own.copies > 1:
            lengths = lengths.unsqueeze(-1)
        start = own.signed_start
        moved = coordinates.transform(one.to(own.signed_inputs.dtype))
        self.inner = type(own)(
            moved,
            own.signed_inputs,
            coordinates.inverse.apply(start.to(coordinates.inverse.dtype)),
            lengths,
            dtypes=(own.dtype, own.rounded_to),
        )
        # All with an axis of time: (*batch, 1, n, n).
        self.T, self.W = (
            each.to_dense().abs().unsqueeze(-3) for each in (coordinates.basis, coordinates.inverse)
        )
        self.unit, self.double_unit, self.n = own.unit, own.double_unit, own.n
        self.off, self.rounded_once = inverse_error(coordinates, self.double_unit)
        self.off = self.off.unsqueeze(-3)
        self.by_way: dict[tuple[type[Executor], Path | None], tuple[Tensor, Tensor]] = {}

    def of_kind(self, kind: type[Executor], path: Path | None = None) -> tuple[Tensor, Tensor]:
        """Bound outputs `(*batch, time, p)` and states `(*batch, time + 1, n)`."""
        if (kind, path) not in self.by_way:
            outputs, states = self.inner.of_kind(kind, path)
            between = self.between()
            states = states + between.squeeze(-1)
            outputs = outputs + self.read(between)
            back = self.T @ states.unsqueeze(-1) + self.conversion(self.T, self.inner.states)
            self.by_way[kind, path] = outputs, back.squeeze(-1)
        return self.by_way[kind, path]

    def between(self) -> Tensor:
        """Bound the difference between the two systems' states, `(*batch, time + 1, n, 1)`."""
        system, own, inner = self.inner.system, self.own, self.inner
        A = self.unit * system.A
        if not self.rounded_once:
            A = A + self.double_unit * (self.n + 2) * self.W @ own.system.A @ self.T
        drive = self.conversion(self.W, own.drive) + self.off @ own.drive
        local = A @ inner.states[..., :-1, :, :] + drive + self.unit * inner.drive
        start = self.conversion(self.W, own.start) + self.off @ own.start
        start = (start + self.unit * inner.start).expand_as(inner.start)
        return carry_states(inner, torch.cat([start, local.expand_as(inner.drive)], -3))

    def conversion(self, matrix: Tensor, vectors: Tensor) -> Tensor:
        """Bound the rounding of a matrix-vector product in double precision, cast afterwards."""
        return self.double_unit * self.n * (matrix @ vectors)

    def read(self, states: Tensor) -> Tensor:
        """Bound the errors of the readout by C' = C T, of C' itself, and of the first steps."""
        inner, own = self.inner, self.own
        C = inner.system.C
        assert C is not None
        inexact = self.unit * C
        if own.system.C is not None:
            inexact = inexact + self.double_unit * self.n * own.system.C @ self.T
        outputs = C @ states[..., 1:, :, :] + inexact @ inner.states[..., 1:, :, :]
        return (outputs + self.first_steps()).squeeze(-1)

    def first_steps(self) -> Tensor:
        """Bound the loop that computes C A^k B for the first k in the old coordinates."""
        own = self.own
        A, B, C = own.system.A, own.system.B, own.system.C
        B = torch.eye(self.n, dtype=A.dtype).unsqueeze(0) if B is None else B
        count = min(FIRST_STEPS, own.steps)
        powers = own.recurrence.per_copy().A.to(own.signed_inputs.dtype).to_dense().detach()
        power = torch.eye(self.n, dtype=powers.dtype)
        exact = [power.abs().expand_as(A.squeeze(-3))]
        for _ in range(count):
            power = powers @ power
            exact.append(power.abs())
        unit, total = self.double_unit, torch.zeros(1, dtype=A.dtype)
        for k in range(count):
            error = torch.zeros((), dtype=A.dtype)
            for j in range(1, k + 1):
                made = A.squeeze(-3) @ exact[j - 1] @ B.squeeze(-3)
                error = error + exact[k - j] @ made
            error = unit * own.roundings * error
            if C is not None:
                read = C.squeeze(-3) @ exact[k] @ B.squeeze(-3)
                error = unit * (self.n + 2) * read + (C.squeeze(-3) @ error if k else 0.0)
            elif not k:
                continue
            late = own.inputs[..., : own.steps - k, :, :]
            late = torch.cat([torch.zeros_like(own.inputs[..., :k, :, :]), late], -3)
            total = total + error.unsqueeze(-3) @ late
        return total


def carry_states(bounds: ErrorBounds, sources: Tensor) -> Tensor:
    """Propagate sources of errors through the exact system, step by step."""
    states = [sources[..., 0, :, :]]
    for t in range(1, sources.shape[-3]):
        states.append(bounds.arrived(sources, states[-1], t))
    return torch.stack(torch.broadcast_tensors(*states), -3)


def dual(coordinates: Coordinates) -> Coordinates:
    """Return the coordinates of the gradient and of the adjoint system, T^{-*}."""
    original = coordinates.original.mH
    return Coordinates(
        coordinates.inverse.adjoint(),
        coordinates.basis.adjoint(),
        coordinates.matrix.mH,
        original,
    )


def inverse_error(coordinates: Coordinates, unit: float) -> tuple[Tensor, bool]:
    """Bound |W - T⁻¹|, `(*batch, n, n)`, and return whether T⁻¹ A T was rounded once.

    If T is small enough, the difference is computed, in whole numbers; but the bound never exceeds
    what rounding explains.
    """
    T, W = coordinates.basis.to_dense(), coordinates.inverse.to_dense()
    n = T.shape[-1]
    explained = STAGES * n * unit * (W.abs() @ T.abs() @ W.abs())
    blocks = coordinates.original
    systems = blocks.shape[:-2].numel()
    size = blocks.shape[-1] * (2 if T.is_complex() else 1)
    if systems * size**3 > EXACT_PRODUCTS:
        return explained, False
    # (The whole matrix of a block-diagonal system is inverted: its blocks are few and small.)
    found = torch.zeros_like(explained)
    pairs = zip(
        T.reshape(-1, n, n).numpy(force=True), W.reshape(-1, n, n).numpy(force=True), strict=True
    )
    for number, (basis, inverse) in enumerate(pairs):
        difference = off_by(basis, inverse)
        if difference is None:
            return explained, False
        found.view(-1, n, n)[number] = torch.from_numpy(np.abs(difference))
    return torch.minimum(found, explained), True


def off_by(basis: np.ndarray, inverse: np.ndarray) -> np.ndarray | None:
    """Compute W - T⁻¹ in whole numbers; None where W is too far off to be refined."""
    near = whole_numbers.to_fixed(in_real_numbers(inverse))
    exact = whole_numbers.refine_inverse(whole_numbers.to_fixed(in_real_numbers(basis)), near)
    if exact is None:
        return None
    return in_complex_numbers(whole_numbers.to_float(near - exact), like=basis)
