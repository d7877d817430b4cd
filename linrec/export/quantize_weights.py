"""Quantisation to weights of 8 bits and states in float16, with a bound on the error."""

import math
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

# Units are chosen so that no state exceeds this: up to 2^11 float16 has every integer, and rounds
# by half a unit at most.
LARGEST = 2**11 - 1
HALF_UNIT = 0.5
EPS = 2.0**-24  # half of float32's eps, for one rounding
DROPPED = 2**13 - 1  # the bits that float32 has beyond float16
SMALLEST = 2.0**-14  # below it float16 has a fixed unit, 2^-24
CHANCE = 1e-9  # probability that a state or an output leaves the bound of random roundings


@dataclass(frozen=True, eq=False)
class HalfRecurrence(RoundedRecurrence):
    """A recurrence with integer weights and a float16 state, as `quantize_weights` makes it.

        x_t = float16(k x_{t-1} + a A x_{t-1} + b B u_t)        y_t = R x_t + D u_t

    Row i has k_i of 0 or 1, and the numbers a_i and b_i. Sums are taken in float32 or wider, and
    in float64 where rounding is random.

    Attributes:
        units (n, 2): a and b, numbers of float32.
        largest_input: the largest absolute value of an input.
        stochastic: whether states are rounded up or down at random, so that they are right on
            average.

    The others are those of `RoundedRecurrence`.
    """

    units: Tensor
    largest_input: float
    stochastic: bool = False
    state_dtype = torch.float16

    def take(self, inputs: Tensor) -> Tensor:
        """Check that inputs are in the range, and cast them to float64."""
        check_range(inputs, self.largest_input, inputs.abs() <= self.largest_input)
        return inputs.double()

    def step(self, input: Tensor, state: Tensor) -> Tensor:
        """Run one step, with sums in float64; see `RoundedRecurrence.step`.

        Random roundings are drawn from torch's generator of the device.
        """
        wide, (a, b) = state.double(), self.units.double().unbind(-1)
        moved = a * (wide @ self.A.double().mT) + b * (input.double() @ self.B.double().mT)
        moved = self.kept * wide + moved
        return round_by_chance(moved) if self.stochastic else moved.to(torch.float16)


def round_by_chance(numbers: Tensor) -> Tensor:
    """Round to float16 at random, up or down, with E[round(x)] = x.

    float32 has 13 bits more than float16; 13 random bits are added to these, and after carrying
    they are dropped. Numbers below 2^-14 are rounded to the nearest.
    """
    single = numbers.to(torch.float32)
    bits = single.view(torch.int32)
    drawn = torch.randint_like(bits, DROPPED + 1)
    lucky = ((bits + drawn) & ~DROPPED).view(torch.float32)
    ordinary = (single.abs() >= SMALLEST) & (single.abs() < torch.finfo(torch.float16).max)
    return torch.where(ordinary, lucky, single).to(torch.float16)


@on_cpu
def quantize_weights(
    recurrence: LinearRecurrence,
    *,
    steps: int,
    largest_input: float = 1.0,
    weights: torch.dtype = torch.int8,
    stochastic: bool = False,
) -> HalfRecurrence:
    """Quantise a recurrence to integer weights of 8 bits and a float16 state, with an error bound.

    This is for processors with floats and little memory; for those without floats use `quantize`,
    whose state of 16 bits is 16 times finer at its largest. States are in units in which they are
    below 2^11, where float16 rounds by half a unit or less. For each row of A, the row itself or
    its difference from the identity is rounded, whichever is smaller. The readout R is fitted to
    the rounded matrices.

    With Â, B̂ the rounded matrices and |u| ≤ U

        |ŷ_t - y_t| ≤ U Σ_k |R Â^k B̂ - C A^k B| + Σ_k |R Â^k| r
        r = 1/2 + γ (k L + L |Â - k| + U |B̂|),  γ = (n + m + 4) 2^-24,  L = 2^11

    over k < steps, in units. The first sum is attained by some input; the second, but for the
    rounding of the sums in float32 (γ), by states near their largest.

    Roundings to the nearest may all go one way, and for slow systems of high order they could then
    fill the range. Stochastic rounding (`stochastic`) rounds up with a probability equal to the
    fraction that is rounded off. Each error then has mean 0, whatever came before it, and lies in
    an interval of one unit. By Hoeffding's inequality for martingales the second sum is then

        (ln(2 N / δ) / 2 · Σ_k |R Â^k|²)^(1/2) + Σ_k |R Â^k| r,
        r = 2^-13 + (n + m + 4) 2^-53 (k L + L |Â - k| + U |B̂|)

    with sums taken in float64. It holds for all N = steps·copies·(n + p) states and outputs of a
    sequence at once, except with probability δ = 10^-9.

    Args:
        recurrence: a real, time-invariant system.
        steps: the longest sequence for which the bound holds. Computing it costs 4 steps·n³.
        largest_input: U, the largest absolute value of an input.
        weights: torch.int8, or torch.int16 for 256 times smaller errors of the matrices.
        stochastic: whether to round states up or down at random.

    Returns:
        The recurrence with integer weights.

    Raises:
        ValueError: the recurrence is complex, time-varying or a batch; or rounding errors alone
            could exceed the range of a state.

    Numerical error: see above; `HalfRecurrence.bound` has the numbers.

    Example:
        >>> import torch, linrec, linrec.export
        >>> average = linrec.LinearRecurrence(A=[[0.9]], B=[[0.1]])
        >>> small = linrec.export.quantize_weights(average, steps=100)
        >>> bool((small.bound < 5e-3).all())
        True

    References:
        Higham 2002, Accuracy and Stability of Numerical Algorithms, section 2.1 (the format) and
        equation 3.7 (sums). Hoeffding 1963, Probability inequalities for sums of bounded random
        variables, theorem 2 and the end of section 2 (martingales). Connolly, Higham and Mary 2021,
        Stochastic rounding and its probabilistic backward error analysis.
    """
    levels = check(recurrence, steps, largest_input, weights)
    given = ScaledSystem.of(recurrence, steps, largest_input, LARGEST)
    A, B, kept = given.A, given.B, given.kept
    a, rest = round_rows(A - given.identity, levels)
    A_found = rest * a + given.identity
    # Inputs fill the range; to leave room for rounding errors, units are made larger.
    b, drive = round_rows(B, levels)
    additions = rounding_errors(kept, rest * a, drive * b, largest_input, stochastic)
    eye = torch.eye(len(A), dtype=torch.float64)
    count = steps * recurrence.copies * (len(A) + len(given.C))
    # Of a sum of roundings, in root mean squares of their intervals.
    farthest = math.sqrt(math.log(2 * count / CHANCE) / 2) if stochastic else 0.0
    reached = Reached.of(A_found, drive * b, eye, steps, additions)
    noise = reached.states + farthest * reached.squares.sqrt()
    if not bool((noise < LARGEST / 2).all()):
        mend = "" if stochastic else "`stochastic=True` (`--stochastic`), whose roundings cancel; "
        raise ValueError(
            f"Errors of rounding could fill half of the range of a state within {steps:,} steps: "
            f"expected a system that forgets sooner. Take {mend}`quantize`, whose states are 16 "
            "times finer; or fewer `steps`."
        )
    inputs = largest_input * reached.inputs
    larger = float((inputs / (LARGEST - noise)).max().clamp(min=1.0))
    B, C = B / larger, given.C * larger
    b, drive = round_rows(B, levels)
    driven = B * largest_input / LARGEST, drive * b * largest_input / LARGEST
    readout, perturbation = fit_readout(A, driven[0], C, A_found, driven[1], steps, LARGEST)
    seen = Reached.of(A_found, drive * b, readout, steps, additions)
    return HalfRecurrence(
        A=rest.to(weights),
        B=drive.to(weights),
        kept=kept.to(torch.int64),
        readout=readout,
        D=given.D,
        copies=recurrence.copies,
        steps=steps,
        perturbation=LARGEST * perturbation,
        rounding=seen.states + farthest * seen.squares.sqrt(),
        units=torch.cat([a, b], -1).float(),
        largest_input=largest_input,
        stochastic=stochastic,
    )


def round_rows(matrix: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """Write the rows of a matrix as float32 numbers `(n, 1)` times integers `(n, m)`."""
    wanted = (matrix.abs().amax(-1, keepdim=True) / levels).clamp(min=2.0**-100)
    unit = wanted.float().double()
    return unit, (matrix / unit).round().clamp(-levels, levels)


def rounding_errors(
    kept: Tensor, moved: Tensor, drive: Tensor, largest_input: float, stochastic: bool
) -> Tensor:
    """Bound one step's rounding error of a state `(n)`: of float16, and of sums in float32.

    For random roundings, bound the part that has no mean of 0: of float32, and of sums in float64.
    """
    terms = moved.shape[-1] + drive.shape[-1] + 4
    sums = LARGEST * (kept + moved.abs().sum(-1)) + largest_input * drive.abs().sum(-1)
    if stochastic:
        return 1.001 * ((LARGEST + 1) * EPS + terms * 2.0**-53 * sums)
    return HALF_UNIT + 1.001 * terms * EPS * sums
