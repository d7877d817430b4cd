"""Sums of products with constant matrices, side by side in one product."""

from dataclasses import dataclass

import torch
from torch import Tensor

from linrec._tensors.shapes import broadcast_shapes
from linrec.certificate.exact import (
    INFLATED,
    UNDERFLOW,
    UNIT,
    gamma,
    multiply,
    slices,
)

# The least coefficient of a bound: underflow in the scaling of columns is negligible beside it.
LEAST = 2.0**-1000


@dataclass(frozen=True, eq=False)
class Term:
    """A matrix to multiply by, known as matrix + tail, up to doubt.

    Attributes:
        matrix (*batch, r, q): M.
        tail (*batch, r, q): what was rounded off, or None.
        doubt (*batch, r, q or 1): how far the sum may be off, by entries or by rows; or None.
    """

    matrix: Tensor
    tail: Tensor | None = None
    doubt: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Sum:
    """Sums M v + … for many v: an exact part, a rest, and a bound on the error.

    Attributes:
        part (*batch, time, r): the exact part; None if all is rounded.
        rest (*batch, time, r): the remainder.
        error (*batch, time, r): a bound on the error of part plus rest.
    """

    part: Tensor | None
    rest: Tensor
    error: Tensor


@dataclass(frozen=True, eq=False)
class Matrices:
    """Matrices [M N …] side by side, in one cut or two, each scaled.

    With w the largest number of a row and s = Σ|v|, every part of M₀ + M₁ and v₀ + v₁ is a whole
    multiple of a unit: 2^(1-α) w and 2^(1-β) s at least, so that no number of M₀ is above 2^(α-1)
    units and those of v₀ add up to 2^(β-1) of them and q halves; M₀ v₀ is below 2^53, with
    α + β = 54, and exact. What rounds is in M₁ v + M₀ v₁. Each matrix is scaled by a power of two,
    so that its largest number is about 1, and its vectors the other way.

    If small numbers of a row meet large v, and large ones small v, w s is much too large. Where
    that matters, matrices have to be multiplied one by one (`exact_product`).

    Attributes:
        pieces: the parts, `(*batch, r, q)`; the tail is in the last.
        scale (*batch, 1, q): what columns were divided by.
        first: the columns of the first matrix, for corrections of its vectors.
        bits: β, of vectors.
        terms (q, k): which columns belong to which matrix.
        coefficient (*batch, r, k): the error for each s, by matrices.
        of_small (*batch, r, 1): the same for corrections.
        sizes (*batch, r, n): the size of the first matrix, for radii of its vectors.
    """

    pieces: list[Tensor]
    scale: Tensor
    first: Tensor
    bits: int
    terms: Tensor
    coefficient: Tensor
    of_small: Tensor
    sizes: Tensor

    @classmethod
    def of(cls, terms: list[Term], cuts: int) -> "Matrices":
        """Put matrices side by side, in two cuts; of one cut, products are rounded."""
        first, n = terms[0], terms[0].matrix.shape[-1]
        whole = beside([term.matrix for term in terms])
        scale = beside([scale_of(term.matrix) for term in terms])
        whole, q = whole / scale, whole.shape[-1]
        doubt = whole.new_zeros((1, 1))
        if any(term.doubt is not None for term in terms):
            doubt = beside([or_zeros(term.doubt, term.matrix) for term in terms]) / scale
        bits = bits_of_vectors(q)
        pieces, largest = slices(whole, 54 - bits, cuts)
        tails = torch.zeros_like(largest)
        if any(term.tail is not None for term in terms):
            tail = beside([or_zeros(term.tail, term.matrix) for term in terms]) / scale
            pieces[-1] = pieces[-1] + tail
            doubt = doubt + UNIT * pieces[-1].abs()
            tails = tail.abs().amax(-1, keepdim=True)
        rest = pieces[-1].abs().amax(-1, keepdim=True)
        if cuts > 1:  # M₀ v₁, with |v₁| at most half a unit
            rest = rest + 1.01 * 2.0 ** (1 - bits) * pieces[0].abs().sum(-1, keepdim=True)
        columns = [term.matrix.shape[-1] for term in terms]
        by_term = doubt.expand(*doubt.shape[:-1], q).split(columns, -1)
        doubts = torch.cat([each.amax(-1, keepdim=True) for each in by_term], -1)
        rounding = gamma(cuts * q + n + cuts + 2)
        coefficient = INFLATED * (rounding * rest + doubts) + LEAST
        of_small = INFLATED * (rounding * largest + doubts[..., :1] + tails) + LEAST
        sizes = first.matrix.abs()
        for other in (first.tail, first.doubt):
            sizes = sizes if other is None else sizes + other.abs()
        split = torch.block_diag(*(whole.new_ones(count, 1) for count in columns))
        found = split, coefficient, of_small, INFLATED * sizes
        return cls(pieces, scale, whole[..., :n], bits, *found)

    def add_up(
        self, vectors: list[Tensor], small: Tensor | None = None, radius: Tensor | None = None
    ) -> Sum:
        """Compute M v + N u + …, where v may have a correction and be off by a radius.

        Args:
            vectors: v, u, …, each `(*batch, time, …)`.
            small (*batch, time, n): to be added to v.
            radius (*batch, time, n): how far off v may be.
        """
        scale = self.scale
        v = beside(vectors) * scale
        sizes, coefficient = v.abs() @ self.terms, self.coefficient
        part, rest = None, multiply(self.pieces[-1], v, False)
        if len(self.pieces) > 1:
            anchor = sizes.sum(-1, keepdim=True) * 2.0 ** (54 - self.bits)
            first = (v + anchor).sub_(anchor)
            part = multiply(self.pieces[0], first, False)
            add_product(rest, self.pieces[0], v - first)
        if small is not None:
            small = small * scale[..., : small.shape[-1]]
            add_product(rest, self.first, small)
            size = small.abs() @ v.new_ones(small.shape[-1], 1)
            sizes, coefficient = beside([sizes, size]), beside([coefficient, self.of_small])
        error = multiply(INFLATED * coefficient, sizes, False)
        if radius is not None:
            add_product(error, self.sizes, radius)
        return Sum(part, rest, error.mul_(INFLATED).add_(UNDERFLOW))


def bits_of_vectors(q: int) -> int:
    """Choose β, the bits of vectors, for q columns.

    The rest is M₁ v and M₀ v₁. The second is larger, because every column leaves a part of v, so
    bits go from M to v until both are about equal for an M with few zeros.
    """
    return 27 + min(max(q.bit_length() - 2, 0) // 2, 9)


def add_product(total: Tensor, matrix: Tensor, vectors: Tensor) -> None:
    """Add M v to a total, in place."""
    if matrix.shape[:-2].numel() == 1 and total.is_contiguous() and vectors.ndim == total.ndim:
        matrix = matrix.reshape(matrix.shape[-2:])
        if vectors.shape[:-1] == total.shape[:-1]:
            flat = total.view(-1, total.shape[-1])
            flat.addmm_(vectors.reshape(-1, vectors.shape[-1]), matrix.mT)
            return
    total.add_(multiply(matrix, vectors, False))


def scale_of(matrix: Tensor) -> Tensor:
    """Return a power of two for each column, at most twice its largest number, `(*batch, 1, q)`.

    (`ldexp` rounds through single precision, and `exp2` need not be exact.)
    """
    exponents = torch.frexp(matrix.abs().amax((-2, -1), keepdim=True)).exponent
    exponents = exponents.clamp(-1000, 1000).to(torch.int64)
    scale = ((exponents + 1023) << 52).view(torch.float64)
    return scale.expand(*scale.shape[:-1], matrix.shape[-1])


def beside(tensors: list[Tensor]) -> Tensor:
    """Put tensors side by side, batch axes broadcasting."""
    if len(tensors) == 1:
        return tensors[0]
    batch = broadcast_shapes(*(each.shape[:-1] for each in tensors))
    return torch.cat([each.expand(*batch, each.shape[-1]) for each in tensors], -1)


def or_zeros(part: Tensor | None, matrix: Tensor) -> Tensor:
    """Expand a part of a matrix to all of its columns, or make zeros if there is none."""
    return torch.zeros_like(matrix) if part is None else part.expand_as(matrix)
