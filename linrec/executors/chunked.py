"""The recurrence in chunks: a convolution within each, a recurrence from one to the next."""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from linrec._checks import accumulation_dtype, double_dtype
from linrec.executors.base import (
    Cost,
    Executor,
    Plan,
    Result,
    has_copies_inside,
    invariant_only,
    join,
    stored_size,
    write_each,
)
from linrec.executors.ordered import ordered_product
from linrec.executors.scan import scan_states
from linrec.executors.toeplitz import toeplitz_columns
from linrec.response import krylov, matrix_power, output_kernel, state_kernel
from linrec.structures import Dense, Structure, matvec
from linrec.systems import LinearRecurrence

# Up to this many chunks the loop that carries the state is shorter than a scan's rounds.
FEW_CHUNKS = 48

# Products of fewer rows or columns than this waste a processor.
FEW_ROWS, FEW_COLUMNS = 16, 32

# So many numbers stay in the caches between being computed and being put in order.
CACHE = 1 << 18


@final
@dataclass(frozen=True)
class Chunked(Executor):
    """Cut time into chunks of L steps: one product gives all outputs of all chunks.

        outputs of a chunk = [inputs of the chunk, state before it] · [Toeplitz block; C A^1…L]

    The states before the chunks obey a recurrence of T / L steps with A^L, which is scanned.
    (L m + n) p operations a step, all of them in large products. Time-invariant systems.

    Args:
        size: L, the steps in a chunk. None: chosen from the sizes of the system.

    Numerical error: at step t at most about (n + m L)(t/L + 2)·eps·Σ_s |C||A^L|…|B||u_s|, as of
    the loop over chunks, which is T / L steps long instead of T. Inputs that are not finite reach
    earlier steps of their chunk too (NaN times the zeros above the diagonal).

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
        """Only time-invariant systems have one block for all chunks."""
        return invariant_only(recurrence)

    def prepare(self, recurrence: LinearRecurrence, length: int) -> Plan:
        """Compute the block of a chunk, the way to its last state, and A^L."""
        one, dtype = recurrence.per_copy(), accumulation_dtype(recurrence.dtype)
        chunk = self.chunk(recurrence, length)
        states = state_kernel(recurrence, chunk)
        A = one.A.to(states.dtype)
        within = toeplitz_columns(output_kernel(recurrence, states), 0, chunk).flatten(-4, -3)
        block = stack_rows(within, reach(one, chunk)).flatten(-2)
        tensors = {
            "block": block.to(dtype),  # (*batch, L·m + n, L·p)
            "last": states.flip(-3).flatten(-3, -2).to(dtype),  # (*batch, L·m, n)
            "power": matrix_power(A, chunk).to_dense().to(dtype),  # (*batch, n, n)
        }
        if length % chunk:
            tensors["rest_power"] = matrix_power(A, length % chunk).to_dense().to(dtype)
        return Plan(self, recurrence, length, tensors)

    def execute(
        self, recurrence: LinearRecurrence, plan: Plan, inputs: Tensor, state: Tensor | None
    ) -> Result:
        """Carry the state from chunk to chunk, then compute all chunks in one product."""
        rows, chunk = chunk_rows(plan, inputs)
        before, state = carry_states(plan, rows, state)
        steps, p = inputs.shape[-2], plan["block"].shape[-1] // chunk
        inside, rest = has_copies_inside(inputs), steps % chunk
        in_order = inside and not rest  # to join the rest puts everything in order anyway
        parts = [whole_chunks(plan["block"], torch.cat([rows, before], -1), chunk, in_order)]
        if rest:
            tail = inputs[..., steps - rest :, :].flatten(-2)
            kept = plan["block"].mT[..., : rest * p, :]
            taken = torch.cat([kept[..., : tail.shape[-1]], kept[..., -state.shape[-1] :]], -1)
            parts.append(matvec(taken, torch.cat([tail, state], -1)).unflatten(-1, (rest, p)))
            state = state_after(plan, tail, state)
        return Result(join(parts, inside), state)

    def final_state(
        self, recurrence: LinearRecurrence, plan: Plan, inputs: Tensor, state: Tensor | None
    ) -> Tensor:
        """Carry the state from chunk to chunk."""
        rows, chunk = chunk_rows(plan, inputs)
        _, state = carry_states(plan, rows, state)
        rest = inputs.shape[-2] % chunk
        if rest:
            tail = inputs[..., inputs.shape[-2] - rest :, :].flatten(-2)
            state = state_after(plan, tail, state)
        return state

    def chunk(self, recurrence: LinearRecurrence, length: int) -> int:
        """The steps in a chunk: as given, or chosen; never more than there are.

        The block costs L m p a step and the carry m n + n² / L: least at L = n / √(m p). Below 16
        steps the states before the chunks weigh on memory. A divisor of the length saves a copy.
        """
        length = max(length, 1)
        if self.size is not None:
            return min(self.size, length)
        n = recurrence.A.state_size
        m = recurrence.input_size // recurrence.copies
        p = recurrence.output_size // recurrence.copies
        best = round(n / math.sqrt(m * p))
        best = min(max(best, 4 if m > 4 else 16), 64, length)
        for candidate in range(best, max(best // 2, 1), -1):
            if length % candidate == 0:
                return candidate
        return best

    def cost(self, recurrence: LinearRecurrence, length: int, batch: int) -> Cost:
        """The product with the block, and the carry."""
        n, m = recurrence.A.state_size, recurrence.input_size // recurrence.copies
        p = recurrence.output_size // recurrence.copies
        chunk = self.chunk(recurrence, length)
        elements = recurrence.dtype.itemsize * batch * length
        written = elements * (p * (1 if length % chunk == 0 else 3) + 3 * m + 4 * n / chunk)
        if recurrence.copies > 1 and (recurrence.copies < FEW_ROWS or p < FEW_COLUMNS):
            written += 2 * elements * p  # put in order afterwards
        block = 3.0 * batch * length * (chunk * m + n) * p  # at two thirds of the full rate
        return Cost(block, written, 12) + self.final_cost(recurrence, length, batch)

    def final_cost(self, recurrence: LinearRecurrence, length: int, batch: int) -> Cost:
        """The products that carry the state."""
        n, m = recurrence.A.state_size, recurrence.input_size // recurrence.copies
        chunk = self.chunk(recurrence, length)
        chunks = math.ceil(length / chunk)
        scanned = chunks > FEW_CHUNKS
        carried = 2.0 * batch * chunks * (chunk * m * n + (2 if scanned else 1) * n * n)
        rounds = 12 * math.ceil(math.log2(chunks)) if scanned else 2 * chunks
        elements = recurrence.dtype.itemsize * batch * chunks * n
        return Cost(carried, 8.0 * elements, rounds)

    def preparation_cost(self, recurrence: LinearRecurrence, length: int) -> Cost:
        """The block and the powers, in double precision."""
        n, m = recurrence.A.state_size, recurrence.input_size // recurrence.copies
        p = recurrence.output_size // recurrence.copies
        chunk = self.chunk(recurrence, length)
        systems = max(math.prod(recurrence.batch_shape), 1)
        doublings = math.ceil(math.log2(chunk + 1))
        products = stored_size(recurrence) * (chunk * (m + p) + 3 * doublings * n)
        block = 16.0 * systems * (chunk * m + n) * chunk * p
        return Cost(4.0 * systems * products, block, 40 + 12 * doublings)


def reach(recurrence: LinearRecurrence, chunk: int) -> Tensor:
    """Compute how the state before a chunk shows in its outputs: (C A^1 … C A^L)ᵀ.

    C A^j is the conjugate transpose of (A*)^j C*, which doubling gives.

    Returns:
        `(*batch, n, chunk, p)`, in double precision.
    """
    dtype = double_dtype(recurrence.dtype)
    if recurrence.C is None:
        n = recurrence.A.state_size
        rows = torch.eye(n, dtype=dtype, device=recurrence.device)
    else:
        rows = recurrence.C.to(dtype).mH
    adjoint = recurrence.A.to(dtype).adjoint()
    batch = torch.broadcast_shapes(adjoint.batch_shape, rows.shape[:-2])
    powers = krylov(adjoint, adjoint_columns(adjoint, rows.expand(*batch, -1, -1)), chunk)
    return powers.conj().movedim(-1, -3)


def adjoint_columns(A: Structure, columns: Tensor) -> Tensor:
    """Multiply every column by A, `(*batch, n, p)`."""
    return (A[..., None] if A.batch_shape else A).apply(columns.mT).mT


def stack_rows(first: Tensor, second: Tensor) -> Tensor:
    """Put rows below each other, `(*batch, rows, chunk, p)`, batch axes broadcasting."""
    batch = torch.broadcast_shapes(first.shape[:-3], second.shape[:-3])
    return torch.cat(
        [first.expand(*batch, *first.shape[-3:]), second.expand(*batch, *second.shape[-3:])], -3
    )


def chunk_rows(plan: Plan, inputs: Tensor) -> tuple[Tensor, int]:
    """Write the inputs of each whole chunk in a row, `(*batch, chunks, L·m)`; and say L."""
    m, n = inputs.shape[-1], plan["power"].shape[-1]
    chunk = (plan["block"].shape[-2] - n) // m
    whole = inputs.shape[-2] // chunk
    rows = inputs[..., : whole * chunk, :].unflatten(-2, (whole, chunk)).flatten(-2)
    return rows, chunk


def whole_chunks(block: Tensor, rows: Tensor, chunk: int, in_order: bool) -> Tensor:
    """Multiply the rows of all chunks by the block, `(*batch, chunks·L, p)`.

    Many products of narrow matrices would cost more than to put one product's result in order.
    """
    p = block.shape[-1] // chunk
    if in_order and block.ndim == 2 and (rows.shape[-3] < FEW_ROWS or p < FEW_COLUMNS):
        return few_copies(block, rows, chunk)
    if not in_order or block.ndim > 2:
        outputs = matvec(block.unsqueeze(-3).mT, rows)
        return outputs.unflatten(-1, (chunk, p)).flatten(-3, -2)
    by_chunk = rows.transpose(-2, -3)  # (*batch, chunks, copies, L·m + n)
    by_step = block.unflatten(-1, (chunk, p)).movedim(-2, 0)
    flat = by_chunk.reshape(-1, *by_chunk.shape[-2:])
    ordered = ordered_product(flat, by_step).unflatten(0, by_chunk.shape[:-2])
    return ordered.flatten(-4, -3).transpose(-2, -3)


def few_copies(block: Tensor, rows: Tensor, chunk: int) -> Tensor:
    """Multiply a cacheful of sequences at a time, and write their copies side by side."""
    copies, chunks = rows.shape[-3:-1]
    p = block.shape[-1] // chunk
    units = rows.reshape(-1, *rows.shape[-3:])
    at_a_time = max(CACHE // (copies * chunks * chunk * p), 1)
    parts = (
        matvec(block.mT, part).unflatten(-1, (chunk, p)).flatten(-3, -2).transpose(-2, -3)
        for part in units.split(at_a_time)
    )
    trained = torch.is_grad_enabled() and (rows.requires_grad or block.requires_grad)
    together = torch.cat(list(parts)) if trained else write_each(parts, units.shape[0])
    return together.transpose(-2, -3).reshape(*rows.shape[:-2], chunks * chunk, p)


def carry_states(plan: Plan, rows: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """Find the states before each whole chunk, `(*batch, chunks, n)`, and after the last."""
    drive = matvec(plan["last"].unsqueeze(-3).mT, rows)
    power = Dense(plan["power"])
    start = drive.new_zeros(*drive.shape[:-2], drive.shape[-1]) if state is None else state
    if drive.shape[-2] > FEW_CHUNKS:
        after = scan_states(power[..., None], drive, state)
        before = torch.cat([start.unsqueeze(-2), after[..., :-1, :]], -2)
        return before, after[..., -1, :]
    states = [start]
    for chunk_drive in drive.unbind(-2):
        states.append(power.apply(states[-1]) + chunk_drive)
    return torch.stack(states[:-1], -2), states[-1]


def state_after(plan: Plan, tail: Tensor, state: Tensor) -> Tensor:
    """Find the state after a chunk that is cut short: its kernel is the end of a chunk's."""
    last = plan["last"][..., -tail.shape[-1] :, :]
    return matvec(last.mT, tail) + Dense(plan["rest_power"]).apply(state)
