"""Products of matrices and vectors as sums of floating-point numbers that round only in their tail.

Numbers are cut into slices with few enough bits that ordinary matrix products of slices are exact,
in any order of summation (Ozaki, Ogita, Oishi and Rump 2012). All is in double precision.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

UNIT = 2.0**-53

# Bounds are sums and products of non-negative numbers. K roundings make one too small by a factor
# of (1 - UNIT)^K at most, which this outweighs for K up to 1e10: T·n of the largest runs.
INFLATED = 1 + 2e-6

# The most that gradual underflow can take from one number: 2^-1075 for each product, with fewer
# than 2^40 products in a sum.
UNDERFLOW = 2.0**-1030


def gamma(roundings: float) -> float:
    """Bound the relative error k u / (1 - k u) of k roundings (Higham 2002, lemma 3.1)."""
    return 1.01 * roundings * UNIT


@dataclass(frozen=True, eq=False)
class Enclosure:
    """An enclosure of exact numbers: high + low, up to `radius`, all of one shape.

    Attributes:
        is_exact: whether low and radius are known to be zeros.
    """

    high: Tensor
    low: Tensor
    radius: Tensor
    is_exact: bool = field(default=False, kw_only=True)

    def map(self, function: Callable[[Tensor], Tensor]) -> "Enclosure":
        """Apply a function to all three tensors."""
        made = function(self.high), function(self.low), function(self.radius)
        return Enclosure(*made, is_exact=self.is_exact)

    def at(self, steps: Tensor) -> "Enclosure":
        """Take one step of each sequence, `(*batch, 1, n)`, by its number `(*batch, 1, 1)`."""
        steps = steps.expand(*steps.shape[:-1], self.high.shape[-1])
        return self.map(lambda each: each.gather(-2, steps))

    def where(self, condition: Tensor, other: "Enclosure") -> "Enclosure":
        """Take these numbers where a condition holds, and others elsewhere."""
        high, low = (
            torch.where(condition, mine, theirs)
            for mine, theirs in ((self.high, other.high), (self.low, other.low))
        )
        return Enclosure(high, low, torch.where(condition, self.radius, other.radius))


@dataclass(frozen=True, eq=False)
class ExactProduct:
    """M v as parts that are exact, a rest that is small, and a bound of the error of the rest.

    Attributes:
        parts: tensors `(*batch, time, rows)`; their sum and the rest are M v.
        rest (*batch, time, rows): the remainder, computed with rounding.
        size (*batch, time, rows): no |part|, |rest| or sum of them is larger.
        error: the rest is wrong by `error` times the size at most.
    """

    parts: list[Tensor]
    rest: Tensor
    size: Tensor
    error: float

    def map(self, function: Callable[[Tensor], Tensor]) -> "ExactProduct":
        """Change the order of the entries."""
        parts, rest, size = map(function, self.parts), function(self.rest), function(self.size)
        return ExactProduct(list(parts), rest, size, self.error)


# From a matrix, vectors, and whether the matrix changes from step to step.
Product = Callable[[Tensor, Tensor, bool], ExactProduct]


def multiply(matrix: Tensor, vectors: Tensor, by_step: bool) -> Tensor:
    """Multiply matrices `(*batch, [time,] r, q)` by vectors `(*batch, time, q)`."""
    if by_step:
        return (matrix @ vectors.unsqueeze(-1)).squeeze(-1)
    if matrix.shape[-2:] == (1, 1):
        return matrix * vectors
    if matrix.ndim > 2 and matrix.shape[:-2].numel() == 1:  # one matrix product for all sequences
        matrix = matrix.reshape(matrix.shape[-2:])
    return vectors @ matrix.mT


def exact_product(matrix: Tensor, vectors: Tensor, by_step: bool, cuts: int = 3) -> ExactProduct:
    """Multiply, with an error of about 2^-90 of the largest products; 2^-110 with four cuts.

    Both sides are cut in three, M = M₀ + M₁ + M₂: whole multiples of a unit of the row's largest
    number, below 2^β, the same of what remains, and what remains then. A sum of 2q products of two
    such numbers is a whole number of at most 2^53 units, so that M₀v₀ and M₀v₁ + M₁v₀, which is one
    product of matrices side by side, are exact; the rest, M₀v₂ + M₁(v₁ + v₂) + M₂v, has 2β fewer
    bits.

    Args:
        matrix (*batch, [time,] r, q): M.
        vectors (*batch, time, q): v.
        by_step: whether M has an axis of time.
        cuts: into how many parts both sides are cut.
    """
    q = matrix.shape[-1]
    bits = (54 - math.ceil(math.log2((cuts - 1) * q))) // 2
    pieces, m_size = slices(matrix, bits, cuts)
    others, v_size = slices(vectors, bits, cuts)
    rest = multiply(pieces[-1], vectors, by_step)
    remains = vectors  # what the parts so far leave of v for the next piece of M
    for number in range(cuts - 2, -1, -1):
        remains = remains - others[cuts - 2 - number]
        rest += multiply(pieces[number], remains, by_step)
    parts = [multiply(pieces[0], others[0], by_step)]
    for last in range(1, cuts - 1):
        side = torch.cat(pieces[: last + 1], -1)
        below = torch.cat(others[last::-1], -1)
        parts.append(multiply(side, below, by_step))
    rows = m_size.squeeze(-1) if by_step else m_size.mT
    size = 1.01 * q * rows * v_size
    # With s, t for the largest numbers of a row and of v: |M_i| < 1.01·2^(2i-1-iβ) s from i = 1 on,
    # and so v. The rest is of `cuts` products with i + j = cuts - 1, and of smaller ones. Each sum
    # of q products rounds q times, and a rounding for each puts them together.
    left = 1.1 * cuts * 2.0 ** ((2 - bits) * (cuts - 1))
    return ExactProduct(parts, rest, size, gamma(q + cuts) * left)


def rounded_product(matrix: Tensor, vectors: Tensor, by_step: bool) -> ExactProduct:
    """Multiply as usual, with rounding, as a rest alone; arguments as in `exact_product`."""
    q = matrix.shape[-1]
    rows = matrix.abs().sum(-1)
    rows = rows if by_step else rows.unsqueeze(-2)
    size = 1.01 * rows * vectors.abs().amax(-1, keepdim=True)
    return ExactProduct([], multiply(matrix, vectors, by_step), size, gamma(q))


def product_in(cuts: int) -> Product:
    """Choose how to multiply: in some number of cuts, or in one as usual, with rounding."""
    return rounded_product if cuts == 1 else partial(exact_product, cuts=cuts)


def slices(numbers: Tensor, bits: int, cuts: int) -> tuple[list[Tensor], Tensor]:
    """Cut the numbers of each row in parts; also return the size of the largest, `(..., 1)`.

    Adding c and subtracting it again rounds to a multiple of the spacing of floating-point numbers
    about c, which is between 2^-53 c and 2^-52 c; with c = 2^(54 - β) max |row| the multiple is at
    most 2^(β-1). What remains is exact, and at most 2^-53 c = 2^(1 - β) max |row|.
    """
    size = numbers.abs().amax(-1, keepdim=True)
    anchor, parts = size * 2.0 ** (54 - bits), []
    for _ in range(cuts - 1):
        parts.append((numbers + anchor) - anchor)
        numbers = numbers - parts[-1]
        anchor = anchor * 2.0 ** (2 - bits)
    return [*parts, numbers], size


def add_up(products: list[ExactProduct], numbers: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Add products and plain numbers.

    Args:
        products: products of the same shape.
        numbers: tensors of that shape.

    Returns:
        Three tensors: the sum is the first plus the second, up to an error that the third bounds.
    """
    terms = [*numbers, *(part for product in products for part in product.parts)]
    terms = terms or [torch.zeros_like(products[0].rest)]
    high, low = terms[0], None
    for term in terms[1:]:
        total = high + term
        back = total - high
        # What `high + term` has lost.
        lost = torch.sub(high, total - back).add_(torch.sub(term, back, out=back))
        low = lost if low is None else low.add_(lost)
        high = total
    for product in products:
        low = product.rest + 0.0 if low is None else low.add_(product.rest)
    low = torch.zeros_like(high) if low is None else low
    # The numbers that add up to `low`, in k roundings, are losses, each below u times the sum of
    # sizes, and rests, which are below error / gamma(1) times their size.
    k = len(terms) + len(products)
    each = gamma(k) * k * UNIT * INFLATED
    error = torch.full_like(high, UNDERFLOW)
    for number in numbers:
        error.add_(number.abs(), alpha=each)
    for product in products:
        factor = INFLATED * (1 + k) * product.error + 3.01 * each
        error.add_(product.size, alpha=factor)
    return high, low, error
