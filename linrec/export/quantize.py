"""A recurrence in whole numbers, weights of 8 bits and states of 16, and a bound on its error."""

from dataclasses import dataclass

import torch
from torch import Tensor

from linrec.executors import Result
from linrec.systems import LinearRecurrence

LARGEST = 2**15 - 1  # of a state or an input of 16 bits
MULTIPLIER = 22  # bits of the larger of a row's two multipliers
ROUNDS = 0.5 + 1e-6  # a rounding to whole numbers, and those of float64 in what follows


@dataclass(frozen=True, eq=False)
class QuantizedRecurrence:
    """A recurrence of whole numbers, as `quantize` makes it; every step is exact arithmetic.

        x_t = k x_{t-1} + round((a A x_{t-1} + b B u_t) / 2^s)        y_t = R x_t + D u_t

    Row i has k_i of 0 or 1, and multipliers a_i, b_i and a shift s_i. Rounding is to the nearest,
    halves away from zero. States and inputs fit 16 bits, whatever the inputs are.

    Attributes:
        A (n, n): whole numbers of 8 or 16 bits.
        B (n, m): likewise.
        kept (n): k.
        multipliers (n, 2): a and b.
        shift (n): s.
        input_unit: what an input of 1 stands for.
        readout (p, n): R, from whole states to outputs, in float64.
        D (p, m): of inputs in their own unit; None: no direct way.
        copies: how many copies of the system there are.
        steps: how long sequences may be for the bound to hold.
        perturbation (p): how far outputs of the rounded matrices may be from those of the given.
        rounding (p): how far outputs may be from those, by the rounding of states and inputs.
    """

    A: Tensor
    B: Tensor
    kept: Tensor
    multipliers: Tensor
    shift: Tensor
    input_unit: float
    readout: Tensor
    D: Tensor | None
    copies: int
    steps: int
    perturbation: Tensor
    rounding: Tensor

    @property
    def bound(self) -> Tensor:
        """The largest error of each output of a copy `(p)`, for any inputs in the range."""
        return self.perturbation + self.rounding

    def whole(self, inputs: Tensor) -> Tensor:
        """Round inputs to whole numbers.

        Raises:
            ValueError: one is larger than it may be, or is not finite.
        """
        rounded = (inputs.double() / self.input_unit).round()
        if not bool((rounded.abs() <= LARGEST).all()):
            raise ValueError(
                f"`inputs` has {float(inputs.abs().max()):g} in it: expected numbers of at most "
                f"{LARGEST * self.input_unit:g}. Type a larger `largest_input`."
            )
        return rounded.to(torch.int64)

    def step(self, input: Tensor, state: Tensor) -> Tensor:
        """Run one step of whole numbers, exactly.

        Args:
            input (*batch, copies, m): u.
            state (*batch, copies, n): x before it.

        Returns:
            The state after it, `(*batch, copies, n)`.
        """
        a, b = self.multipliers.unbind(-1)
        total = a * product(state, self.A) + b * product(input, self.B)
        half = 1 << (self.shift - 1)
        return self.kept * state + total.sign() * ((total.abs() + half) >> self.shift)

    def run(self, inputs: Tensor) -> Result:
        """Run all steps from a zero state.

        Args:
            inputs (*batch, time, copies·m): u, in its own unit.

        Returns:
            Outputs `(*batch, time, copies·p)` in float64, and the last state in whole numbers.
        """
        steps = self.whole(inputs).unflatten(-1, (self.copies, -1)).unbind(-3)
        state = torch.zeros(*inputs.shape[:-2], self.copies, len(self.A), dtype=torch.int64)
        outputs = []
        for input in steps:
            state = self.step(input, state)
            outputs.append(self.read(input, state))
        stacked = torch.stack(outputs, -2) if outputs else inputs.new_zeros(0, dtype=torch.float64)
        width = self.copies * len(self.readout)
        return Result(stacked.reshape(*inputs.shape[:-1], width), state.flatten(-2))

    def read(self, input: Tensor, state: Tensor) -> Tensor:
        """Compute outputs `(*batch, copies·p)` of whole inputs and states."""
        outputs = state.double() @ self.readout.mT
        if self.D is not None:
            outputs = outputs + self.input_unit * input.double() @ self.D.mT
        return outputs.flatten(-2)


def product(vectors: Tensor, matrix: Tensor) -> Tensor:
    """Multiply whole numbers: in float64, which is exact below 2^53 and has fast products."""
    return (vectors.double() @ matrix.double().mT).to(torch.int64)


def quantize(
    recurrence: LinearRecurrence,
    *,
    steps: int,
    largest_input: float = 1.0,
    weights: torch.dtype = torch.int8,
) -> QuantizedRecurrence:
    """Round a recurrence to whole numbers of 8 bits, its state to 16, with a bound on the error.

    A state is counted in units of 1/32767 of the largest value that it can have, so that nothing
    overflows. Of a row of A what is rounded is the row itself or its difference from the identity,
    whichever is smaller: slow systems have A close to 1, where the difference is what matters.
    What is read, R, is fitted to the rounded matrices by least squares, for white inputs and in the
    presence of rounding errors.

    With û_t the rounded inputs, r_t the rounding errors (each at most half a unit) and Â, B̂ the
    rounded matrices, the states are x̂_t = Â x̂_{t-1} + B̂ û_t + r_t, so that for |u| ≤ U

        |ŷ_t - y_t| ≤ U Σ_k |R Â^k B̂ - C A^k B| + Σ_k |R Â^k| (1/2 + |B̂| / 2) + |D| / 2

    over k < steps, halves in units. The first sum is attained by some input; the second by some
    rounding errors.

    Args:
        recurrence: a real, time-invariant system.
        steps: the longest sequence for which the bound is to hold. It costs 4 steps·n³.
        largest_input: U, the largest absolute value of an input.
        weights: torch.int8, or torch.int16 for 256 times smaller errors of the matrices.

    Returns:
        The recurrence in whole numbers.

    Raises:
        ValueError: the recurrence is complex, varies or is a batch; or rounding errors alone could
            leave the range of a state.

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
    A, B, C, D = matrices(recurrence)
    scale = largest_input * Reached.of(A, B, torch.eye(len(A)).double(), steps).inputs
    scale = torch.where(scale > 0, scale, 1.0) / LARGEST
    A, B, C = A * scale / scale.unsqueeze(-1), B / scale.unsqueeze(-1), C * scale
    unit = largest_input / LARGEST
    kept = (A - torch.eye(len(A))).abs().amax(-1) < A.abs().amax(-1)
    A_step, B_step, multipliers, shift = steps_of(A - torch.diag(kept.double()), B * unit, levels)
    rest = ((A - torch.diag(kept.double())) / A_step).round()
    A_found = rest * A_step + torch.diag(kept.double())
    # Inputs fill the range; where rounding errors come on top, units are made larger.
    drive = (B * unit / B_step).round()
    reached = Reached.of(A_found, drive * B_step, torch.eye(len(A)).double(), steps)
    noise = ROUNDS * (reached.states + reached.inputs)
    if not bool((noise < LARGEST / 2).all()):
        raise ValueError(
            f"Errors of rounding could fill the range of a state within {steps:,} steps: expected "
            f"a system that forgets sooner, or stays stable with weights of {str(weights)[6:]}. "
            "Type `weights=torch.int16` or fewer `steps`."
        )
    larger = float((LARGEST * reached.inputs / (LARGEST - noise)).max().clamp(min=1.0))
    A_step, B_step, multipliers, shift = steps_of(
        A - torch.diag(kept.double()), B * unit / larger, levels
    )
    C, drive = C * larger, (B * unit / larger / B_step).round()
    B_found = drive * B_step
    readout, perturbation = fitted(A, B * unit / larger, C, A_found, B_found, steps)
    seen = Reached.of(A_found, B_found, readout, steps)
    rounding = ROUNDS * (seen.states + seen.inputs)
    if D is not None:
        rounding = rounding + ROUNDS * unit * D.abs().sum(-1)
    return QuantizedRecurrence(
        rest.to(weights),
        drive.to(weights),
        kept.to(torch.int64),
        multipliers,
        shift,
        unit,
        readout,
        D,
        recurrence.copies,
        steps,
        LARGEST * perturbation,
        rounding,
    )


def check(
    recurrence: LinearRecurrence, steps: int, largest_input: float, weights: torch.dtype
) -> int:
    """Check that a recurrence can be rounded, and return the levels of each sign."""
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
    levels = torch.iinfo(weights).max
    size = recurrence.A.state_size + recurrence.input_size // recurrence.copies
    if size * levels * LARGEST >= 2 ** (62 - MULTIPLIER):
        raise ValueError(
            f"{size} states and inputs of {str(weights)[6:]} do not fit sums of 64 bits: expected "
            "fewer, or `weights=torch.int8`."
        )
    return levels


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


def steps_of(A: Tensor, B: Tensor, levels: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Choose the rounding steps of the rows of two matrices: whole numbers over 2^s.

    Returns:
        The steps of A and of B `(n, 1)`, their numerators `(n, 2)` and s `(n)`.
    """
    wanted = torch.stack([A.abs().amax(-1), B.abs().amax(-1)], -1) / levels
    largest = wanted.amax(-1).clamp(min=2.0**-30)
    shift = (MULTIPLIER - largest.log2().ceil()).clamp(1, 60).to(torch.int64)
    numerators = (wanted * 2.0 ** shift.double().unsqueeze(-1)).ceil().clamp(min=1)
    steps = numerators * 2.0 ** -shift.double().unsqueeze(-1)
    return steps[:, :1], steps[:, 1:], numerators.to(torch.int64), shift


@dataclass(frozen=True, eq=False)
class Reached:
    """Bounds of the outputs' movement by inputs, and by additions to states, of at most 1.

    Attributes:
        inputs (p): Σ_k |R A^k B|, summed over inputs.
        states (p): Σ_k |R A^k| r, summed over states; r is 1 unless given.
    """

    inputs: Tensor
    states: Tensor

    @classmethod
    def of(
        cls, A: Tensor, B: Tensor, readout: Tensor, steps: int, additions: Tensor | None = None
    ) -> "Reached":
        """Sum up over `steps` steps, for `additions (n)` r to states."""
        inputs = states = torch.zeros(len(readout), dtype=torch.float64)
        additions = torch.ones(len(A), dtype=torch.float64) if additions is None else additions
        power = readout
        for _ in range(steps):
            inputs, states = inputs + (power @ B).abs().sum(-1), states + power.abs() @ additions
            power = power @ A
        return cls(inputs, states)


def fitted(
    A: Tensor,
    B: Tensor,
    C: Tensor,
    A_found: Tensor,
    B_found: Tensor,
    steps: int,
    largest: int = LARGEST,
) -> tuple[Tensor, Tensor]:
    """Fit the read-out R of rounded matrices, and bound the remainder, for inputs of at most 1.

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
