"""Powers of a transition matrix by repeated squaring, and the kernels made of them.

Squaring needs log2 T products instead of T, but its rounding errors scale with |A^k||A^k|, not with
A^2k. Where the powers grow before they decay, the first is far larger than the second and digits
are lost; `Powers` measures this loss.
"""

# pyright: reportConstantRedefinition=false
# (A, B, C and D are variables.)

import numpy as np
import torch
from torch import Tensor

from linrec._tensors.annotated import unflatten
from linrec._tensors.devices import in_double
from linrec._tensors.dtypes import double_dtype
from linrec._tensors.known_values import may_look
from linrec._tensors.open_sizes import add_to_first, is_open, loop
from linrec._tensors.shapes import broadcast_shapes
from linrec.loops import take_apart
from linrec.structures import Structure
from linrec.systems import LinearRecurrence

# How many first steps of an impulse response are computed in a loop where coordinates change.
FIRST_STEPS = 8

# Matrices of up to this many states may be squared just to be judged.
SMALL = 64

# Matrices whose largest power cancels less than this (see `Powers.cancellation`) are judged.
RISING = 0.5


class Powers:
    """The powers of one matrix (or of a stack of them), each square computed once.

    Args:
        A: a time-invariant structure, in the precision in which its powers are wanted.
        exponent: A as a power of the transition matrix.
    """

    def __init__(self, A: Structure, exponent: int = 1) -> None:
        self.squares = [A]
        # Nothing is judged where values cannot be read (in a graph, under vmap), or only by waiting
        # for a device in every training step. Diagonal matrices cannot cancel.
        self.judged = A.as_diagonal() is None and may_look(*A.leaves().values())
        self.further: list[Powers] = []
        self.norms = np.empty((2, 0, 1))
        self.exponent, self.extended = exponent, False

    def square(self, level: int) -> Structure:
        """Return A to the power of 2^level."""
        while len(self.squares) <= level:
            last = self.squares[-1]
            self.squares.append(last.compose(last))
        return self.squares[level]

    def power(self, exponent: int) -> Structure:
        """Return A to a power of 1 or more."""
        if exponent < 1:
            raise ValueError(f"`exponent` is {exponent}: expected 1 or more.")
        result = None
        for level in range(exponent.bit_length()):
            if exponent >> level & 1:
                factor = self.square(level)
                result = factor if result is None else result.compose(factor)
        assert result is not None, "some bit of a positive number is set"
        return result

    def beyond(self, exponent: int) -> "Powers":
        """Return the powers of A^exponent, whose cancellation counts towards this object's."""
        self.further.append(Powers(self.power(exponent), self.exponent * exponent))
        return self.further[-1]

    def krylov(self, columns: Tensor, length: int) -> Tensor:
        """Compute B, A B, A² B, … by doubling: log2(length) products of matrices.

        From the first k blocks and A^k, one product gives the next k: A^k [B … A^(k-1) B]. The
        result is transposed, time first, which is how executors multiply by it.

        Args:
            columns (*batch, n, m): B; powers are cast to its dtype to multiply it.
            length: the number of blocks.

        Returns:
            The blocks, transposed: `(*batch, length, m, n)`.

        Numerical error: block k differs by at most about (n log2 k + 1)·eps·|A|^k |B|.
        """
        if is_open(length):
            return self.open_krylov(columns, length)
        m = columns.shape[-1]
        rows = columns.mT  # (*batch, blocks·m, n): the blocks so far, each column as a row
        A, level = self.squares[0], 0
        fits = A.dtype == rows.dtype and A.device == rows.device
        while (blocks := 1 << level) < length:
            power = self.square(level)
            power = power[..., None] if power.batch_shape else power
            more = min(blocks, length - blocks)
            power = power if fits else power.to(rows.dtype).to(rows.device)
            rows = torch.cat([rows, power.apply(rows[..., : more * m, :])], -2)
            level += 1
        return unflatten(rows[..., : length * m, :], -2, (length, m))

    def open_krylov(self, columns: Tensor, length: int) -> Tensor:
        """Compute `krylov` block by block, for a number of blocks that a graph leaves open."""
        A = self.squares[0].to(columns.dtype).to(columns.device)
        A = A[..., None] if A.batch_shape else A
        leaves, rebuilt = take_apart(A)

        def step(rows: Tensor, _: Tensor, *given: Tensor) -> Tensor:
            return rebuilt(*given).apply(rows)

        counted = columns.new_zeros(length)
        blocks, _ = loop(step, columns.mT, [counted], leaves, before=True)
        return blocks.movedim(0, -3)

    def cancellation(self, length: int) -> tuple[float, float]:
        """Measure the cancellation in products of powers up to A^length.

        Every power that was squared is judged. A x has rounding errors of |A||x|, just as A A has
        of |A||A|, so the last power of small matrices is squared once more, and again as long as
        that cancels.

        Returns:
            The largest ‖|A^k|²‖, first relative to the largest ‖A^j‖ up to j = 2k and to sqrt(n),
            which orthogonal matrices reach, then by itself. Zeros where nothing was squared; powers
            that are not finite do not count. Norms are infinity norms, so that row sums suffice: n²
            operations per power.
        """
        last = self.further[-1] if self.further else self
        size = blocks_of(self.squares[0]).shape[-1]
        small = last.judged and size <= SMALL
        if small and not last.extended and last.longest < length:
            last.square(len(last.squares))
            last.extended = True
        while True:
            found = self.judgements()
            if not small or not found or last.longest >= length or found[-1][0] <= RISING:
                return max(found, default=(0.0, 0.0))
            last.square(len(last.squares))

    @property
    def longest(self) -> int:
        """The last square, as a power of the transition matrix."""
        return self.exponent << len(self.squares) - 1

    def judgements(self) -> list[tuple[float, float]]:
        """Compute the two numbers of `cancellation` for each power that was squared.

        Matrices of a stack are judged separately, so that one that grows hides no other.
        """
        found: list[tuple[float, float]] = []
        before = np.float64(1.0)
        root = blocks_of(self.squares[0]).shape[-1] ** 0.5
        for powers in (self, *self.further):
            sizes, squares = powers.measure()
            if len(sizes) < 2 or not sizes.size:  # (a bank may have no systems)
                continue
            largest = np.maximum(np.maximum.accumulate(sizes)[1:], before)
            before, squares = largest[-1], squares[:-1]
            finite = np.isfinite(largest) & np.isfinite(squares)
            squares = np.where(finite, squares, 0)
            shares = squares / np.where(finite, largest, 1) / root
            each, worst = np.arange(len(shares)), shares.argmax(-1)
            found += zip(shares[each, worst].tolist(), squares[each, worst].tolist(), strict=True)
        return found

    def measure(self) -> np.ndarray:
        """Return ‖|A^k|‖ and ‖|A^k|²‖ of judged squares, `(2, squares, matrices)`."""
        known = self.norms.shape[1]  # (each is computed once)
        new = self.squares[known:]
        if self.judged and new and len(self.squares) > 1:
            norms = infinity_norms([blocks_of(each).detach() for each in new])
            found = norms.numpy(force=True)  # the only place that waits for a device
            self.norms = np.concatenate([self.norms, found], 1) if known else found
        return self.norms


def infinity_norms(matrices: list[Tensor]) -> Tensor:
    """Compute ‖|A|‖ and ‖|A|²‖ of (stacks of) matrices by row sums, `(2, len(matrices), stacked)`.

    Small ones are taken together, to save operations; large ones one after the other in the same
    memory, which stays in cache.
    """
    count = len(matrices)
    if matrices[0].numel() <= SMALL * SMALL:
        matrices = [torch.stack(matrices)]
    room = torch.empty_like(matrices[0], dtype=matrices[0].dtype.to_real())
    norms: list[Tensor] = []
    for matrix in matrices:
        torch.abs(matrix, out=room)
        rows = room.sum(-1, keepdim=True)
        norms.append(torch.stack([rows.amax((-2, -1)), (room @ rows).amax((-2, -1))]))
    return torch.stack(norms, 1).reshape(2, count, -1)


def sample(A: Structure, count: int) -> Structure:
    """Sample a stack of matrices, evenly spaced over all its axes."""
    batch = A.batch_shape
    if batch.numel() <= count:
        return A
    chosen = torch.linspace(0, batch.numel() - 1, count, dtype=torch.float64, device="cpu").long()
    index = torch.unravel_index(chosen, batch)
    return A.map(lambda leaf, core: leaf.expand(*batch, *leaf.shape[leaf.ndim - core :])[index])


def blocks_of(A: Structure) -> Tensor:
    """Return the independent diagonal blocks of A, `(*batch, b, b)`; or all of A."""
    blocks = A.as_block_diagonal()
    return A.to_dense() if blocks is None else blocks


def krylov(A: Structure, columns: Tensor, length: int) -> Tensor:
    """Compute B, A B, A² B, …, transposed, `(*batch, length, m, n)`; see `Powers.krylov`."""
    return Powers(A).krylov(columns, length)


def matrix_power(A: Structure, exponent: int) -> Structure:
    """Compute A^exponent by squaring, for exponents of 1 or more."""
    return Powers(A).power(exponent)


def state_kernel(recurrence: LinearRecurrence, length: int, powers: Powers | None = None) -> Tensor:
    """Compute the states that an impulse leaves, A^k B, in double precision.

    Args:
        recurrence: a time-invariant recurrence; if it has copies, one copy is used.
        length: the number of steps.
        powers: the powers of its A in double precision, if already computed.

    Returns:
        The kernel, `(*batch, length, m, n)`.
    """
    one = in_double(recurrence.per_copy())
    if one.B is None:
        columns = torch.eye(one.A.state_size, dtype=one.dtype, device=one.device)
    else:
        columns = one.B.to(one.dtype)
    batch = broadcast_shapes(one.A.batch_shape, columns.shape[:-2])
    powers = powers or Powers(one.A)
    return powers.krylov(columns.expand(*batch, -1, -1), length)


def first_outputs(recurrence: LinearRecurrence, count: int) -> Tensor:
    """Compute the first steps of the impulse response in a loop: C A^k B, plus D at k = 0.

    Returns:
        The kernel's beginning, `(*batch, count, m, p)`, in double precision.
    """
    double = in_double(recurrence.per_copy())
    if double.B is None:
        rows = torch.eye(double.A.state_size, dtype=double.dtype, device=double.device)
    else:
        rows = double.B.mT
    A = double.A[..., None] if double.A.batch_shape else double.A
    states = [rows]
    for _ in range(count - 1):
        states.append(A.apply(states[-1]))
    batch = broadcast_shapes(*(each.shape for each in states))
    return output_kernel(double, torch.stack([each.expand(batch) for each in states], -3))


def impulse_kernel(system: LinearRecurrence, states: Tensor, own: LinearRecurrence) -> Tensor:
    """Read the impulse response off the state kernel of a system in other coordinates.

    Its first steps, in which the powers of A have not grown yet, are exact up to rounding only in
    the recurrence's own coordinates, and are computed there.

    Args:
        system: the system to which the kernel belongs.
        states (*batch, length, m, n): its state kernel.
        own: the recurrence in its own coordinates; `system` itself if it is in them.

    Returns:
        The kernel, `(*batch, length, m, p)`.
    """
    kernel = output_kernel(system, states)
    if own is system:
        return kernel
    first = first_outputs(own, min(FIRST_STEPS, kernel.shape[-3]))
    return torch.cat(
        [
            first.expand_as(kernel[..., : first.shape[-3], :, :]),
            kernel[..., first.shape[-3] :, :, :],
        ],
        -3,
    )


def output_kernel(recurrence: LinearRecurrence, states: Tensor) -> Tensor:
    """Read the impulse response off the state kernel: C A^k B, plus D at k = 0.

    Args:
        recurrence: the recurrence to which the kernel belongs.
        states (*batch, length, m, n): its state kernel.

    Returns:
        The kernel, `(*batch, length, m, p)`.
    """
    one = recurrence.per_copy()
    kernel = states
    if one.C is not None:
        read = one.C.to(states.device, states.dtype).mT
        # (One product per system for all steps, instead of one per step.)
        kernel = unflatten(states.flatten(-3, -2) @ read, -2, states.shape[-3:-1])
    if one.D is None:
        return kernel
    through = one.D.to(states.device, states.dtype).mT.unsqueeze(-3)
    batch = broadcast_shapes(kernel.shape[:-3], through.shape[:-3])
    kernel, through = kernel.expand(*batch, -1, -1, -1), through.expand(*batch, -1, -1, -1)
    if is_open(kernel.shape[-3]):
        return add_to_first(kernel, through.squeeze(-3), 2)
    return torch.cat([kernel[..., :1, :, :] + through, kernel[..., 1:, :, :]], -3)


def free_response(A: Structure, state: Tensor, length: int) -> Tensor:
    """Compute the states that follow an initial state without inputs: A x, A² x, ….

    Args:
        A: a time-invariant structure of n states.
        state (*batch, n): x, the state before the first step.
        length: how many steps.

    Returns:
        The states, `(*batch, length, n)`.
    """
    first = A.apply(state)
    double = in_double(A).to(double_dtype(state.dtype))
    return krylov(double, first.unsqueeze(-1), length).squeeze(-2)


def power_each(A: Structure, state: Tensor, exponents: Tensor, most: int) -> Tensor:
    """Multiply each state by its own power of A, using the binary digits of the exponents."""
    power = in_double(A)
    for digit in range(most.bit_length()):
        chosen = ((exponents >> digit) & 1 == 1).unsqueeze(-1)
        moved = power.to(state.dtype).to(state.device).apply(torch.where(chosen, state, 0))
        state = torch.where(chosen, moved, state)
        if digit + 1 < most.bit_length():
            power = power.compose(power)
    return state
