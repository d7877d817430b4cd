"""Execution as one matrix product: outputs are a Toeplitz matrix times inputs."""

import math
from dataclasses import dataclass
from functools import partial
from typing import final

import torch
from torch import Tensor

from linrec._tensors.annotated import unflatten
from linrec._tensors.open_sizes import is_open
from linrec.executors.base import Plan, Result, join
from linrec.executors.impulse_response import (
    KernelExecutor,
    add_free_motion,
    kernels,
    output_kernel_of,
)
from linrec.executors.prepare import Prepared, prepare
from linrec.powers import Powers
from linrec.structures import matvec
from linrec.systems import LinearRecurrence
from linrec.systems.checks import require_recurrence

# Toeplitz matrices are written out in pieces of about this many numbers.
PIECE = 1 << 22

# A matrix of at most this many numbers, a few hundred KiB, is kept in the plan: in a short call
# writing it out would take longer than multiplying by it.
SMALL = 1 << 16


@final
@dataclass(frozen=True)
class Toeplitz(KernelExecutor):
    """An executor that multiplies by the lower triangular Toeplitz matrix of the impulse response.

        y_t = Σ_{s≤t} h_{t-s} u_s

    It takes T² m p operations per sequence: suited to short sequences. The last row of the matrix
    alone is the cheapest way to the last state (one product of T·m by n). Time-invariant systems
    only.

    Numerical error: at step t at most about (t+1) m·eps·Σ_s |h_{t-s}| |u_s|, as for a direct sum.
    Inputs that are not finite reach earlier steps too (NaN times the zeros above the diagonal).

    Example:
        >>> import torch, linrec
        >>> average = linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]])
        >>> linrec.final(average, torch.ones(3, 1), executor=linrec.Toeplitz()).outputs
        tensor([0.8750])

    References:
        Chilkuri and Eliasmith 2021, eqs 24 and 25.
    """

    def prepare(self, recurrence: LinearRecurrence, length: int) -> Plan:
        """Compute the impulse response, and the last row of the matrix for the states."""
        require_recurrence(recurrence)
        return prepare(self, recurrence, length, partial(kernels_and_matrix, length=length))

    def execute(
        self, recurrence: LinearRecurrence, plan: Plan, inputs: Tensor, state: Tensor | None
    ) -> Result:
        """Multiply by a few columns of the matrix at a time, without its upper triangle."""
        steps = inputs.shape[-2]
        if "matrix" in plan.tensors:
            outputs = unflatten(matvec(plan["matrix"].mT, inputs.flatten(-2)), -1, (steps, -1))
            outputs = join([outputs], plan.copies > 1)
            return add_free_motion(recurrence, plan, outputs, inputs, state)
        kernel = output_kernel_of(plan.tensors, plan.length)
        m, p = kernel.shape[-2:]
        if is_open(steps):  # pieces cannot be counted
            matrix = toeplitz_matrix(kernel).flatten(-4, -3).flatten(-2)
            outputs = unflatten(matvec(matrix.mT, inputs.flatten(-2)), -1, (steps, p))
            return add_free_motion(recurrence, plan, outputs, inputs, state)
        parts: list[Tensor] = []
        width = min(max(PIECE // (steps * m * p), 1), steps)
        for start in range(0, steps, width):
            stop = min(start + width, steps)
            matrix = flat_columns(kernel, start, stop)
            piece = matvec(matrix.mT, inputs[..., :stop, :].flatten(-2))
            parts.append(unflatten(piece, -1, (stop - start, p)))
        outputs = join(parts, plan.copies > 1)
        return add_free_motion(recurrence, plan, outputs, inputs, state)


def kernels_and_matrix(
    system: LinearRecurrence, powers: Powers, own: LinearRecurrence, length: int
) -> Prepared:
    """Compute the kernels, or the matrix if it is small; arguments as for `kernels`.

    Returns:
        "last" (*batch, length·m, n), and "matrix" (*batch, length·m, length·p) if it is small, or
        what `kernels` returns.
    """
    found = kernels(system, powers, own, length)
    kernel = output_kernel_of(found.tensors, length)
    if not is_small(length, *kernel.shape):
        return found
    return Prepared({"last": found.tensors["last"], "matrix": flat_columns(kernel, 0, length)})


def toeplitz_matrix(kernel: Tensor) -> Tensor:
    """Write out the whole matrix, `(*batch, time, m, time, p)`; entry (s, t) is kernel step t -
    s."""
    steps = torch.arange(kernel.shape[-3], device=kernel.device)
    apart = steps - steps.unsqueeze(-1)
    entries = kernel.index_select(-3, apart.clamp(min=0).flatten())
    entries = unflatten(entries, -3, apart.shape)
    return torch.where((apart >= 0)[..., None, None], entries, 0).movedim(-2, -3)


def is_small(length: int, *kernel: int) -> bool:
    """Whether the matrix of a kernel of this shape, over `length` steps, is kept."""
    return not is_open(length, *kernel) and length * math.prod(kernel) <= SMALL


def flat_columns(kernel: Tensor, start: int, stop: int) -> Tensor:
    """Write out `toeplitz_columns` as matrices, `(*batch, stop·m, (stop - start)·p)`."""
    return toeplitz_columns(kernel, start, stop).flatten(-4, -3).flatten(-2)


def toeplitz_columns(kernel: Tensor, start: int, stop: int) -> Tensor:
    """Write out the outputs' columns `start … stop-1` of the matrix whose rows are inputs.

    Entry (s, t) is h_{t-s}, and zero where s > t: rows are windows of a padded kernel, with row s
    starting s earlier than row 0.

    Returns:
        `(*batch, stop, m, stop - start, p)`, inputs `0 … stop-1` first.
    """
    padded = torch.nn.functional.pad(kernel[..., :stop, :, :], (0, 0, 0, 0, stop - start - 1, 0))
    windows = padded.unfold(-3, stop - start, 1)  # (*batch, stop, m, p, columns)
    return windows.flip(-4).movedim(-1, -2)
