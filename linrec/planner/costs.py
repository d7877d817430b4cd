"""The costs and errors of the library's executors: operation counts and fitted constants.

Rates of a machine turn costs into time (`linrec.planner.rates`). A user's executor estimates
itself, by methods of the same names.
"""

import math
from collections.abc import Callable, Mapping
from typing import ClassVar

from linrec._tensors.devices import is_launched
from linrec.executors import (
    AssociativeScan,
    Chunked,
    Cost,
    Estimates,
    Executor,
    FFTConvolution,
    Recurrent,
    Toeplitz,
    Workload,
)
from linrec.executors.carry import WIDE_CARRY, count_levels, group_size, pairings
from linrec.executors.chunked import CACHE as CHUNK_CACHE
from linrec.executors.chunked import FEW_ROWS
from linrec.executors.fft import BLOCK as TRANSFORM_BLOCK
from linrec.executors.toeplitz import PIECE, is_small
from linrec.executors.varying.tile_by_tile import tile_size
from linrec.kernels import HAS_TRITON, convolves, has_loops
from linrec.kernels.chunks import MOST_STATES
from linrec.scan_forward import blocks_of

# How many sequential steps of a kernel take as long as one torch operation. (Not measured.)
WALKED = 30

# How many steps of a compiled loop take as long as one torch operation, where a step has too few
# numbers to hide the wait for the step before. (Measured: 5 ns each.)
ALONE, FEW = 1200, 4

# Time of compiled transforms as a fraction of torch's. (Measured.)
COMPILED = 0.4

# Steps of a chunk of the kernels of one gate.
GATED = 64


def estimates_of(executor: Executor) -> Estimates:
    """Return the estimates of an executor; a user's executor is its own."""
    own = ESTIMATES.get(type(executor))
    return executor if own is None else own(executor)


class OwnEstimates(Estimates):
    """The estimates of one of the library's executors.

    Args:
        executor: the executor.
    """

    def __init__(self, executor: Executor) -> None:
        self.executor = executor


class RecurrentEstimates(OwnEstimates):
    """Two products a step, in steps that wait for one another."""

    gradient: ClassVar[Cost] = Cost(operations=1, bytes=2.5, rounds=0.8, memory=1)

    def cost(self, work: Workload) -> Cost:
        """Products of every step, and the states written twice: as steps, and stacked."""
        own = self.final_cost(work)
        states = work.itemsize * work.numbers * work.states
        reading = 2.0 * work.numbers * work.states * work.outputs if work.read else 0.0
        outputs = work.itemsize * work.numbers * work.outputs if work.read else 0
        # The parts of a varying system are applied one by one, each into new memory.
        parts = min(work.multiplications / work.states, 3) if work.time_varying else 0
        # The states of consecutive steps lie apart in memory, and a few states do not fill a cache
        # line. (Measured: from 256 states to one, the time per number grows fourfold.) The states
        # of a single step lie together, and are not stacked.
        scattered = max(0.8 + 3 / math.sqrt(work.states), 1.0) if work.steps > 1 else 0.5
        moved = (4.0 * scattered + 2 * parts) * states + outputs
        written = Cost(reading, moved, work.steps, memory=2 * states + outputs)
        return own + written

    def final_cost(self, work: Workload) -> Cost:
        """Two products a step."""
        products = work.multiplications + (work.states * work.inputs if work.driven else 0)
        matrices = work.itemsize * work.systems * work.steps * products
        matrices = matrices if work.time_varying else 0
        # Slicing a varying system costs as much again as applying it.
        rounds = (8 if work.time_varying else 3 + work.driven) * work.steps
        return Cost(2.0 * work.numbers * products, matrices, rounds)

    def error(self, work: Workload) -> float:
        """Estimate the error for n + 1 roundings per step."""
        return math.sqrt((work.states + work.inputs) * (work.steps + 1)) * work.roundoff


class ToeplitzEstimates(OwnEstimates):
    """A triangle of T² / 2 blocks; the last row alone for the last state."""

    recursive: ClassVar[bool] = False
    gradient: ClassVar[Cost] = Cost(operations=1, bytes=1, rounds=0.6, memory=0.2)

    def cost(self, work: Workload) -> Cost:
        """T² m p / 2 for each sequence, and the matrix written out, unless it is kept."""
        outputs = work.itemsize * work.numbers * work.outputs
        if keeps_matrix(work):
            whole = 2.0 * work.numbers * work.steps * work.inputs * work.outputs
            return Cost(whole, 2 * outputs, 2, memory=outputs) + self.final_cost(work)
        entries = work.steps * (work.steps + 1) / 2 * work.inputs * work.outputs * work.systems
        pieces = math.ceil(2 * entries / work.systems / PIECE)
        held = 2 * outputs + work.itemsize * work.systems * min(2 * entries, PIECE)
        operations = 3.0 * work.batch / work.systems * entries
        written = 4.0 * work.itemsize * entries + 3 * outputs
        return Cost(operations, written, 5 * pieces, memory=held) + self.final_cost(work)

    def final_cost(self, work: Workload) -> Cost:
        """One product of T·m by n for each sequence."""
        return last_cost(work)

    def preparation_cost(self, work: Workload) -> Cost:
        """The state kernel by doubling, and the matrix, if it is small."""
        if not keeps_matrix(work):
            return kernel_cost(work)
        entries = work.systems * work.steps * work.steps * work.inputs * work.outputs
        matrix = 8.0 * entries
        return Cost(0, 2 * matrix, 5, memory=matrix) + kernel_cost(work)

    def error(self, work: Workload) -> float:
        """A direct sum of T m terms."""
        return math.sqrt(work.steps * work.inputs) * work.roundoff


class FFTEstimates(OwnEstimates):
    """Transforms of 2T numbers, and passes through memory."""

    errs_per_step: ClassVar[bool] = False
    recursive: ClassVar[bool] = False
    gradient: ClassVar[Cost] = Cost(1, bytes=1.5, rounds=1.2, transforms=1.4, memory=0.2)

    def cost(self, work: Workload) -> Cost:
        """Transforms of m inputs and p outputs, their product, and each passing through memory."""
        m, p, size = work.inputs, work.outputs, 2 * work.steps
        transforms = transform_operations(size) * (m + p) + 4.0 * size * m * p
        if work.batch * max(m, p) == 1 and not is_launched(work.device):
            transforms *= 2  # a single transform runs in one thread
        blocks = math.ceil(work.batch * p * size / TRANSFORM_BLOCK)
        outputs = work.itemsize * work.numbers * p
        if has_convolution(work):  # compiled, with kernels rearranged
            held = outputs + 4 * work.itemsize * m * p * size
            moved = 2 * outputs + 8 * work.itemsize * m * p * size
            own = Cost(0, moved, 34, COMPILED * transforms * work.batch, memory=held)
            return own + self.final_cost(work)
        # Where one sequence's transforms are larger than the caches, they pass through memory too.
        moved = outputs * (4 if max(m, p) * size <= 1 << 21 else 8)
        held = outputs + 3 * work.itemsize * max(m, p) * size
        own = Cost(0, moved, 12 + 4 * blocks, transforms * work.batch, memory=held)
        return own + self.final_cost(work)

    def final_cost(self, work: Workload) -> Cost:
        """One product of T·m by n for each sequence."""
        return last_cost(work)

    def preparation_cost(self, work: Workload) -> Cost:
        """The state kernel by doubling, and the transforms of the impulse response."""
        m, p, size = work.inputs, work.outputs, 2 * work.steps
        spectra = work.systems * m * p
        traffic = 6.0 * work.itemsize * size * spectra
        spectrum = Cost(0, traffic, 6, transform_operations(size) * spectra, memory=traffic / 3)
        return spectrum + kernel_cost(work)

    def error(self, work: Workload) -> float:
        """Some roundings in each of log2(2T) stages, three transforms, of the largest numbers."""
        stages = max(2 * work.steps - 1, 1).bit_length()
        return math.sqrt(12.0 * stages * work.inputs) * work.roundoff


class ScanEstimates(OwnEstimates):
    """Products in pairs of steps; elementwise, passes over blocks."""

    gradient: ClassVar[Cost] = Cost(operations=1, bytes=1.2, rounds=0.7, memory=1)

    def cost(self, work: Workload) -> Cost:
        """Two products for each step of each sequence, and the matrices' products in pairs."""
        n, p = work.states, work.outputs
        numbers = work.itemsize * work.numbers
        outputs = numbers * p if work.read else 0
        around = 2.0 * work.numbers * n * (work.driven * work.inputs + work.read * p)
        if work.diagonal:
            # Products with the matrices of each step are written out for all sequences, and read
            # again. (Measured: 5 to 10 times the traffic of the scan alone, in compiled loops.)
            written = 6 * work.time_varying * (work.driven + work.read)
            if has_kernel(work):
                waits = work.steps / ALONE if work.batch * n < FEW else 0
                moved = (3 + written) * numbers * n + outputs
                return Cost(around, moved, 3 + waits, memory=numbers * n + outputs)
            rounds = rounds_of_blocks(work.steps, work.batch * n, work.device)
            moved = (8 + written) * numbers * n + outputs
            return Cost(around, moved, rounds, memory=2 * numbers * n + outputs)
        levels = max(work.steps - 1, 0).bit_length()  # none for one step
        combined = work.steps if work.A_varies else levels
        products = work.systems * n * work.multiplications * combined
        applied = 2.0 * work.numbers * work.multiplications * (levels > 0)
        pairs = work.itemsize * work.steps * n * n if work.A_varies else 0
        held = (4.0 if levels else 0.5) * numbers * n + pairs  # one step has no pairs
        rounds = 14 * levels + 6
        moved = 6.0 * held + outputs
        return Cost(around + 2.0 * (products + applied), moved, rounds, memory=held)

    def error(self, work: Workload) -> float:
        """A path has log2(T) products of matrices, or as many roundings as the loop elementwise."""
        if work.diagonal:
            return math.sqrt(2.0 * work.steps + 2) * work.roundoff
        levels = max(work.steps - 1, 1).bit_length() + 2
        return math.sqrt(2.0 * (work.states + 1) * levels) * work.roundoff


class ChunkedEstimates(OwnEstimates):
    """A product with a block for each chunk, and the carry between chunks."""

    def __init__(self, executor: Chunked) -> None:
        self.executor = executor

    def cost(self, work: Workload) -> Cost:
        """The product with the block, and the carry."""
        if work.time_varying:
            return varying_cost(work, self.executor.steps_in_varying_chunk(max(work.steps, 1)))
        n, m, p, chunk = work.states, work.inputs, work.outputs, self.executor.steps_in_chunk(work)
        numbers = work.itemsize * work.numbers
        block = 2.0 * work.numbers * (chunk * m + n) * p
        written = numbers * (2.0 * p + 2 * m + 2 * n / chunk)
        tiles = math.ceil(work.numbers * p / max(CHUNK_CACHE, FEW_ROWS * chunk * p))
        held = Cost(block, written, 8 * tiles + 4, memory=numbers * p)
        return held + carrying_cost(work, chunk)

    def final_cost(self, work: Workload) -> Cost:
        """The products that carry the state."""
        if work.time_varying:
            size = self.executor.steps_in_varying_chunk(max(work.steps, 1))
            return varying_cost(work._replace(outputs=0, read=True), size)
        return carrying_cost(work, self.executor.steps_in_chunk(work))

    def preparation_cost(self, work: Workload) -> Cost:
        """The block and the powers, in double precision."""
        if work.time_varying:
            return Cost(0, 0, 0)
        n, m, p, chunk = work.states, work.inputs, work.outputs, self.executor.steps_in_chunk(work)
        doublings = (chunk + 1).bit_length()
        powers = max(work.steps // chunk, 1).bit_length()
        products = work.multiplications * (chunk * (m + p) + (3 * doublings + powers) * n)
        block = 8.0 * work.systems * (chunk * m + n) * chunk * p
        operations = operations_in_double(work, work.systems * products)
        return Cost(operations, 3 * block, 40 + 12 * doublings, memory=2 * block)

    def error(self, work: Workload) -> float:
        """Estimate the error for as many roundings per chunk as its product is long."""
        if work.time_varying:
            chunk = self.executor.steps_in_varying_chunk(max(work.steps, 1))
        else:
            chunk = self.executor.steps_in_chunk(work)
        terms = work.states + work.inputs * chunk
        return math.sqrt(terms * (work.steps / chunk + 2)) * work.roundoff


def carrying_cost(work: Workload, chunk: int) -> Cost:
    """Estimate the products that carry the state from chunk to chunk."""
    n, m, chunks = work.states, work.inputs, math.ceil(work.steps / chunk)
    if is_launched(work.device):
        size = group_size(n)
        levels = count_levels(max(chunks, 1), size)
        carried = 2.0 * work.batch * chunks * n * (chunk * m + (size + 2) * n)
        states = work.itemsize * work.batch * chunks * n
        return Cost(carried, 5.0 * states, 6 * levels + 6, memory=3.0 * states)
    paired = 0 if work.batch * n >= WIDE_CARRY else pairings(chunks)
    carried = 2.0 * work.batch * chunks * n * (chunk * m + (2 if paired else 1) * n)
    rounds = 2 * math.ceil(chunks / 2**paired) + 8 * paired
    states = work.itemsize * work.batch * chunks * n
    return Cost(carried, 5.0 * states, rounds + 6, memory=3.0 * states)


def varying_cost(work: Workload, size: int) -> Cost:
    """Estimate the cost of a varying system in chunks of `size` steps."""
    n, m, p, steps = work.states, work.inputs, work.outputs, work.steps
    rank = max(round((work.multiplications / n - 1) / 2), 0)
    states = work.itemsize * work.numbers * n
    if has_matrix_kernel(work, rank):
        moved = work.itemsize * (2 * work.numbers + work.systems * steps * (3 + 2 * rank) * n)
        operations = (6.0 + 4 * rank) * work.numbers * n
        if work.one_gate and work.itemsize == 4:  # in chunks; with feedback they are walked through
            kept = work.itemsize * work.numbers * (1 + rank) * (1 + n / GATED)
            rounds = 6 + rank * (3 + steps / GATED)
            return Cost(operations, moved + 4 * kept, rounds, memory=kept)
        return Cost(operations, moved, 2 + steps / WALKED, memory=work.itemsize * work.numbers)
    if not work.read:
        elementwise = Cost(0, 8.0 * states, steps, memory=3.0 * states)
        if not rank:
            return elementwise
        return elementwise + varying_cost(work._replace(outputs=0, read=True), size)
    chunks, rows = max(math.ceil(steps / size), 1), p + rank
    columns = m if work.tied else m + rank
    made = work.systems * steps * columns * (rows or 1) * size * n
    used = work.numbers * (size * columns * rows + n * (columns + rows))
    copied = 3 if work.one_gate else 6
    matrices = work.systems * steps * (copied * n * (rows + columns) + 3 * size * rows * columns)
    sequences = work.numbers * (2 * (m + p + rank) + 3 * n / size)
    together = max(work.batch // max(work.systems, 1), 1)
    sizes = (work.systems, max(steps, 1), m, together, rows, n)
    recorded = work.gradient or work.trained
    systems, stride = tile_size(size, *sizes, work.device, recorded)
    apart = math.ceil(work.systems / systems)
    own = 45 + 35 * (rank > 0) if work.one_gate else 40 + 12 * size.bit_length()
    rounds = apart * (math.ceil(steps / stride) * own + (6 if rank else 3) * chunks)
    per_step = n * (rows + columns) + together * (m + p + 2 * n / size)
    held = work.itemsize * (work.numbers * p + 2 * systems * stride * per_step)
    cost = Cost(2.0 * (made + used), work.itemsize * (matrices + sequences), rounds, memory=held)
    if work.one_gate or not recorded:
        return cost
    return cost * Cost(1.3, 1.3, 1.3, memory=1)  # the gradient goes through every doubling


def kernel_cost(work: Workload) -> Cost:
    """Estimate a state kernel by doubling: log2(T) squarings of A, A^k B for every k, in double."""
    n, m = work.states, work.inputs
    squarings = max(work.steps - 1, 0).bit_length()
    products = (squarings * n + work.steps * m) * work.multiplications
    kernel = 8.0 * work.systems * work.steps * m * n
    operations = operations_in_double(work, work.systems * products)
    return Cost(operations, 4 * kernel, 3 * squarings + 6, memory=1.5 * kernel)


def operations_in_double(work: Workload, products: float) -> float:
    """Count the operations of products in double precision, at the rate of the workload."""
    return (2.0 if work.double else 4.0) * products


def keeps_matrix(work: Workload) -> bool:
    """Whether plans keep the Toeplitz matrix."""
    return is_small(work.steps, work.systems, work.steps, work.inputs, work.outputs)


def last_cost(work: Workload) -> Cost:
    """Estimate one product of T·m by n for each sequence."""
    terms = work.steps * work.inputs * work.states
    # (On a CPU, reading takes half as long as writing memory for the first time.)
    moved = work.itemsize * work.systems * terms / (1 if is_launched(work.device) else 2)
    return Cost(2.0 * work.batch * terms, moved + bytes_compared(work), 3)


def bytes_compared(work: Workload) -> float:
    """Count the bytes of A that are read, on a CPU, when a kept plan is compared with it."""
    if is_launched(work.device):
        return 0.0
    return work.itemsize * work.systems * work.multiplications / 2


def has_kernel(work: Workload) -> bool:
    """Whether a kernel scans elementwise: in one launch or three, or in one loop on a CPU."""
    kernel = has_loops(work.device) or (work.device == "cuda" and HAS_TRITON)
    return work.diagonal and kernel


def has_convolution(work: Workload) -> bool:
    """Whether compiled loops convolve: real numbers, with the kernels of one system."""
    real = work.itemsize == 4 or (work.itemsize == 8 and work.double)
    sizes = (work.itemsize, work.steps, work.outputs, work.batch)
    return real and work.systems == 1 and convolves(work.device, *sizes)


def has_matrix_kernel(work: Workload, rank: int) -> bool:
    """Whether a kernel walks through a varying system of one input and one output."""
    single = work.inputs == work.outputs == 1 and work.driven and work.read
    fits = rank <= 1 and work.states <= MOST_STATES
    if work.gradient or work.trained:  # in chunks of one gate alone
        fits = fits and work.one_gate and work.itemsize == 4
    return single and fits and work.time_varying and work.device == "cuda" and HAS_TRITON


def rounds_of_blocks(steps: int, width: int, device: str) -> int:
    """Count the operations of an elementwise scan: two passes over a block, and so on above."""
    blocks = blocks_of(steps, width, device)
    if blocks < 2:
        return steps
    return 2 * (steps // blocks) + 8 + rounds_of_blocks(blocks, width, device)


def transform_operations(size: int) -> float:
    """Count the operations of a transform of a real signal."""
    return 2.5 * size * max(size - 1, 1).bit_length()


# One row for each executor of the library.
ESTIMATES: Mapping[type[Executor], Callable[..., Estimates]] = {
    Recurrent: RecurrentEstimates,
    Toeplitz: ToeplitzEstimates,
    FFTConvolution: FFTEstimates,
    AssociativeScan: ScanEstimates,
    Chunked: ChunkedEstimates,
}
