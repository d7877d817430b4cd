"""Recurrences of rounded matrices: running, readout, and bounds on the error of outputs."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from linrec.executors import Result
from linrec.systems import LinearRecurrence, require_recurrence


@dataclass(frozen=True, eq=False)
class RoundedRecurrence(ABC):
    """A recurrence of integer weights, with a bound on the error of its outputs.

    Attributes:
        A (n, n): integers of 8 or 16 bits.
        B (n, m): integers of 8 or 16 bits.
        kept (n): k, 1 where A has the difference from a row of the identity.
        readout (p, n): R, from rounded states to outputs, in float64.
        D (p, m): from inputs in their own unit to outputs. None: no such term.
        copies: the number of copies of the system.
        steps: the longest sequence for which the bound holds.
        perturbation (p): a bound on the output error from the rounding of the matrices.
        rounding (p): a bound on the further output error from the rounding of states and inputs.
    """

    A: Tensor
    B: Tensor
    kept: Tensor
    readout: Tensor
    D: Tensor | None
    copies: int
    steps: int
    perturbation: Tensor
    rounding: Tensor
    state_dtype: ClassVar[torch.dtype]

    @property
    def bound(self) -> Tensor:
        """The largest error of each output of a copy `(p)`, for any inputs in the range."""
        return self.perturbation + self.rounding

    @abstractmethod
    def take(self, inputs: Tensor) -> Tensor:
        """Check that inputs are in the range, and convert them for `step`."""

    @abstractmethod
    def step(self, input: Tensor, state: Tensor) -> Tensor:
        """Run one step.

        Args:
            input (*batch, copies, m): u, as converted by `take`.
            state (*batch, copies, n): x before the step.

        Returns:
            The state after the step, `(*batch, copies, n)`.
        """

    def read(self, input: Tensor, state: Tensor) -> Tensor:
        """Compute outputs `(*batch, copies·p)` from states and from inputs converted by `take`."""
        outputs = state.double() @ self.readout.mT
        if self.D is not None:
            outputs = outputs + input @ self.D.mT
        return outputs.flatten(-2)

    def run(self, inputs: Tensor) -> Result:
        """Run all steps from a zero state.

        Args:
            inputs (*batch, time, copies·m): u, in the original unit.

        Returns:
            Outputs `(*batch, time, copies·p)` in float64, and the last state as `step` returns it.

        Raises:
            ValueError: an input is out of range, or is not finite.
        """
        steps = self.take(inputs).unflatten(-1, (self.copies, -1)).unbind(-3)
        shape = (*inputs.shape[:-2], self.copies, len(self.A))
        state = inputs.new_zeros(shape, dtype=self.state_dtype)
        outputs = []
        for input in steps:
            state = self.step(input, state)
            outputs.append(self.read(input, state))
        stacked = torch.stack(outputs, -2) if outputs else inputs.new_zeros(0, dtype=torch.float64)
        width = self.copies * len(self.readout)
        return Result(stacked.reshape(*inputs.shape[:-1], width), state.flatten(-2))


def check_range(inputs: Tensor, largest: float, in_range: Tensor) -> None:
    """Refuse inputs with numbers outside of the range."""
    if not bool(in_range.all()):
        raise ValueError(
            f"`inputs` has {float(inputs.abs().max()):g} in it: expected numbers of at most "
            f"{largest:g}. Type a larger `largest_input`."
        )


@dataclass(frozen=True, eq=False)
class ScaledSystem:
    """One copy of a system in double precision, with rescaled states.

    Attributes:
        A (n, n): for the rescaled states.
        B (n, m): from inputs in their original unit to rescaled states.
        C (p, n): from rescaled states to outputs in their original unit.
        D (p, m): from inputs to outputs. None: no such term.
        kept (n): 1 where a row of A is closer to that of the identity than to zero.
    """

    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    kept: Tensor

    @classmethod
    def of(
        cls, recurrence: LinearRecurrence, steps: int, largest_input: float, largest: int
    ) -> "ScaledSystem":
        """Choose units in which states are at most `largest`, for inputs up to `largest_input`."""
        A, B, C, D = matrices(recurrence)
        eye = torch.eye(len(A), dtype=torch.float64)
        scale = largest_input * Reached.of(A, B, eye, steps).inputs
        scale = torch.where(scale > 0, scale, 1.0) / largest
        A, B, C = A * scale / scale.unsqueeze(-1), B / scale.unsqueeze(-1), C * scale
        kept = (A - eye).abs().amax(-1) < A.abs().amax(-1)
        return cls(A, B, C, D, kept.double())

    @property
    def identity(self) -> Tensor:
        """The rows of the identity that are kept exact, `(n, n)`; the rest of A is rounded."""
        return torch.diag(self.kept)


def check(
    recurrence: LinearRecurrence, steps: int, largest_input: float, weights: torch.dtype
) -> int:
    """Check that a recurrence can be rounded, and return the number of levels of each sign."""
    require_recurrence(recurrence)
    kinds = {
        "varies with time": recurrence.time_varying,
        "is a batch of systems": bool(recurrence.batch_shape),
        "is complex": recurrence.dtype.is_complex,
    }
    for kind, so in kinds.items():
        if so:
            raise ValueError(
                f"The recurrence {kind}: expected one real system that is the same at every step."
            )
    if weights not in (torch.int8, torch.int16):
        raise ValueError(f"`weights` is {weights}: expected torch.int8 or torch.int16.")
    if steps < 1:
        raise ValueError(f"`steps` is {steps}: expected 1 or more.")
    if not 0 < largest_input < float("inf"):
        raise ValueError(f"`largest_input` is {largest_input}: expected a positive number.")
    return torch.iinfo(weights).max


def matrices(recurrence: LinearRecurrence) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Write out A, B and C of one copy in double precision, and D."""
    wide = recurrence.to(torch.float64)
    A = wide.A.to_dense().detach().cpu()
    eye = torch.eye(len(A), dtype=torch.float64)
    B, C = (eye if each is None else each.detach().cpu() for each in (wide.B, wide.C))
    for name, matrix in (("A", A), ("B", B), ("C", C)):
        if not bool(matrix.isfinite().all()):
            raise ValueError(f"`{name}` has numbers that are not finite.")
    return A, B, C, None if wide.D is None else wide.D.detach().cpu()


@dataclass(frozen=True, eq=False)
class Reached:
    """Bounds on the effect on outputs of inputs, and of additions to states, of at most 1.

    Attributes:
        inputs (p): Σ_k |R A^k B|, summed over inputs.
        states (p): Σ_k |R A^k| r, summed over states; r is 1 unless given.
        squares (p): Σ_k |R A^k|², summed over states.
    """

    inputs: Tensor
    states: Tensor
    squares: Tensor

    @classmethod
    def of(
        cls, A: Tensor, B: Tensor, readout: Tensor, steps: int, additions: Tensor | None = None
    ) -> "Reached":
        """Sum over `steps` steps, for `additions (n)` r to states."""
        inputs = states = squares = torch.zeros(len(readout), dtype=torch.float64)
        additions = torch.ones(len(A), dtype=torch.float64) if additions is None else additions
        power = readout
        for _ in range(steps):
            inputs, states = inputs + (power @ B).abs().sum(-1), states + power.abs() @ additions
            squares = squares + power.square().sum(-1)
            power = power @ A
        return cls(inputs, states, squares)


def fit_readout(
    A: Tensor,
    B: Tensor,
    C: Tensor,
    A_found: Tensor,
    B_found: Tensor,
    steps: int,
    largest: int,
) -> tuple[Tensor, Tensor]:
    """Fit the readout R to rounded matrices, and bound the remainder, for inputs of at most 1.

    White inputs up to `largest` have a variance of a third of its square, and roundings 1/12. With
    G_k = C A^k B and Ĝ_k = Â^k B̂ the error's variance is least for

        R = (Σ_k G_k Ĝ_k* σ²) (Σ_k Ĝ_k Ĝ_k* σ² + Σ_k Â^k Â^k* / 12)^-1

    Returns:
        R `(p, n)`, and Σ_k |R Ĝ_k - G_k| `(p)`.
    """
    variance, size = largest**2 / 3, len(A)
    both, own = torch.zeros(len(C), size).double(), torch.zeros(size, size).double()
    given, found, power = B, B_found, torch.eye(size, dtype=torch.float64)
    pairs = []
    for _ in range(steps):
        response = C @ given
        pairs.append((response, found))
        both = both + variance * response @ found.mT
        own = own + variance * found @ found.mT + power @ power.mT / 12
        given, found, power = A @ given, A_found @ found, A_found @ power
    readout = torch.linalg.solve(own, both.mT).mT
    left = sum((readout @ found - response).abs().sum(-1) for response, found in pairs)
    assert isinstance(left, Tensor)
    return readout, left
