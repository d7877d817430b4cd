"""Execution as an associative scan: pairs of steps form a recurrence of half as many steps."""

# pyright: reportConstantRedefinition=false
# (A, B, C and D are variables.)

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from linrec._tensors.devices import in_double
from linrec._tensors.dtypes import accumulation_dtype
from linrec._tensors.known_values import may_look
from linrec._tensors.open_sizes import group_index, in_groups, is_open, out_of_groups
from linrec.coordinates import HARMLESS
from linrec.executors.base import Executor, Plan, Result
from linrec.executors.prepare import Prepared, prepare
from linrec.loops import loop_over_matrices
from linrec.powers import Powers, sample
from linrec.scan import scan_states
from linrec.structures import Structure
from linrec.systems import LinearRecurrence
from linrec.systems.checks import require_recurrence

# Where a graph leaves the number of steps open, groups of 2 to this power are scanned.
OPEN_LEVELS = 5

# At most this many matrices of a varying system are judged, over all steps and systems.
SAMPLES = 16


@final
@dataclass(frozen=True)
class AssociativeScan(Executor):
    """An executor that combines steps in pairs, log2(T) times, then works back down.

        (A₂, b₂) ∘ (A₁, b₁) = (A₂A₁, A₂b₁ + b₂)

    Besides the loop it is the only executor for any varying matrices, and takes log2(T) rounds; but
    products of varying matrices cost n³ per step. Diagonal matrices run as `linear_scan`. Where
    products of varying matrices cancel, as in a swept filter, the loop runs instead.

    Numerical error: at step t at most about 2(n+1)(log2 T + 2)·eps·Σ_s |A…A| |B| |u_s| where the
    matrices have no negative entries; with cancellation in products of A, the error of those
    products.

    Example:
        >>> import torch, linrec
        >>> average = linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]])
        >>> linrec.run(average, torch.ones(3, 1), executor=linrec.AssociativeScan()).outputs.mT
        tensor([[0.5000, 0.7500, 0.8750]])

    References:
        Blelloch 1990, Prefix sums and their applications, section 1.4.
    """

    def prepare(self, recurrence: LinearRecurrence, length: int) -> Plan:
        """Square the matrix of a time-invariant system, once for each level of pairs."""
        require_recurrence(recurrence)
        if recurrence.A.as_diagonal() is not None:
            return Plan(self, recurrence, length)
        if recurrence.time_varying:
            A = recurrence.per_copy().A
            batch = A.batch_shape
            if batch and batch[-1] != 1:
                return Plan(self, recurrence, length)
            # A is the same at every step, and so are its powers.
            squares = square_repeatedly(A[..., 0] if batch else A, length)
            return Plan(self, recurrence, length, squares=squares)

        def compute(_: LinearRecurrence, powers: Powers, __: LinearRecurrence) -> Prepared:
            return Prepared(squares=tuple(powers.square(i) for i in range(levels_of(length))))

        return prepare(self, recurrence, length, compute)

    def loses_digits(self, recurrence: LinearRecurrence) -> bool:
        """Judge from powers of a sample of matrices whether products cancel, as in swept
        filters."""
        A = recurrence.per_copy().A
        steps = recurrence.steps or 1
        if not recurrence.time_varying or A.as_diagonal() is not None or is_open(steps):
            return False
        leaves = A.leaves().values()  # (each call would have to wait for a device)
        if not may_look(*leaves) or any(leaf.device.type != "cpu" for leaf in leaves):
            return False
        levels = levels_of(steps)
        count = A.batch_shape.numel() // (8 * levels + 1)  # an eighth of the products of the scan
        some = in_double(sample(A, min(max(count, SAMPLES // 4), SAMPLES)))
        powers = Powers(some)
        powers.square(levels)
        return powers.cancellation(steps)[0] > HARMLESS

    def execute(
        self, recurrence: LinearRecurrence, plan: Plan, inputs: Tensor, state: Tensor | None
    ) -> Result:
        """Scan over all steps at once."""
        timed = recurrence.over_time()
        drive = timed.drive(inputs)
        diagonal = timed.A.as_diagonal()
        if diagonal is not None:  # its scan needs no products of matrices
            bare = recurrence.C is None and recurrence.D is None
            states, last = scan_states(diagonal, drive, state, handed_out=bare)
            return Result(timed.read(states, inputs), last)
        if is_open(inputs.shape[-2]):
            states = combine_open(timed.A, plan.squares, drive, state)
        else:
            states = combine(timed.A, plan.squares, add_initial_state(timed.A, drive, state))
            states = states.clone() if states is inputs else states
        return Result(timed.read(states, inputs), states[..., -1, :])


def levels_of(steps: int) -> int:
    """Count how often steps can be paired until one is left."""
    if is_open(steps):
        return OPEN_LEVELS
    return max(steps, 1).bit_length() - 1


def square_repeatedly(A: Structure, length: int) -> tuple[Structure, ...]:
    """Square a matrix for each level of pairs, in double precision, cast last."""
    powers, dtype = Powers(in_double(A)), accumulation_dtype(A.dtype)
    squares = (powers.square(level) for level in range(levels_of(length)))
    return tuple(square.to(dtype).to(A.device) for square in squares)


def add_initial_state(A: Structure, drive: Tensor, state: Tensor | None) -> Tensor:
    """Add A times the initial state to the first step, so that the scan starts from zero.

    Args:
        A: a structure whose last batch axis is time (of length 1 if A never changes), or a
            structure without batch axes.
        drive (*batch, time, n): b.
        state (*batch, n): the state before the first step; None: zeros.
    """
    if state is None:
        return drive
    first_A = A[..., :1] if A.batch_shape else A
    first = drive[..., :1, :] + first_A.apply(state.unsqueeze(-2))
    return torch.cat([first, drive[..., 1:, :]], -2)


def combine(A: Structure, squares: Sequence[Structure], drive: Tensor) -> Tensor:
    """Scan from a zero state: first over pairs of steps, which give every second state.

    Step i of the recurrence of pairs gives the state after step 2i+1; one more step gives the state
    after step 2i+2.

    Args:
        A: the matrices of all steps, `(*batch, time, …)`, where they change.
        squares: A, A², A⁴, … where they do not; empty otherwise.
        drive (*batch, time, n): b.

    Returns:
        The states, `(*batch, time, n)`.
    """
    steps = drive.shape[-2]
    if steps == 1:
        return drive
    pairs, between = steps // 2, (steps - 1) // 2
    even, odd = drive[..., 0::2, :], drive[..., 1::2, :]
    if squares:
        square = squares[0]
        late = follow = square[..., None] if square.batch_shape else square
        of_pairs = A
    else:
        late, follow = A[..., 1::2], A[..., 2::2] if between else A
        of_pairs = late.compose(A[..., 0 : 2 * pairs : 2]) if pairs > 1 else A
    paired = late.apply(even[..., :pairs, :]) + odd
    after_odd = combine(of_pairs, squares[1:], paired) if pairs > 1 else paired
    after_even = even[..., :1, :]
    if between:
        later = even[..., 1:, :] + follow.apply(after_odd[..., :between, :])
        after_even = torch.cat([after_even, later], -2)
    woven = torch.stack([after_even[..., :pairs, :], after_odd], -2).flatten(-3, -2)
    return woven if steps == 2 * pairs else torch.cat([woven, after_even[..., pairs:, :]], -2)


def combine_open(
    A: Structure, squares: Sequence[Structure], drive: Tensor, state: Tensor | None
) -> Tensor:
    """Compute `combine` for a number of steps that a graph leaves open, in a loop over groups.

    Groups are scanned twice: for each group's addition to the state before it, and for the states.
    """
    steps, size = drive.shape[-2], 1 << OPEN_LEVELS
    groups = in_groups(drive, size)
    if squares:
        A, *squares = (each[..., None] if each.batch_shape else each for each in (A, *squares))
        last = squares[-1]
        whole = last.compose(last)
        whole = whole[..., None] if whole.batch_shape else whole
    else:
        A = A[..., group_index(drive, size).clamp(max=steps - 1)]
        whole = A
        for _ in range(OPEN_LEVELS):
            whole = whole[..., 1::2].compose(whole[..., 0::2])
        whole = whole[..., 0]
    ends = combine(A, squares, groups)[..., -1, :]
    start = drive.new_zeros(*drive.shape[:-2], drive.shape[-1]) if state is None else state
    before = loop_over_matrices(whole, ends, start, before=True)[0]
    return out_of_groups(combine(A, squares, add_initial_state(A, groups, before)), steps)
