"""Several steps of a system as one, with matrices enclosed to twice double precision."""

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from linrec._tensors.shapes import broadcast_shapes
from linrec.certificate.exact import (
    INFLATED,
    UNIT,
    Enclosure,
    Product,
    add_up,
    gamma,
    multiply,
)
from linrec.certificate.norm import fitting_norm
from linrec.certificate.real import RealSystem
from linrec.executors.toeplitz import flat_columns

# Runs over fewer states in all are not worth the preparation; nor are chunks of fewer steps.
LONG, LEAST = 1 << 17, 4


@dataclass(frozen=True, eq=False)
class ChunkedSystem:
    """A system that takes L steps at a time, in coordinates in which A hardly grows.

        x_{(i+1)L-1} = A^L x_{iL-1} + [A^(L-1) B … B] u        y = [C A; …; C A^L] x_{iL-1} + H u

    with u the inputs of chunk i one below the other, y its outputs, and H of C A^(t-s) B and D.

    Attributes:
        states: the whole chunks; C is None.
        outputs: all chunks, the last filled up with zeros, which are read from the states before.
        skips: A, A², A⁴, … as steps without inputs, from the states before to those after.
        end: the states in their own coordinates, and what a chunk of inputs adds to them.
        chunk: L.
        steps: the number of steps.
    """

    states: RealSystem
    outputs: RealSystem
    skips: list[RealSystem]
    end: RealSystem
    chunk: int
    steps: int

    def by_step(self, outputs: Tensor) -> Tensor:
        """Bring outputs of chunks `(*batch, chunks, L·p)` into their order, `(*batch, time, p)`."""
        each = outputs.unflatten(-1, (self.chunk, -1)).flatten(-3, -2)
        return each[..., : self.steps, :]


def in_chunks(
    system: RealSystem, chunk: int, multiplied: Product, padded: bool
) -> ChunkedSystem | None:
    """Combine steps of a system into chunks of at most `chunk`; None if that does not help.

    Args:
        system: the system, step by step.
        chunk: L at most.
        multiplied: how products of its matrices are computed.
        padded: whether sequences may end before the last step.
    """
    inputs = system.inputs
    steps, m = inputs.shape[-2:]
    groups, n = system.groups
    size = 1 << (chunk.bit_length() - 1)
    many = inputs.shape[:-1].numel() * n >= LONG
    if not many or size < LEAST or groups > 1 or n == 1 or any(system.by_step.values()):
        return None
    if not bool(inputs.isfinite().all()):  # a chunk would lose the finite steps before others
        return None
    product = partial(enclose_product, multiplied)
    A = exactly(system.A.squeeze(-3))
    if "A" in system.tails:
        A = Enclosure(A.high, system.tails["A"].squeeze(-3), system.doubts["A"].squeeze(-3))
    doubt = system.doubt("A")
    norm = fitting_norm(A.high, None if doubt is None else doubt.squeeze(-3), steps)
    back, forward = exactly(norm.backward), inverse(norm.backward, norm.forward, multiplied)
    one = torch.eye(n, dtype=inputs.dtype, device=inputs.device)
    columns = product(A, transpose(back)), exactly(one if system.B is None else system.B.mT)
    columns = product(forward, Enclosure(*map(below, *map(parts_of, columns))))
    A, columns = (
        transpose(columns.map(lambda each: each[..., :n, :])),
        columns.map(lambda each: each[..., n:, :]),
    )
    squares, moved = stack_powers(A, norm.growth, columns, size, multiplied)
    rows = back if system.C is None else product(transpose(back), exactly(system.C))
    turned = [square._replace(matrix=transpose(square.matrix)) for square in squares]
    first = product(turned[0].matrix, rows)
    reach = stack_products(turned, first, multiplied)  # (*batch, L·p, n): C A^1 … C A^L
    kernel = product(rows, moved).map(lambda each: each.unflatten(-2, (size, m)))
    if system.D is not None:
        kernel = with_first(kernel, system.D.mT)
    block = kernel.map(lambda each: toeplitz(each, size))
    last = moved.map(lambda each: each.unflatten(-2, (size, m)).flip(-3).flatten(-3, -2))

    whole = steps // size
    filled = torch.nn.functional.pad(inputs, (0, 0, 0, -steps % size))
    by_chunk = filled.unflatten(-2, (-1, size)).flatten(-2)
    start = exactly(system.start.unsqueeze(-2))
    start = product(forward, start) if bool(system.start.any()) else start
    system = replace(system, start=start.high.squeeze(-2))
    states = assemble(
        system, by_chunk[..., :whole, :], start, A=squares[-1].matrix, B=transpose(last)
    )
    outputs = assemble(system, by_chunk, start, A=A, C=reach, D=block)
    idle = inputs[..., :1, :0]
    skips = [assemble(system, idle, start, A=A, C=square.matrix) for square in squares[:-1]]
    cut = steps % size > 0 or padded
    added = {"D": transpose(product(back, last))} if cut else {}
    end = assemble(system, by_chunk[..., :1, :], start, A=A, C=back, **added)
    return ChunkedSystem(states, outputs, skips, end, size, steps)


def inverse(matrix: Tensor, near: Tensor, multiplied: Product) -> Enclosure:
    """Enclose the inverse of a matrix M, `(*batch, n, n)`, with another one N near it.

    N + (1 - N M) N is nearer. With N M = 1 - E for that one, the inverse is (1 + E + E² + …) N, and
    the terms after E N are less than ‖E‖²/(1 - ‖E‖) ‖N‖ together, in norms of rows.
    """
    found = exactly(near)
    found = Enclosure(near, left_over(found, matrix, multiplied)[0] @ near, found.radius)
    off = left_over(found, matrix, multiplied)[1]
    size = INFLATED * off.sum(-1, keepdim=True).amax(-2, keepdim=True)
    further = torch.where(size < 0.5, 2 * size**2, torch.nan)
    sizes = found.high.abs() + found.low.abs()
    radius = off @ sizes + further * sizes.sum(-2, keepdim=True)
    return Enclosure(found.high, found.low, INFLATED * radius)


def left_over(near: Enclosure, matrix: Tensor, multiplied: Product) -> tuple[Tensor, Tensor]:
    """Compute 1 - N M, and bound its size."""
    one = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    found = enclose_product(multiplied, near, exactly(matrix.mT))
    # (A difference of numbers within a factor of 2 of each other is exact.)
    high, low = one - found.high.mT, found.low.mT
    return high - low, INFLATED * (high.abs() + low.abs() + found.radius.mT + UNIT * high.abs())


def assemble(
    system: RealSystem, inputs: Tensor, start: Enclosure, **matrices: Enclosure
) -> RealSystem:
    """Make a system of enclosed matrices; only A has a doubt for each entry."""
    matrices["A"] = matrices["A"].map(lambda each: each.unsqueeze(-3))
    given = {name: matrix.high for name, matrix in matrices.items()}
    tails = {name: matrix.low for name, matrix in matrices.items()}
    tails["start"], doubts_of_start = start.low.squeeze(-2), start.radius.squeeze(-2)
    doubts = {"start": doubts_of_start} | {
        name: matrix.radius if name == "A" else matrix.radius.amax(-1, keepdim=True)
        for name, matrix in matrices.items()
    }
    given = {"B": None, "C": None, "D": None} | given
    return replace(system, **given, inputs=inputs, tails=tails, doubts=doubts)


def exactly(matrix: Tensor) -> Enclosure:
    """Enclose a matrix that is exact."""
    zeros = torch.zeros_like(matrix)
    return Enclosure(matrix, zeros, zeros, is_exact=True)


def transpose(matrix: Enclosure) -> Enclosure:
    """Transpose."""
    return matrix.map(lambda each: each.mT)


def enclose_product(multiplied: Product, left: Enclosure, rows: Enclosure) -> Enclosure:
    """Enclose (M V)ᵀ for M in `left (*batch, r, q)` and Vᵀ in `rows (*batch, k, q)`.

    The radius of each side is multiplied by the size of the other.
    """
    high, low, error = multiply_parts(left, rows, multiplied)
    size, other = (each.high.abs() + each.low.abs() for each in (left, rows))
    if not left.is_exact:
        error += multiply(left.radius, other + rows.radius, False)
    if not rows.is_exact:
        error += multiply(size, rows.radius, False)
    return Enclosure(high, low, INFLATED * error)


def multiply_parts(
    left: Enclosure, rows: Enclosure, multiplied: Product
) -> tuple[Tensor, Tensor, Tensor]:
    """Multiply high and low parts, and bound the loss, as `product` does.

    (M + m)(V + v) is M V, which is exact in its parts, and m (V + v) + M v, which are small.
    """
    high, low, lost = add_up([multiplied(left.high, rows.high, False)], [])
    small = [(left.low, rows.high + rows.low)] if bool(left.low.any()) else []
    small += [(left.high, rows.low)] if bool(rows.low.any()) else []
    rounding = gamma(2 * left.high.shape[-1] + 6)
    for matrix, vectors in small:
        low += multiply(matrix, vectors, False)
        lost.add_(multiply(matrix.abs(), vectors.abs(), False), alpha=rounding)
    lost.add_(low.abs(), alpha=8 * UNIT)
    total = high + low
    return total, low.sub_(total - high), lost.mul_(INFLATED)


class Power(NamedTuple):
    """A power of a matrix.

    Attributes:
        matrix: an enclosure.
        size (*batch, 1, 1): its norm at most.
        off (*batch, 1, 1): a bound on the norm of high + low minus the power itself.
    """

    matrix: Enclosure
    size: Tensor
    off: Tensor


def stack_powers(
    A: Enclosure, growth: Tensor, rows: Enclosure, count: int, multiplied: Product
) -> tuple[list[Power], Enclosure]:
    """Enclose A, A², A⁴, … A^count and V, A V, … A^(count-1) V, each transposed, one below another.

    The norm of A is at most `growth (*batch)`. Bounds of entries would grow by a factor of n with
    each square, norms do by 2.
    """
    n, off = A.high.shape[-1], norm_of_rows(rows.radius)
    squares = [Power(A, growth[..., None, None], matrix_norm(A.radius))]
    for _ in range(count.bit_length() - 1):
        power = squares[-1]
        both = Enclosure(*map(below, parts_of(transpose(power.matrix)), parts_of(rows)))
        found = multiply_parts(power.matrix, both, multiplied)
        high, low, lost = (each[..., :n, :].mT for each in found)
        wrong = INFLATED * (2 * power.size * power.off + power.off**2 + matrix_norm(lost))
        rows, off = put_below(rows, off, power, [each[..., n:, :] for each in found])
        made = Enclosure(high, low, wrong.expand_as(high))
        squares.append(Power(made, INFLATED * power.size * power.size, wrong))
    return squares, rows


def matrix_norm(matrix: Tensor) -> Tensor:
    """Bound the norm of matrices, `(*batch, 1, 1)`."""
    return INFLATED * torch.linalg.matrix_norm(matrix, keepdim=True)


def norm_of_rows(rows: Tensor) -> Tensor:
    """Bound the norm of each row, in one column."""
    return INFLATED * torch.linalg.vector_norm(rows, dim=-1, keepdim=True)


def stack_products(squares: list[Power], rows: Enclosure, multiplied: Product) -> Enclosure:
    """Enclose V, M V, M² V, …, as many as the last of the powers of M, transposed alike."""
    off = norm_of_rows(rows.radius)
    for power in squares[:-1]:
        found = multiply_parts(power.matrix, rows, multiplied)
        rows, off = put_below(rows, off, power, list(found))
    return rows


def put_below(
    rows: Enclosure, off: Tensor, power: Power, found: list[Tensor]
) -> tuple[Enclosure, Tensor]:
    """Put rows M V below the rows of V, with bounds on their norms.

    Args:
        rows (*batch, k, n): V, transposed.
        off (*batch, k, 1): how far each row may be off, as a norm.
        power: M.
        found: M V as `multiply_parts` gives it.
    """
    high, low, lost = found
    moved = power.size * off + power.off * (1.01 * norm_of_rows(rows.high) + off)
    moved = INFLATED * (moved + norm_of_rows(lost))
    new = high, low, moved.expand_as(high)
    return Enclosure(*map(below, parts_of(rows), new)), below(off, moved)


def parts_of(enclosure: Enclosure) -> tuple[Tensor, Tensor, Tensor]:
    """Split an enclosure into high, low and radius."""
    return enclosure.high, enclosure.low, enclosure.radius


def below(first: Tensor, second: Tensor) -> Tensor:
    """Put rows below others, batch axes broadcasting."""
    batch = broadcast_shapes(first.shape[:-2], second.shape[:-2])
    return torch.cat([each.expand(*batch, *each.shape[-2:]) for each in (first, second)], -2)


def with_first(kernel: Enclosure, through: Tensor) -> Enclosure:
    """Add D to the first step of a kernel `(*batch, time, m, p)`, without an error."""
    first = kernel.high[..., 0, :, :]
    total = first + through
    back = total - first
    lost = (first - (total - back)) + (through - back)
    rest = kernel.low[..., 0, :, :] + lost
    radius = kernel.radius[..., 0, :, :] + INFLATED * UNIT * rest.abs()
    return Enclosure(*map(put_first, (total, rest, radius), parts_of(kernel)))


def put_first(first: Tensor, kernel: Tensor) -> Tensor:
    """Put `first (*batch, m, p)` in the place of a kernel's first step."""
    later = kernel[..., 1:, :, :].expand(*first.shape[:-2], -1, -1, -1)
    return torch.cat([first.unsqueeze(-3), later], -3)


def toeplitz(kernel: Tensor, size: int) -> Tensor:
    """Write out H of a kernel `(*batch, time, m, p)`, `(*batch, L·p, L·m)`."""
    return flat_columns(kernel, 0, size).mT
