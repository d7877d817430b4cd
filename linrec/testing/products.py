"""Magnitudes of products of a system's matrices, the terms of error bounds."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from linrec._tensors.dtypes import double_dtype
from linrec._tensors.shapes import broadcast_shapes
from linrec.structures import Structure
from linrec.systems import LinearRecurrence

# The number of terms computed at once: they fit in a cache.
AT_HAND = 1 << 17


@dataclass(frozen=True, eq=False)
class Magnitudes:
    """The absolute values of one copy of a system, written out, in double precision.

    Attributes:
        A (*batch, time or 1, n, n): |A| as it is stored: |d| + |U||V*| of a low-rank structure.
        B, C, D (*batch, time or 1, rows, columns): |B|, |C|, |D|; None: the identity; for D, zero.
        products: makes |A_t … A_{s+1}| for 0 ≤ s ≤ t of a given t, `(*batch, t + 1, n, n)` by s.
        outputs: computes |C A^k| for k from T down to 0, `(*batch, T + 1, p, n)`; None if there is
            no C, or if a matrix varies.
        time_varying: whether the matrices change from step to step.
        steps: T.
    """

    A: Tensor
    B: Tensor | None
    C: Tensor | None
    D: Tensor | None
    products: Callable[[int], Tensor]
    outputs: Callable[[int], Tensor | None]
    time_varying: bool
    steps: int

    @cached_property
    def side_by_side(self) -> Tensor:
        """|A^T| … |A⁰| side by side, `(*batch, n, (T + 1) n)`."""
        return self.products(self.steps).movedim(-3, -2).flatten(-2)

    def arrived(self, sources: Tensor, t: int) -> Tensor:
        """Sum |A_t … A_{s+1}| w_s over s for `sources (*batch, T + 1, n, k)`: `(*batch, n, k)`."""
        until = sources[..., : t + 1, :, :]
        if self.time_varying:
            return (self.products(t) @ until).sum(-3)
        stacked = until.flatten(-3, -2)  # so that the sum is one product
        return self.side_by_side[..., -stacked.shape[-2] :] @ stacked

    def reached(self, sources: Tensor) -> Tensor:
        """Compute `arrived` for every t, in the shape of the sources."""
        if self.time_varying:
            rows = [self.arrived(sources, t) for t in range(sources.shape[-3])]
            return torch.stack(torch.broadcast_tensors(*rows), -3)
        return over_lags(self.products(sources.shape[-3] - 1), sources, torch.sum)

    def convolved(self, kernel: Tensor, vectors: Tensor) -> Tensor:
        """Sum K_{t-s} v_s over s ≤ t: `(*batch, time, p, 1)`, for `kernel (*batch, time, p, m)`."""
        return over_lags(kernel.flip(-3), vectors, torch.sum)

    def split(self, vectors: Tensor, span: int | None = None, read: Tensor | None = None) -> Tensor:
        """Maximise products of three factors, over all cuts of the steps between two states.

        max over r ≤ s ≤ q ≤ t of |A_t … A_{q+1}| |A_q … A_{s+1}| |A_s … A_{r+1}| v_r.

        Args:
            vectors (*batch, steps, n, k): v.
            span: the most steps of each of the two factors on the right. None: all.
            read: |C A^k| for k from steps - 1 or more down to 0; the first factor, not |A^k|.
        """
        for longest, last in ((span, None), (span, None), (None, read)):
            steps = vectors.shape[-3]
            if self.time_varying and last is None:
                first = [0 if longest is None else max(t - longest, 0) for t in range(steps)]
                rows = [
                    (self.products(t)[..., s:, :, :] @ vectors[..., s : t + 1, :, :]).amax(-3)
                    for t, s in enumerate(first)
                ]
                vectors = torch.stack(rows, -3)
            else:
                latest_first = self.products(steps - 1) if last is None else last
                vectors = over_lags(latest_first, vectors, torch.amax, longest)
        return vectors


def over_lags(
    latest_first: Tensor,
    vectors: Tensor,
    reduce: Callable[[Tensor, int], Tensor],
    span: int | None = None,
) -> Tensor:
    """Reduce P_{t-s} v_s over s ≤ t to the sum or the largest, for every t.

    One product computes the terms of many lags for all s. Each lag's row is then shifted by its
    lag, so that terms of the same t lie in one column: the rows are padded, and read again with k
    numbers fewer than they were written with, so that each starts k later than the one before.

    Args:
        latest_first (*batch, steps or more, p, n): P, the longest lag first; not negative.
        vectors (*batch, steps, n, k): v, not negative.
        reduce: `torch.sum` or `torch.amax`.
        span: the longest lag. None: no limit.
    """
    steps, k = vectors.shape[-3], vectors.shape[-1]
    lags = steps if span is None else min(span + 1, steps)
    columns = vectors.movedim(-3, -2).flatten(-2)  # (*batch, n, steps k)
    systems = broadcast_shapes(latest_first.shape[:-3], vectors.shape[:-3]).numel()
    terms_of_a_lag = systems * steps * latest_first.shape[-2] * k
    at_once = max(AT_HAND // max(terms_of_a_lag, 1), 1)
    combined: Tensor | None = None
    for first in range(0, lags, at_once):
        count, left = min(at_once, lags - first), steps - first
        last = latest_first.shape[-3] - first
        rows = latest_first[..., last - count : last, :, :].flip(-3).transpose(-3, -2)
        terms = rows.flatten(-3, -2) @ columns[..., : left * k]
        terms = torch.nn.functional.pad(terms.unflatten(-2, rows.shape[-3:-1]), (0, count * k))
        width = (left + count - 1) * k
        moved = terms.flatten(-2)[..., : count * width].unflatten(-1, (count, width))
        found = reduce(moved, -2)[..., : left * k]
        if combined is None:
            combined = found
        else:
            later = combined[..., first * k :]
            COMBINED[reduce](later, found, out=later)
    assert combined is not None
    return combined.unflatten(-1, (steps, k)).movedim(-2, -3)


# For each reduction of many terms, the operation that combines two.
COMBINED = {torch.sum: torch.add, torch.amax: torch.maximum}


def magnitudes(recurrence: LinearRecurrence, steps: int) -> Magnitudes:
    """Write out the absolute values of a system's matrices and of their products."""
    one = recurrence.per_copy()
    structure = one.A.to(double_dtype(one.A.dtype))
    exact, stored = structure.to_dense().detach(), stored_magnitude(structure)
    known = structure.magnitude() is not None
    if exact.ndim == 2 or not recurrence.time_varying:
        exact, stored = exact.unsqueeze(-3), stored.unsqueeze(-3)
    B, C, D = (absolute(matrix, recurrence.time_varying) for matrix in (one.B, one.C, one.D))
    by_step = all_products(exact, stored, steps, recurrence.time_varying)
    by_step = by_step if known else spread(by_step)
    read = partial(output_products, exact, None if recurrence.time_varying else one.C)
    return Magnitudes(stored, B, C, D, by_step, read, recurrence.time_varying, steps)


def output_products(exact: Tensor, C: Tensor | None, steps: int) -> Tensor | None:
    """Compute |C A^k| for k = steps … 0, in which C may cancel parts of A^k."""
    if C is None:
        return None
    dtype = torch.promote_types(C.dtype, exact.dtype)
    row, A = C.detach().to(dtype), exact.squeeze(-3).to(dtype)
    rows = [row]
    for _ in range(steps):
        row = row @ A
        rows.append(row)
    return torch.stack(torch.broadcast_tensors(*rows)[::-1], -3).abs()


def stored_magnitude(A: Structure) -> Tensor:
    """Write out |A|; for a sum, add the absolute values of its parts, which may cancel in A."""
    bound = A.magnitude()
    return everywhere(A.to_dense().detach().abs()) if bound is None else bound.detach()


def everywhere(matrices: Tensor) -> Tensor:
    """Fill each matrix with its largest entry.

    For a structure without `magnitude`: a transform, for example, spreads errors over all entries.
    """
    return matrices.amax((-2, -1), keepdim=True).expand_as(matrices)


def absolute(matrix: Tensor | None, varying: bool) -> Tensor | None:
    """Write out the absolute values of a matrix, with an axis of time."""
    if matrix is None:
        return None
    values = matrix.detach().to(double_dtype(matrix.dtype)).abs()
    return values if varying and values.ndim > 2 else values.unsqueeze(-3)


def all_products(
    exact: Tensor, stored: Tensor, steps: int, varying: bool
) -> Callable[[int], Tensor]:
    """Prepare |A_t … A_{s+1}| for every s ≤ t.

    If A is a sum of parts that cancel, its first few powers still have the parts: products of up
    to n steps are bounded by products of the parts' magnitudes.
    """
    n = exact.shape[-1]
    parted = n if bool((stored > exact.abs() * (1 + 1e-9)).any()) else 0
    identity = torch.eye(n, dtype=exact.dtype).expand(*exact.shape[:-3], 1, n, n)
    if varying:
        return varying_products(exact, stored, identity, parted, steps)
    whole, parts = identity, identity.abs()
    powers = [parts]
    for exponent in range(1, steps + 1):
        whole = exact @ whole
        parts = stored @ parts if exponent <= parted else whole
        powers.append(parts)
    latest_first = torch.cat(powers[::-1], -3).abs()
    return lambda t: latest_first[..., steps - t :, :, :]


def spread(products: Callable[[int], Tensor]) -> Callable[[int], Tensor]:
    """Set every entry of a product to its largest; the product of no steps stays exact."""

    def by_step(t: int) -> Tensor:
        rows = products(t)
        return torch.cat([everywhere(rows[..., :-1, :, :]), rows[..., -1:, :, :]], -3)

    return by_step


def varying_products(
    exact: Tensor, stored: Tensor, identity: Tensor, parted: int, steps: int
) -> Callable[[int], Tensor]:
    """Prepare the products of matrices that change from step to step."""
    whole, parts = identity, identity.abs()
    rows = [parts]
    for step in range(steps):
        now = min(step, exact.shape[-3] - 1)
        whole = torch.cat([exact[..., now, None, :, :] @ whole, identity], -3)
        parts = torch.cat([stored[..., now, None, :, :] @ parts, identity.abs()], -3)
        short = min(parted + 1, step + 2)
        bound = torch.cat([whole.abs()[..., :-short, :, :], parts[..., -short:, :, :]], -3)
        rows.append(bound)
    return rows.__getitem__
