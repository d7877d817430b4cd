"""The recurrence as a scan: pairs of steps are steps, of half as many."""

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from linrec._checks import double_dtype
from linrec.executors.base import Cost, Executor, Plan, Result, Workload
from linrec.scan import SHORT_BLOCK, WIDE_BLOCKS, WIDE_STEP, linear_scan
from linrec.structures import Structure, Varying
from linrec.systems import LinearRecurrence


@final
@dataclass(frozen=True)
class AssociativeScan(Executor):
    """Combine steps in pairs, log2(T) times, then work back down.

        (A₂, b₂) ∘ (A₁, b₁) = (A₂A₁, A₂b₁ + b₂)

    The only way but the loop for varying matrices, and in log2(T) rounds; but products of
    matrices cost n³ a step where the matrix varies. Diagonal matrices run as `linear_scan`.

    Numerical error: at step t at most about 2(n+1)(log2 T + 2)·eps·Σ_s |A…A| |B| |u_s| where the
    matrices have no negative entries; with cancellation in products of A, as that product's.

    Example:
        >>> import torch, linrec
        >>> average = linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]])
        >>> linrec.run(average, torch.ones(3, 1), executor=linrec.AssociativeScan()).outputs.mT
        tensor([[0.5000, 0.7500, 0.8750]])

    References:
        Blelloch 1990, Prefix sums and their applications, section 1.4.
    """

    gradient: ClassVar[Cost] = Cost(operations=1, bytes=1.2, rounds=0.7, memory=1)

    def execute(
        self, recurrence: LinearRecurrence, plan: Plan, inputs: Tensor, state: Tensor | None
    ) -> Result:
        """Scan over all steps at once."""
        timed = recurrence.over_time()
        drive = timed.drive(inputs)
        structure = timed.A.A if isinstance(timed.A, Varying) else timed.A
        states = scan_states(structure, drive, state)
        return Result(timed.read(states, inputs), states[..., -1, :])

    def cost(self, work: Workload) -> Cost:
        """Two products for each step of each sequence, and the matrices' products in pairs."""
        n, p = work.states, work.outputs
        numbers = work.itemsize * work.numbers
        outputs = numbers * p if work.read else 0
        around = 2.0 * work.numbers * n * (work.driven * work.inputs + work.read * p)
        if work.diagonal:
            width = work.batch * n
            rounds = work.steps if width >= WIDE_STEP else rounds_of_blocks(work.steps, width)
            states = 2.0 * numbers * n
            return Cost(around, 4.0 * states + outputs, rounds, memory=states + outputs)
        levels = max(work.steps - 1, 0).bit_length()  # none for one step
        combined = work.steps if work.varying else levels
        products = work.systems * n * work.multiplications * combined
        applied = 2.0 * work.numbers * work.multiplications * (levels > 0)
        held = 4.0 * numbers * n + (work.itemsize * work.steps * n * n if work.varying else 0)
        return Cost(
            around + 2.0 * (products + applied), 6.0 * held + outputs, 14 * levels + 4, memory=held
        )

    def error(self, work: Workload) -> float:
        """A path has log2(T) products of matrices, or as many roundings as the loop elementwise."""
        if work.diagonal:
            return math.sqrt(2.0 * work.steps + 2) * work.roundoff
        levels = max(work.steps - 1, 1).bit_length() + 2
        return math.sqrt(2.0 * (work.states + 1) * levels) * work.roundoff


def rounds_of_blocks(steps: int, width: int) -> int:
    """Count the operations of an elementwise scan: two passes over a block, and so on above."""
    blocks = min(steps // SHORT_BLOCK, WIDE_BLOCKS // width)
    if blocks < 2:
        return steps
    return 2 * (steps // blocks) + 8 + rounds_of_blocks(blocks, width)


def scan_states(A: Structure, drive: Tensor, state: Tensor | None) -> Tensor:
    """Compute the states of x_t = A_t x_{t-1} + b_t, elementwise where A is diagonal.

    Args:
        A: a structure whose last batch axis is time, of one entry if it never changes, or a
            structure without batch axes.
        drive (*batch, time, n): b.
        state (*batch, n): the state before the first step; None: zeros.

    Returns:
        The states, `(*batch, time, n)`.
    """
    diagonal = A.as_diagonal()
    if diagonal is not None:  # its scan needs no products of matrices
        return linear_scan(diagonal if diagonal.ndim > 1 else diagonal.unsqueeze(0), drive, state)
    changing = bool(A.batch_shape) and A.batch_shape[-1] > 1
    if not changing:  # few matrices, of many powers: squared in double precision, cast last
        A = A.to(double_dtype(A.dtype))
    if state is not None:
        first_A = A[..., :1] if A.batch_shape else A
        first = drive[..., :1, :] + first_A.to(drive.dtype).apply(state.unsqueeze(-2))
        drive = torch.cat([first, drive[..., 1:, :]], -2)
    return combine(A, drive)


def combine(A: Structure, drive: Tensor) -> Tensor:
    """Scan from a zero state: pairs of steps first, whose states are every second one's.

    The state after step 2i+1 is that of step i of the recurrence of pairs; one more step from it
    gives the state after step 2i+2.
    """
    steps = drive.shape[-2]
    if steps == 1:
        return drive
    pairs, between = steps // 2, (steps - 1) // 2
    changing = bool(A.batch_shape) and A.batch_shape[-1] > 1
    narrow = A if changing else A.to(drive.dtype)
    early = A[..., 0 : 2 * pairs : 2] if changing else A
    late = A[..., 1::2] if changing else A
    even, odd = drive[..., 0::2, :], drive[..., 1::2, :]
    paired = (late if changing else narrow).apply(even[..., :pairs, :]) + odd
    after_odd = combine(late.compose(early), paired) if pairs > 1 else paired
    after_even = even[..., :1, :]
    if between:
        follow = A[..., 2::2] if changing else narrow
        later = even[..., 1:, :] + follow.apply(after_odd[..., :between, :])
        after_even = torch.cat([after_even, later], -2)
    woven = torch.stack([after_even[..., :pairs, :], after_odd], -2).flatten(-3, -2)
    return woven if steps == 2 * pairs else torch.cat([woven, after_even[..., pairs:, :]], -2)
