"""Chunked execution: a convolution within each chunk, a recurrence from one to the next."""

# pyright: reportUnnecessaryIsInstance=false
# (Callers without types are checked too.)

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from linrec._tensors.annotated import unflatten
from linrec._tensors.devices import in_double
from linrec._tensors.known_values import has_values
from linrec._tensors.open_sizes import in_groups, is_open, out_of_groups
from linrec._tensors.shapes import broadcast_shapes
from linrec.coordinates import apply_to_columns
from linrec.executors.base import Executor, Plan, Result
from linrec.executors.carry import carry_states, prepare_carry
from linrec.executors.prepare import Prepared, prepare
from linrec.executors.tiled_bilinear import BilinearOp, multiply
from linrec.executors.toeplitz import toeplitz_columns
from linrec.executors.varying.chunks import run_chunks
from linrec.executors.varying.device_kernel import run_in_kernel
from linrec.executors.workload import Workload
from linrec.kernels.chunks import chunk_product, multiplies, multiply_now
from linrec.powers import Powers, impulse_kernel, krylov, state_kernel
from linrec.structures import matvec
from linrec.systems import LinearRecurrence
from linrec.systems.checks import require_recurrence

# This many numbers of outputs are written at a time, from at least this many chunks.
CACHE, FEW_ROWS = 1 << 20, 256


@final
@dataclass(frozen=True)
class Chunked(Executor):
    """An executor that cuts time into chunks of L steps: one product gives all outputs.

        outputs of a chunk = [inputs of the chunk, state before it] · [Toeplitz block; C A^1…L]

    The states before the chunks obey a recurrence of T / L steps with A^L. Where there are many,
    only every second one is run, and the others follow from these. It takes (L m + n) p operations
    per step, all in large products. Time-varying systems run in chunks if A is diagonal or diagonal
    plus low rank (docs/varying.md).

    Args:
        size: L, the steps in a chunk; for a time-varying system it is rounded down to a power of
            two. None: chosen from the sizes of the system.

    Numerical error: at step t at most about (n + m L)(t/L + 2)·eps·Σ_s |C||A^L|…|B||u_s|, like a
    loop over chunks, with T / L steps instead of T. Inputs that are not finite reach earlier steps
    of their chunk too (NaN times the zeros above the diagonal).

    Example:
        >>> import torch, linrec
        >>> average = linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]])
        >>> linrec.run(average, torch.ones(3, 1), executor=linrec.Chunked(size=2)).outputs.mT
        tensor([[0.5000, 0.7500, 0.8750]])

    References:
        Dao and Gu 2024, Transformers are SSMs, section 6 (there for scalar A).
    """

    size: int | None = None

    def __post_init__(self) -> None:
        if self.size is not None and (not isinstance(self.size, int) or self.size < 1):
            raise ValueError(f"`size` is {self.size!r}: expected a whole number of 1 or more.")

    def why_not(self, recurrence: LinearRecurrence, length: int) -> str | None:
        """Refuse varying systems unless A is diagonal plus low rank: other blocks cost more."""
        if not recurrence.time_varying:
            return None
        if is_open(length):
            return (
                "its matrices change from step to step, and the graph that is traced leaves open "
                "how many steps there are"
            )
        if recurrence.A.as_diagonal_plus_low_rank() is not None:
            return None
        return (
            "its matrices change from step to step, and A is not stored as diagonal or as diagonal "
            "plus low rank"
        )

    def prepare(self, recurrence: LinearRecurrence, length: int) -> Plan:
        """Compute a chunk's block, the map to its last state, and A^L."""
        require_recurrence(recurrence)
        if recurrence.time_varying:
            return Plan(self, recurrence, length)
        chunk = self.chunk(recurrence, length)

        def compute(system: LinearRecurrence, powers: Powers, own: LinearRecurrence) -> Prepared:
            states = state_kernel(system, chunk, powers)
            kernel = impulse_kernel(system, states, own)
            within = toeplitz_columns(kernel, 0, chunk).flatten(-4, -3)
            tensors = {
                "block": stack_rows(within, reach(system, chunk)).flatten(-2),  # (…, L·m + n, L·p)
                "last": states.flip(-3).flatten(-3, -2),  # (*batch, L·m, n)
                **prepare_carry(powers, chunk, length),
            }
            if not is_open(length) and length % chunk:
                tensors["rest_power"] = powers.power(length % chunk).to_dense()
            return Prepared(tensors)

        return prepare(self, recurrence, length, compute)

    def execute(
        self, recurrence: LinearRecurrence, plan: Plan, inputs: Tensor, state: Tensor | None
    ) -> Result:
        """Carry the state from chunk to chunk, then compute all chunks in one product."""
        if recurrence.time_varying:
            found = run_in_kernel(recurrence, inputs, state)
            if found is not None:
                return found
            size = self.steps_in_varying_chunk(inputs.shape[-2])
            outputs, state = run_chunks(recurrence, inputs, state, size)
            assert outputs is not None
            return Result(outputs, state)
        rows = chunk_rows(plan, inputs)
        before, state = carry_states(recurrence, plan, rows, inputs, state)
        return Result(outputs_of(plan, rows, before, inputs), state)

    def run_in_halves(
        self, recurrence: LinearRecurrence, inputs: Tensor, state: Tensor | None
    ) -> Result | None:
        """Run half-precision numbers in kernels; None if no kernel takes them."""
        if recurrence.D is not None or self.why_not(recurrence, inputs.shape[-2]) is not None:
            return None  # (y would be rounded before D u is added)
        return run_in_kernel(recurrence, inputs, state)

    def final_state(
        self, recurrence: LinearRecurrence, plan: Plan, inputs: Tensor, state: Tensor | None
    ) -> Tensor:
        """Carry the state from chunk to chunk."""
        if recurrence.time_varying:
            size = self.steps_in_varying_chunk(inputs.shape[-2])
            return run_chunks(recurrence, inputs, state, size, last_only=True)[1]
        return carry_states(recurrence, plan, chunk_rows(plan, inputs), inputs, state)[1]

    def steps_in_varying_chunk(self, length: int) -> int:
        """Return the steps in a chunk of a varying system: a power of two, at most `size`."""
        if self.size is not None:
            return 1 << (min(self.size, length).bit_length() - 1)
        return 1 << min((length - 1).bit_length(), 5)

    def chunk(self, recurrence: LinearRecurrence, length: int) -> int:
        """Return the steps in a chunk: `size` or a chosen number, at most `length`."""
        return self.steps_in_chunk(Workload.of(recurrence, length, 1))

    def steps_in_chunk(self, work: Workload) -> int:
        """Return the steps in a chunk for a workload, as `chunk` does.

        The block costs L m p per step and the carry m n + n² / L, with a minimum at L = n / √(m p).
        Below 16 steps (below 2n, if there are fewer outputs than states) the states before the
        chunks take much memory. A divisor of the length saves a copy.
        """
        length = max(work.steps, 1)
        if self.size is not None:
            return min(self.size, length)
        n, m, p = work.states, work.inputs, work.outputs
        best, most = round(n / math.sqrt(m * p)), 64
        if m * p <= n // 4:
            best, most = 2 * best, 256
        best = min(max(best, 4 if m > 4 else 16), most, length)
        for candidate in range(best, max(best // 2, 1), -1):
            if length % candidate == 0:
                return candidate
        return best


def reach(recurrence: LinearRecurrence, chunk: int) -> Tensor:
    """Compute how the state before a chunk shows in its outputs: (C A^1 … C A^L)ᵀ.

    C A^j is the conjugate transpose of (A*)^j C*, which doubling gives.

    Returns:
        `(*batch, n, chunk, p)`, in double precision.
    """
    double = in_double(recurrence)
    if double.C is None:
        n = double.A.state_size
        rows = torch.eye(n, dtype=double.dtype, device=double.device)
    else:
        rows = double.C.to(double.dtype).mH
    adjoint = double.A.to(double.dtype).adjoint()
    batch = broadcast_shapes(adjoint.batch_shape, rows.shape[:-2])
    powers = krylov(adjoint, apply_to_columns(adjoint, rows.expand(*batch, -1, -1)), chunk)
    return powers.conj().movedim(-1, -3)


def stack_rows(first: Tensor, second: Tensor) -> Tensor:
    """Stack rows `(*batch, rows, chunk, p)` below each other, broadcasting batch axes."""
    batch = broadcast_shapes(first.shape[:-3], second.shape[:-3])
    return torch.cat(
        [first.expand(*batch, *first.shape[-3:]), second.expand(*batch, *second.shape[-3:])], -3
    )


def chunk_rows(plan: Plan, inputs: Tensor) -> Tensor:
    """Write each chunk's inputs in a row, `(*batch, chunks, L·m)`, the last padded with zeros."""
    chunk = plan["last"].shape[-2] // inputs.shape[-1]
    if is_open(inputs.shape[-2]):
        return in_groups(inputs, chunk).flatten(-2)
    missing = -inputs.shape[-2] % chunk
    if missing:
        inputs = torch.nn.functional.pad(inputs, (0, 0, 0, missing))
    return unflatten(inputs, -2, (-1, chunk)).flatten(-2)


@final
@dataclass(frozen=True)
class ChunkProduct(BilinearOp):
    """Outputs of chunks: [inputs of the chunk, state before it] · block.

    A unit is a chunk, with factors `(units, copies, L·m)` and `(units, copies, n)`. But where a
    sequence's last chunk is cut short, a unit is a sequence, and the factors have an axis of
    chunks.

    Args:
        steps: the steps of a unit.
        chunk: L.
        inputs: L·m.
        outputs: p.
    """

    steps: int
    chunk: int
    inputs: int
    outputs: int

    @property
    def size(self) -> tuple[int, int]:
        """The steps and outputs of a unit."""
        return self.steps, self.outputs

    @property
    def tile_size(self) -> int:
        """Fill the cache with outputs, but take enough rows for an efficient product."""
        rows = max(CACHE // (self.chunk * self.outputs), FEW_ROWS)
        return max(rows * self.chunk // self.steps, 1)

    def forward(self, constant: Tensor, *factors: Tensor) -> Tensor:
        """Multiply the rows by the block."""
        inputs, before = factors
        if multiplies(inputs, before):
            outputs = multiply_rows(inputs, before, constant)
        else:
            outputs = matvec(constant.mT, torch.cat(factors, -1))
        outputs = outputs.reshape(*outputs.shape[:-1], self.chunk, self.outputs)
        return outputs if outputs.ndim == 4 else outputs.flatten(-3, -2)[..., : self.steps, :]

    def forward_out(self, target: Tensor, constant: Tensor, *factors: Tensor) -> None:
        """Write the product straight into the result where their memory orders agree."""
        if target.shape[1] > 1 or self.steps != self.chunk:
            return super().forward_out(target, constant, *factors)
        rows = torch.cat(factors, -1).flatten(0, 1)
        torch.mm(rows, constant, out=target.view(len(rows), -1))

    def adjoint(self, constant: Tensor, gradient: Tensor) -> tuple[Tensor, ...]:
        """Multiply the gradients by the block, conjugated and transposed."""
        rows = self.rows(gradient)
        half = rows.shape[-1] // 2  # (the kernel takes rows in two parts)
        parts = rows[..., :half], rows[..., half:]
        if multiplies(*parts):
            rows = multiply_rows(*parts, constant.mT)
        else:
            rows = matvec(constant.conj(), rows)
        return rows[..., : self.inputs], rows[..., self.inputs :]

    def grad_constant(self, gradient: Tensor, *factors: Tensor) -> Tensor:
        """Multiply the gradients by the rows, conjugated and transposed."""
        rows, gradients = torch.cat(factors, -1), self.rows(gradient)
        rows = rows.reshape(-1, rows.shape[-1])
        return rows.mH @ gradients.reshape(-1, gradients.shape[-1])

    def rows(self, gradient: Tensor) -> Tensor:
        """Write each chunk's gradients in a row, the last padded with zeros."""
        if self.steps != self.chunk:
            missing = (0, 0, 0, -self.steps % self.chunk)
            gradient = torch.nn.functional.pad(gradient, missing)
            sizes = (*gradient.shape[:-2], -1, self.chunk, self.outputs)
            gradient = gradient.reshape(sizes)
        return gradient.reshape(*gradient.shape[:-2], -1)


def multiply_rows(inputs: Tensor, before: Tensor, block: Tensor) -> Tensor:
    """Multiply `[inputs (…, K), before (…, n)]` with `block (K + n, N)` in a kernel."""
    first, second = inputs.flatten(0, -2), before.flatten(0, -2)
    operation = multiply_now if has_values(inputs) else chunk_product
    product: Tensor = operation(first, second, block)
    return unflatten(product, 0, inputs.shape[:-1])


def outputs_of(plan: Plan, rows: Tensor, before: Tensor, inputs: Tensor) -> Tensor:
    """Multiply the rows of all chunks by the block, `(*batch, steps, p)`."""
    block, steps = plan["block"], inputs.shape[-2]
    chunks, chunk = rows.shape[-2], rows.shape[-1] // inputs.shape[-1]
    p = block.shape[-1] // chunk
    if block.ndim > 2 or is_open(steps):  # one block for each of many systems
        outputs = matvec(
            block.unsqueeze(-3).mT if block.ndim > 2 else block.mT, torch.cat([rows, before], -1)
        )
        outputs = unflatten(outputs, -1, (chunk, p))
        if is_open(steps):
            return out_of_groups(outputs, steps)
        return outputs.flatten(-3, -2)[..., :steps, :]
    copies = plan.copies
    factors = [factor.reshape(-1, copies, *factor.shape[-2:]) for factor in (rows, before)]
    if steps % chunk:
        product = ChunkProduct(steps, chunk, rows.shape[-1], p)
        return multiply(product, block, *factors).reshape(*inputs.shape[:-2], steps, p)
    product = ChunkProduct(chunk, chunk, rows.shape[-1], p)
    units = [factor.transpose(1, 2).flatten(0, 1) for factor in factors]
    outputs = unflatten(multiply(product, block, *units), 0, (-1, chunks)).transpose(1, 2)
    return outputs.reshape(*inputs.shape[:-2], steps, p)
