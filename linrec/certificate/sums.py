"""Sums of products with matrices that are the same at every step: one product, side by side."""

from dataclasses import dataclass

import torch
from torch import Tensor

from linrec._checks import broadcast_shapes
from linrec.certificate.exact import (
    INFLATED,
    UNDERFLOW,
    UNIT,
    bits_of,
    gamma,
    multiply,
    slices,
)

# No coefficient of a bound is less: what underflows where columns are scaled is nothing beside it.
LEAST = 2.0**-1000


@dataclass(frozen=True, eq=False)
class Term:
    """A matrix to multiply by: what is known of it is matrix + tail, up to doubt.

    Attributes:
        matrix (*batch, r, q): M.
        tail (*batch, r, q): what was rounded off, or None.
        doubt (*batch, r, q or 1): how far the sum may be off, in one column for whole rows; or None.
    """

    matrix: Tensor
    tail: Tensor | None = None
    doubt: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Sum:
    """Sums M v + …, found for many v: exact parts, a rest that is small, and a bound on its error.

    Attributes:
        parts: tensors `(*batch, time, r)`, exact.
        rest (*batch, time, r): what is left.
        error (*batch, time, r): how far parts and rest together are off, at most.
    """

    parts: list[Tensor]
    rest: Tensor
    error: Tensor


@dataclass(frozen=True, eq=False)
class Matrices:
    """Matrices [M N …] side by side, cut for products that are exact, with scaled columns.

    With w the largest number of a row and s = Σ|v|, every part of M and v is a whole multiple of a
    unit: of two cuts M₀ + M₁ and v₀ + v₁ the units are 2^(1-α) w and 2^(1-β) s at least, so that
    no number of M₀ is above 2^(α-1) and those of v₀ add up to 2^(β-1), up to q halves; a sum of
    products is below 2^53, with α + β = 54. (More cuts take fewer bits, as in `exact_product`,
    whose largest |v| is less than s.) Columns are scaled by powers of two, so that the largest number of each is
    about 1 and that a column which meets small v alone does not spoil the others.

    Attributes:
        pieces: the parts, `(*batch, r, q)`; the tail is in the last.
        scale (*batch, 1, q): what columns were divided by.
        first: the columns of the first matrix, for corrections of its vectors.
        bits: β, of vectors.
        coefficient (*batch, r, 1): the error for each s.
        of_small (*batch, r, 1): the same for corrections.
        sizes (*batch, r, n): the size of the first matrix, for radii of its vectors.
    """

    pieces: list[Tensor]
    scale: Tensor
    first: Tensor
    bits: int
    coefficient: Tensor
    of_small: Tensor
    sizes: Tensor

    @classmethod
    def of(cls, terms: list[Term], cuts: int) -> "Matrices":
        """Put matrices side by side, in some number of cuts; of one cut, products are rounded."""
        first, n = terms[0], terms[0].matrix.shape[-1]
        whole = beside([term.matrix for term in terms])
        scale = powers_of_two(whole.abs().amax(-2, keepdim=True))
        whole, q = whole / scale, whole.shape[-1]
        doubt = whole.new_zeros((1, 1))
        if any(term.doubt is not None for term in terms):
            doubt = beside([or_zeros(term.doubt, term.matrix) for term in terms]) / scale
        bits, of_matrix = bits_of_both(q, cuts)
        pieces, largest = slices(whole, of_matrix, cuts)
        tails = torch.zeros_like(largest)
        if any(term.tail is not None for term in terms):
            tail = beside([or_zeros(term.tail, term.matrix) for term in terms]) / scale
            pieces[-1] = pieces[-1] + tail
            doubt = doubt + UNIT * pieces[-1].abs()
            tails = tail.abs().amax(-1, keepdim=True)
        # The rest is M_last v, and each other piece with what the parts so far have left of v.
        rest = pieces[-1].abs().amax(-1, keepdim=True)
        for left in range(1, cuts):
            sums = pieces[cuts - 1 - left].abs().sum(-1, keepdim=True)
            rest = rest + 1.01 * 2.0 ** (2 * left - 1 - left * bits) * sums
        doubt = doubt.amax(-1, keepdim=True)
        rounding = gamma(cuts * q + n + cuts + 2)
        coefficient = INFLATED * (rounding * rest + doubt) + LEAST
        of_small = INFLATED * (rounding * largest + doubt + tails) + LEAST
        sizes = first.matrix.abs()
        for other in (first.tail, first.doubt):
            sizes = sizes if other is None else sizes + other.abs()
        return cls(
            pieces, scale, whole[..., :n], bits, coefficient, of_small, INFLATED * sizes
        )

    def add_up(
        self, vectors: list[Tensor], small: Tensor | None = None, radius: Tensor | None = None
    ) -> Sum:
        """Compute M v + N u + …, where v may have a correction and be off by a radius.

        Args:
            vectors: v, u, …, each `(*batch, time, …)`.
            small (*batch, time, n): to be added to v.
            radius (*batch, time, n): how far off v may be.
        """
        cuts, scale = len(self.pieces), self.scale
        v = beside(vectors) * scale
        size = sizes = v.abs() @ v.new_ones(v.shape[-1], 1)
        coefficient = self.coefficient
        parts, rest = [], multiply(self.pieces[-1], v, False)
        if cuts > 1:
            others, remains = cut_by(v, size, self.bits, cuts)
            for left in range(1, cuts):
                add_product(rest, self.pieces[cuts - 1 - left], remains[left - 1])
            parts.append(multiply(self.pieces[0], others[0], False))
            for last in range(1, cuts - 1):
                side = torch.cat(self.pieces[: last + 1], -1)
                parts.append(multiply(side, torch.cat(others[last::-1], -1), False))
        if small is not None:
            small = small * scale[..., : small.shape[-1]]
            add_product(rest, self.first, small)
            size = small.abs() @ v.new_ones(small.shape[-1], 1)
            sizes, coefficient = beside([sizes, size]), beside([coefficient, self.of_small])
        error = multiply(INFLATED * coefficient, sizes, False)
        if radius is not None:
            add_product(error, self.sizes, radius)
        return Sum(parts, rest, error.mul_(INFLATED).add_(UNDERFLOW))


def bits_of_both(q: int, cuts: int) -> tuple[int, int]:
    """Give the bits of the parts of vectors and of matrices.

    The rest of two cuts is M₁ v and M₀ v₁, of which the second is larger, as all columns leave
    something of v: bits go from M to v, until both are about alike where M has few zeros.
    """
    if cuts != 2 or q > 1 << 20:
        return bits_of(q, cuts), bits_of(q, cuts)
    moved = max(q.bit_length() - 2, 0) // 2
    return 27 + moved, 27 - moved


def cut_by(v: Tensor, size: Tensor, bits: int, cuts: int) -> tuple[list[Tensor], list[Tensor]]:
    """Cut vectors as `slices` does, by sizes that are given; what each cut leaves, too."""
    anchor, parts, remains = size * 2.0 ** (54 - bits), [], []
    for _ in range(cuts - 1):
        parts.append((v + anchor).sub_(anchor))
        v = v - parts[-1]
        remains.append(v)
        anchor = anchor * 2.0 ** (2 - bits)
    return parts, remains


def add_product(total: Tensor, matrix: Tensor, vectors: Tensor) -> None:
    """Add M v to what is there, in place."""
    if matrix.shape[:-2].numel() == 1 and total.is_contiguous() and vectors.ndim == total.ndim:
        matrix = matrix.reshape(matrix.shape[-2:])
        if vectors.shape[:-1] == total.shape[:-1]:
            flat = total.view(-1, total.shape[-1])
            flat.addmm_(vectors.reshape(-1, vectors.shape[-1]), matrix.mT)
            return
    total.add_(multiply(matrix, vectors, False))


def powers_of_two(sizes: Tensor) -> Tensor:
    """Give powers of two that are at most twice as large, between 2^-1000 and 2^1000.

    (`ldexp` rounds through single precision, and `exp2` need not be exact.)
    """
    exponents = torch.frexp(sizes).exponent.clamp(-1000, 1000).to(torch.int64)
    return ((exponents + 1023) << 52).view(torch.float64)


def beside(tensors: list[Tensor]) -> Tensor:
    """Put tensors side by side, batch axes broadcasting."""
    if len(tensors) == 1:
        return tensors[0]
    batch = broadcast_shapes(*(each.shape[:-1] for each in tensors))
    return torch.cat([each.expand(*batch, each.shape[-1]) for each in tensors], -1)


def or_zeros(part: Tensor | None, matrix: Tensor) -> Tensor:
    """Take a part of a matrix for all of its columns; zeros, if there is none."""
    return torch.zeros_like(matrix) if part is None else part.expand_as(matrix)
