"""Error bounds of long runs of systems whose |A|^k grows although A^k does not."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from linrec.testing.bounds.own_coordinates import ErrorBounds
from linrec.testing.products import Magnitudes, magnitudes

# Products of four powers are bounded for ranges of k; this is a range's end over its begin.
RANGE = 1.25

# Fewer rates of decay than RATES are tried, none faster than FASTEST, the log of a step's factor.
RATES, FASTEST = 8, -30.0


class SteadyBounds(ErrorBounds):
    """The bounds of `ErrorBounds` for a steady system, at a cost linear in the steps."""

    def prepared(self) -> Magnitudes:
        """Write out the system and its powers."""
        return SteadyMagnitudes(**vars(magnitudes(self.recurrence, self.steps)))


@dataclass(frozen=True, eq=False)
class SteadyMagnitudes(Magnitudes):
    """Magnitudes whose sums run over powers alone, not over all pairs of steps.

    With the largest term so far, W_t ≥ w_s for s ≤ t, a sum of products is bounded by the product
    of a sum,

        Σ_s |A^{t-s}| w_s  ≤  (Σ_{k ≤ t} |A^k|) W_t

    And of four parts that cover k steps together, |A^a||A^b||A^c| v_d, one covers k/4 or more. Let
    M be the largest |A^i| up to k, entry by entry, V the largest v_i, and let a prime mean i from
    k/4 on. Then the product is at most the largest of M'MMV, MM'MV, MMM'V and MMMV'. Norms bound
    it too.
    """

    @cached_property
    def powers(self) -> Tensor:
        """|A^k| for k = 0 … T, `(*batch, time + 1, n, n)`."""
        return self.products(self.steps).flip(-3)

    @cached_property
    def sums(self) -> Tensor:
        """Σ_{k ≤ t} |A^k| for t = 0 … T."""
        return self.powers.cumsum(-3)

    def arrived(self, sources: Tensor, t: int) -> Tensor:
        """Bound the sum; the first source is propagated by itself: it may be the largest by far."""
        free = self.powers[..., t, :, :] @ sources[..., 0, :, :]
        if not t:
            return free
        return free + self.sums[..., t - 1, :, :] @ sources[..., 1 : t + 1, :, :].amax(-3)

    def reached(self, sources: Tensor) -> Tensor:
        """See `Magnitudes`."""
        count = sources.shape[-3]
        free = self.powers[..., :count, :, :] @ sources[..., :1, :, :]
        if count == 1:
            return free
        forced = self.sums[..., : count - 1, :, :] @ sources[..., 1:, :, :].cummax(-3).values
        return free + torch.cat([torch.zeros_like(forced[..., :1, :, :]), forced], -3)

    def convolved(self, kernel: Tensor, vectors: Tensor) -> Tensor:
        """See `Magnitudes`."""
        sums = kernel[..., : vectors.shape[-3], :, :].cumsum(-3)
        return sums @ vectors.cummax(-3).values

    @cached_property
    def norms(self) -> Tensor:
        """Bound ‖|A^k|‖₂ for k = 0 … T, `(*batch, time + 1)`."""
        rows, columns = (self.powers.sum(axis).amax(-1) for axis in (-1, -2))
        return (rows * columns).sqrt()

    def split(self, vectors: Tensor, span: int | None = None, read: Tensor | None = None) -> Tensor:
        """See `Magnitudes`."""
        last = self.powers if read is None else read.flip(-3)
        return torch.minimum(
            self.split_in_ranges(vectors, span, last), self.split_by_norm(vectors, span, last)
        )

    def split_by_norm(self, vectors: Tensor, span: int | None, last: Tensor) -> Tensor:
        """Bound the parts by ‖|A^k|‖ ≤ c r^k, and so the rows of the last one.

        Then |A^a||A^b||A^c| v_d is at most c_row c² r^(k-d) ‖v_d‖. The best of several r is taken,
        each the smallest from some k on.
        """
        count = vectors.shape[-3]
        reach = count if span is None else min(count, span + 1)
        size = vectors.norm(dim=-2).log().unsqueeze(-2)  # (*batch, time, 1, columns)
        rows, norms = last[..., :count, :, :].norm(dim=-1).log(), self.norms[..., :count].log()
        steps = torch.arange(count, dtype=norms.dtype)
        best = None
        for first in {max(count >> shift, 1) for shift in range(1, RATES)}:
            rate = (norms[..., first:] / steps[first:]).amax(-1, keepdim=True).clamp(min=FASTEST)
            slope = rate * steps
            within = (norms - slope)[..., :reach].amax(-1)[..., None, None, None]
            end = (rows - slope.unsqueeze(-1)).amax(-2)[..., None, :, None]
            slope = slope[..., None, None]
            started = (size - slope).cummax(-3).values + slope
            found = end + 2 * within + started
            best = found if best is None else torch.minimum(best, found)
        return last.new_full((), torch.inf) if best is None else best.exp()

    def split_in_ranges(self, vectors: Tensor, span: int | None, last: Tensor) -> Tensor:
        """Bound the parts entry by entry, for ranges of k at once."""
        rows = []
        for start, end in ranges(vectors.shape[-3]):
            reach = end if span is None else min(end, span + 1)
            part = -(-start // 4)

            def most(each: Tensor, first: int, end: int) -> Tensor:
                within = each[..., first:end, :, :]
                if not within.shape[-3]:
                    return torch.zeros_like(each[..., 0, :, :])
                return within.amax(-3)

            R, M, V = most(last, 0, end), most(self.powers, 0, reach), most(vectors, 0, end)
            long = most(self.powers, part, reach)
            products = (
                most(last, part, end) @ (M @ (M @ V)),
                R @ (long @ (M @ V)),
                R @ (M @ (long @ V)),
                R @ (M @ (M @ most(vectors, part, end))),
            )
            largest = torch.stack(torch.broadcast_tensors(*products)).amax(0)
            rows.append(largest.unsqueeze(-3).expand(*largest.shape[:-2], end - start, -1, -1))
        return torch.cat(rows, -3)


def ranges(count: int) -> Iterator[tuple[int, int]]:
    """Cut 0 … count - 1 into ranges (start, end), each ending a quarter later than it starts."""
    start = 0
    while start < count:
        end = min(max(int(RANGE * start), start + 1), count)
        yield start, end
        start = end
