"""Quantisation to integers, weights of 8 bits and states of 16, with a bound on the error."""

from dataclasses import dataclass

import torch
from torch import Tensor

from linrec._tensors.devices import on_cpu
from linrec.export.rounded import (
    Reached,
    RoundedRecurrence,
    ScaledSystem,
    check,
    check_range,
    fit_readout,
)
from linrec.systems import LinearRecurrence

LARGEST = 2**15 - 1  # the largest state or input of 16 bits
MULTIPLIER = 22  # bits of the larger of a row's two multipliers
ROUNDS = 0.5 + 1e-6  # a rounding to integers, and the roundings of float64 below


@dataclass(frozen=True, eq=False)
class QuantizedRecurrence(RoundedRecurrence):
    """A recurrence of integers, as `quantize` makes it; every step is exact arithmetic.

        x_t = k x_{t-1} + round((a A x_{t-1} + b B u_t) / 2^s)        y_t = R x_t + D u_t

    Row i has k_i of 0 or 1, multipliers a_i, b_i and a shift s_i. Rounding is to the nearest,
    halves away from zero. States and inputs fit 16 bits, whatever the inputs are.

    Attributes:
        multipliers (n, 2): a and b.
        shift (n): s.
        input_unit: the value of an integer input of 1.

    The others are those of `RoundedRecurrence`.
    """

    multipliers: Tensor
    shift: Tensor
    input_unit: float
    state_dtype = torch.int64

    def whole(self, inputs: Tensor) -> Tensor:
        """Round inputs to integers.

        Raises:
            ValueError: an input is out of range, or is not finite.
        """
        rounded = (inputs.double() / self.input_unit).round()
        check_range(inputs, LARGEST * self.input_unit, rounded.abs() <= LARGEST)
        return rounded.to(torch.int64)

    take = whole

    def step(self, input: Tensor, state: Tensor) -> Tensor:
        """Run one step in integers, exactly; see `RoundedRecurrence.step`."""
        a, b = self.multipliers.unbind(-1)
        total = a * product(state, self.A) + b * product(input, self.B)
        half = 1 << (self.shift - 1)
        return self.kept * state + total.sign() * ((total.abs() + half) >> self.shift)

    def read(self, input: Tensor, state: Tensor) -> Tensor:
        """Compute outputs `(*batch, copies·p)` from integer inputs and states."""
        return super().read(self.input_unit * input.double(), state)


def product(vectors: Tensor, matrix: Tensor) -> Tensor:
    """Multiply integers in float64, which is exact below 2^53 and has fast products."""
    return (vectors.double() @ matrix.double().mT).to(torch.int64)


@on_cpu
def quantize(
    recurrence: LinearRecurrence,
    *,
    steps: int,
    largest_input: float = 1.0,
    weights: torch.dtype = torch.int8,
) -> QuantizedRecurrence:
    """Quantise a recurrence to integer weights of 8 bits and states of 16, with an error bound.

    States are in units of 1/32767 of the largest value that they can have, so nothing overflows.
    For each row of A, the row itself or its difference from the identity is rounded, whichever is
    smaller: slow systems have A close to 1, where the difference is what matters. The readout R is
    fitted to the rounded matrices by least squares, for white inputs and in the presence of
    rounding errors.

    With û_t the rounded inputs, r_t the rounding errors (each at most half a unit) and Â, B̂ the
    rounded matrices, the states are x̂_t = Â x̂_{t-1} + B̂ û_t + r_t, so that for |u| ≤ U

        |ŷ_t - y_t| ≤ U Σ_k |R Â^k B̂ - C A^k B| + Σ_k |R Â^k| (1/2 + |B̂| / 2) + |D| / 2

    over k < steps, halves in units. The first sum is attained by some input; the second by some
    rounding errors.

    Args:
        recurrence: a real, time-invariant system.
        steps: the longest sequence for which the bound holds. Computing it costs 4 steps·n³.
        largest_input: U, the largest absolute value of an input.
        weights: torch.int8, or torch.int16 for 256 times smaller errors of the matrices.

    Returns:
        The recurrence in integers.

    Raises:
        ValueError: the recurrence is complex, time-varying or a batch; or rounding errors alone
            could exceed the range of a state.

    Numerical error: see above; `QuantizedRecurrence.bound` has the numbers.

    Example:
        >>> import torch, linrec, linrec.export
        >>> average = linrec.LinearRecurrence(A=[[0.9]], B=[[0.1]])
        >>> small = linrec.export.quantize(average, steps=100)
        >>> bool((small.bound < 2e-3).all())
        True

    References:
        Middleton and Goodwin 1986, Improved finite word length characteristics in digital control
        using delta operators (the difference from the identity).
    """
    levels = check(recurrence, steps, largest_input, weights)
    size = recurrence.A.state_size + recurrence.input_size // recurrence.copies
    if size * levels * LARGEST >= 2 ** (62 - MULTIPLIER):
        raise ValueError(
            f"{size} states and inputs of {str(weights)[6:]} do not fit sums of 64 bits: expected "
            "fewer, or `weights=torch.int8`."
        )
    given = ScaledSystem.of(recurrence, steps, largest_input, LARGEST)
    A, identity, unit = given.A, given.identity, largest_input / LARGEST
    B = given.B * unit
    A_step, B_step, multipliers, shift = steps_of(A - identity, B, levels)
    rest = ((A - identity) / A_step).round()
    A_found = rest * A_step + identity
    # Inputs fill the range; to leave room for rounding errors, units are made larger.
    drive = (B / B_step).round()
    reached = Reached.of(A_found, drive * B_step, torch.eye(len(A)).double(), steps)
    noise = ROUNDS * (reached.states + reached.inputs)
    if not bool((noise < LARGEST / 2).all()):
        raise ValueError(
            f"Errors of rounding could fill the range of a state within {steps:,} steps: expected "
            f"a system that forgets sooner, or stays stable with weights of {str(weights)[6:]}. "
            "Type `weights=torch.int16` or fewer `steps`."
        )
    larger = float((LARGEST * reached.inputs / (LARGEST - noise)).max().clamp(min=1.0))
    B, C = B / larger, given.C * larger
    A_step, B_step, multipliers, shift = steps_of(A - identity, B, levels)
    drive = (B / B_step).round()
    B_found = drive * B_step
    readout, perturbation = fit_readout(A, B, C, A_found, B_found, steps, LARGEST)
    seen = Reached.of(A_found, B_found, readout, steps)
    rounding = ROUNDS * (seen.states + seen.inputs)
    if given.D is not None:
        rounding = rounding + ROUNDS * unit * given.D.abs().sum(-1)
    return QuantizedRecurrence(
        A=rest.to(weights),
        B=drive.to(weights),
        kept=given.kept.to(torch.int64),
        readout=readout,
        D=given.D,
        copies=recurrence.copies,
        steps=steps,
        perturbation=LARGEST * perturbation,
        rounding=rounding,
        multipliers=multipliers,
        shift=shift,
        input_unit=unit,
    )


def steps_of(A: Tensor, B: Tensor, levels: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Choose the rounding steps of the rows of two matrices, as integers over 2^s.

    Returns:
        The steps of A and of B `(n, 1)`, their numerators `(n, 2)` and s `(n)`.
    """
    wanted = torch.stack([A.abs().amax(-1), B.abs().amax(-1)], -1) / levels
    largest = wanted.amax(-1).clamp(min=2.0**-30)
    shift = (MULTIPLIER - largest.log2().ceil()).clamp(1, 60).to(torch.int64)
    numerators = (wanted * 2.0 ** shift.double().unsqueeze(-1)).ceil().clamp(min=1)
    steps = numerators * 2.0 ** -shift.double().unsqueeze(-1)
    return steps[:, :1], steps[:, 1:], numerators.to(torch.int64), shift
