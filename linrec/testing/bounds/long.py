"""Error bounds of long and wide runs: looser, at a cost that grows with the steps alone."""

from functools import cached_property

import torch
from torch import Tensor

from linrec.testing.bounds.own_coordinates import ErrorBounds
from linrec.testing.paths import Path
from linrec.testing.products import Magnitudes, magnitudes


class LongBounds(ErrorBounds):
    """The bounds of `ErrorBounds` with |A_t| … |A_{s+1}| in place of |A_t … A_{s+1}|.

    A product of absolute values is at least the absolute value of the product, however it is cut.
    So one recurrence of absolute values,

        X_t = |A_t| X_{t-1} + |B_t| |u_t|,

    bounds all states and all intermediate results, G included: X_t ≥ |A|^{t-r} X_r. It takes T n²
    multiplications. It says little where powers of |A| grow and powers of A do not; large cases
    are drawn with row sums of |A| of at most one.
    """

    def prepared(self) -> Magnitudes:
        """Write out the system; products are not needed."""
        return magnitudes(self.recurrence, 0)

    def travelled(self, sources: Tensor) -> Tensor:
        """Run the recurrence of absolute values on `sources (*batch, time + 1, n, k)`."""
        A, rows = self.system.A, [sources[..., 0, :, :]]
        for t in range(1, sources.shape[-3]):
            now = A[..., min(t, A.shape[-3]) - 1, :, :]
            rows.append(now @ rows[-1] + sources[..., t, :, :])
        return torch.stack(torch.broadcast_tensors(*rows), -3)

    def arrived(self, local: Tensor, before: Tensor, t: int) -> Tensor:
        """Propagate the errors as `ErrorBounds` does, from step to step."""
        now = self.system.A[..., min(t, self.system.A.shape[-3]) - 1, :, :]
        return now @ before + local[..., t, :, :]

    @cached_property
    def sizes(self) -> Tensor:
        """See `ErrorBounds`."""
        return self.travelled(self.sources)

    @cached_property
    def most(self) -> Tensor:
        """The largest intermediate results: X_t itself."""
        return self.sizes

    @cached_property
    def forced(self) -> Tensor:
        """Bound the states from the inputs alone."""
        return self.travelled(torch.cat([torch.zeros_like(self.start), self.drive], -3))

    @cached_property
    def output_products(self) -> None:
        """None: products are not written out."""

    def free_motion(self, path: Path | None, read: Tensor | None = None) -> Tensor:
        """See `ErrorBounds`."""
        free = self.travelled(torch.cat([self.start, torch.zeros_like(self.drive)], -3))
        return self.weights(path)[:, None, None] * free

    def convolved(
        self, weights: Tensor | None, span: int | None = None, read: Tensor | None = None
    ) -> Tensor:
        """Convolve as `ErrorBounds` does; weights grow, so the last one is used for all."""
        if weights is None:
            return self.forced
        return torch.cat([weights.new_zeros(1), weights])[:, None, None] * self.forced

    @cached_property
    def kernel(self) -> Tensor:
        """|A|^k |B| for k < T."""
        B, n = self.system.B, self.n
        now = torch.eye(n, dtype=torch.float64).expand(*self.start.shape[:-3], n, n)
        now = now if B is None else now @ B[..., 0, :, :]
        rows = []
        for _ in range(self.steps):
            rows.append(now)
            now = self.system.A[..., 0, :, :] @ now
        return torch.stack(rows, -3)

    @cached_property
    def lost(self) -> Tensor:
        """See `ErrorBounds`."""
        return torch.finfo(self.dtype).tiny * self.roundings * self.ones

    @cached_property
    def ones(self) -> Tensor:
        """The states reached from ones in every state and step."""
        return self.travelled(torch.ones_like(self.sources))

    @cached_property
    def underflow(self) -> Tensor:
        """See `ErrorBounds`."""
        limit = torch.finfo(self.dtype).max / 4
        spoiled = bool((torch.maximum(self.ones, self.sizes) > limit).any())
        return torch.full_like(self.lost, torch.inf) if spoiled else self.lost

    def carried_states(self, start: Tensor) -> Tensor:
        """Carry an error of the initial state on."""
        return self.travelled(torch.cat([start, torch.zeros_like(self.drive)], -3))
