"""A recurrence with weights of 8 bits and its state in float16, and a bound on its error."""

from dataclasses import dataclass

import torch
from torch import Tensor

from linrec.export.rounded import (
    Reached,
    RoundedRecurrence,
    ScaledSystem,
    check,
    check_range,
    fitted,
)
from linrec.systems import LinearRecurrence

# States are counted in units so that none is over this: up to 2^11 float16 has every whole number,
# and rounds by half a unit at most.
LARGEST = 2**11 - 1
HALF_UNIT = 0.5
EPS = 2.0**-24  # half of float32's, of one rounding


@dataclass(frozen=True, eq=False)
class HalfRecurrence(RoundedRecurrence):
    """A recurrence with whole weights and its state in float16, as `quantize_weights` makes it.

        x_t = float16(k x_{t-1} + a A x_{t-1} + b B u_t)        y_t = R x_t + D u_t

    Row i has k_i of 0 or 1, and the numbers a_i and b_i. Sums are taken in float32 or wider.

    Attributes:
        units (n, 2): a and b, numbers of float32.
        largest_input: the largest absolute value of an input.

    The others are those of `RoundedRecurrence`.
    """

    units: Tensor
    largest_input: float
    state_dtype = torch.float16

    def take(self, inputs: Tensor) -> Tensor:
        """Check that inputs are in the range, and cast them to float64."""
        check_range(inputs, self.largest_input, inputs.abs() <= self.largest_input)
        return inputs.double()

    def step(self, input: Tensor, state: Tensor) -> Tensor:
        """Run one step, with sums in float64; as `RoundedRecurrence.step`."""
        wide, (a, b) = state.double(), self.units.double().unbind(-1)
        moved = a * (wide @ self.A.double().mT) + b * (input.double() @ self.B.double().mT)
        return (self.kept * wide + moved).to(torch.float16)


def quantize_weights(
    recurrence: LinearRecurrence,
    *,
    steps: int,
    largest_input: float = 1.0,
    weights: torch.dtype = torch.int8,
) -> HalfRecurrence:
    """Round the matrices to whole numbers of 8 bits and the state to float16, with a bound.

    For processors with floats and little memory; those without take `quantize`, whose state of 16
    bits is 16 times finer at its largest. A state is counted in units in which it is below 2^11:
    there float16 rounds by half a unit or less. Of a row of A what is rounded is the row itself or
    its difference from the identity, whichever is smaller. What is read, R, is fitted to the
    rounded matrices.

    With Â, B̂ the rounded matrices and |u| ≤ U

        |ŷ_t - y_t| ≤ U Σ_k |R Â^k B̂ - C A^k B| + Σ_k |R Â^k| r
        r = 1/2 + γ (k L + L |Â - k| + U |B̂|),  γ = (n + m + 4) 2^-24,  L = 2^11

    over k < steps, in units. The first sum is attained by some input; the second, but for the
    rounding of the sums in float32 (γ), by states near their largest.

    Args:
        recurrence: a real, time-invariant system.
        steps: the longest sequence for which the bound is to hold. It costs 4 steps·n³.
        largest_input: U, the largest absolute value of an input.
        weights: torch.int8, or torch.int16 for 256 times smaller errors of the matrices.

    Returns:
        The recurrence with whole weights.

    Raises:
        ValueError: the recurrence is complex, varies or is a batch; or rounding errors alone could
            leave the range of a state.

    Numerical error: see above; `HalfRecurrence.bound` has the numbers.

    Example:
        >>> import torch, linrec, linrec.export
        >>> average = linrec.LinearRecurrence(A=[[0.9]], B=[[0.1]])
        >>> small = linrec.export.quantize_weights(average, steps=100)
        >>> bool((small.bound < 5e-3).all())
        True

    References:
        Higham 2002, Accuracy and Stability of Numerical Algorithms, section 2.1 (the format) and
        equation 3.7 (sums).
    """
    levels = check(recurrence, steps, largest_input, weights)
    given = ScaledSystem.of(recurrence, steps, largest_input, LARGEST)
    A, B, kept = given.A, given.B, given.kept
    a, rest = rounded(A - given.identity, levels)
    A_found = rest * a + given.identity
    # Inputs fill the range; where rounding errors come on top, units are made larger.
    b, drive = rounded(B, levels)
    additions = rounding_errors(kept, rest * a, drive * b, largest_input)
    eye = torch.eye(len(A), dtype=torch.float64)
    reached = Reached.of(A_found, drive * b, eye, steps, additions)
    if not bool((reached.states < LARGEST / 2).all()):
        raise ValueError(
            f"Errors of rounding could fill half of the range of a state within {steps:,} steps: "
            "expected a system that forgets sooner. Take `quantize`, whose states are 16 times "
            "finer, or fewer `steps`."
        )
    inputs = largest_input * reached.inputs
    larger = float((inputs / (LARGEST - reached.states)).max().clamp(min=1.0))
    B, C = B / larger, given.C * larger
    b, drive = rounded(B, levels)
    driven = B * largest_input / LARGEST, drive * b * largest_input / LARGEST
    readout, perturbation = fitted(A, driven[0], C, A_found, driven[1], steps, LARGEST)
    return HalfRecurrence(
        A=rest.to(weights),
        B=drive.to(weights),
        kept=kept.to(torch.int64),
        readout=readout,
        D=given.D,
        copies=recurrence.copies,
        steps=steps,
        perturbation=LARGEST * perturbation,
        rounding=Reached.of(A_found, drive * b, readout, steps, additions).states,
        units=torch.cat([a, b], -1).float(),
        largest_input=largest_input,
    )


def rounded(matrix: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """Write the rows of a matrix as numbers of float32 `(n, 1)` times whole ones `(n, m)`."""
    wanted = (matrix.abs().amax(-1, keepdim=True) / levels).clamp(min=2.0**-100)
    unit = wanted.float().double()
    return unit, (matrix / unit).round().clamp(-levels, levels)


def rounding_errors(kept: Tensor, moved: Tensor, drive: Tensor, largest_input: float) -> Tensor:
    """Bound what one step's roundings add to a state `(n)`: to float16, and of sums in float32."""
    terms = moved.shape[-1] + drive.shape[-1] + 4
    sums = LARGEST * (kept + moved.abs().sum(-1)) + largest_input * drive.abs().sum(-1)
    return HALF_UNIT + 1.001 * terms * EPS * sums
