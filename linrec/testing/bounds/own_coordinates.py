"""Error bounds of executors that run a recurrence in its own coordinates."""

import math
from functools import cached_property

import torch
from torch import Tensor

from linrec.executors import Executor, FFTConvolution, Recurrent, Toeplitz
from linrec.testing.bounds.loop import loop_errors
from linrec.testing.paths import Path
from linrec.testing.run_sizes import RunSizes


class ErrorBounds(RunSizes):
    """The bounds of one call for any kind of executor; arguments as for `error_bound`."""

    @cached_property
    def by_way(self) -> dict[tuple[type[Executor], Path | None], tuple[Tensor, Tensor]]:
        """The bounds computed so far."""
        return {}

    def of_kind(self, kind: type[Executor], path: Path | None = None) -> tuple[Tensor, Tensor]:
        """Bound outputs `(*batch, time, p)` and states `(*batch, time + 1, n)`.

        Args:
            kind: the class of the executor; `Executor` if it may work in any order.
            path: the number of its roundings. None: the bound for any order.
        """
        if (kind, path) not in self.by_way:
            self.by_way[kind, path] = self.computed(kind, path)
        return self.by_way[kind, path]

    def computed(self, kind: type[Executor], path: Path | None) -> tuple[Tensor, Tensor]:
        """Compute the bounds of `of_kind`, which keeps them."""
        if kind is Recurrent:
            states, sizes, carried = loop_errors(self)
            outputs = self.read(states, sizes, carried)
            if self.lengths is not None and not self.system.time_varying:
                states = torch.maximum(states, self.of_own_ends())
            return outputs, states.squeeze(-1)
        if self.system.time_varying:
            states = self.any_order_varying() + self.underflow
            return self.read(states), states.squeeze(-1)
        once = kind in (Toeplitz, FFTConvolution)
        states = self.one_product() if once else self.in_order(path)
        states = states + self.free_motion(path) + self.underflow
        outputs = self.read(states, carried=self.read_in_parts(once, path))
        fourier = kind is FFTConvolution and self.steps > 0
        if fourier:
            outputs = outputs + self.transforms(self.system.C, self.system.D)
        if self.lengths is not None:
            states = torch.maximum(states, self.of_own_ends())
            if fourier:
                states = states + self.transforms(None, None).unsqueeze(-1)
        return outputs, states.squeeze(-1)

    def read_in_parts(self, once: bool, path: Path | None) -> Tensor | None:
        """Bound the outputs' errors from the states' errors, where C cancels growing powers of A.

        An error reaches an output through the exact C A^k, so |C A^k| bounds its effect.
        """
        read = self.output_products
        if read is None or self.system.C is None:
            return None
        errors = self.one_product(read) if once else self.in_order(path, read)
        errors = errors + self.free_motion(path, read)
        return (errors + self.system.C @ self.underflow)[..., 1:, :, :]

    def of_own_ends(self) -> Tensor:
        """Bound a state at a sequence's own end, found by powers of A or taken from all states."""
        return self.in_order(None) + self.free_motion(None) + self.underflow

    def in_order(self, path: Path | None, read: Tensor | None = None) -> Tensor:
        """Bound products of A and sums of up to T (n + m) terms; without a path, in any order."""
        if path is not None:
            return self.convolved(self.weights(path)[:-1], path.span, read)
        each = self.convolved(2 * self.counts()[1:] * self.roundings * self.unit, None, read)
        terms = (self.counts() * (self.n + self.m) + 3) * self.unit
        sums = self.convolved(torch.ones(self.steps).double(), None, read)
        return each + terms[:, None, None] * sums

    def weights(self, path: Path | None) -> Tensor:
        """Bound the relative errors of products over 0 … T steps."""
        products = 2 * self.roundings * (self.counts() + 1)
        if path is None:
            return self.unit * products
        rounded = path.fixed + path.each * self.counts()
        return self.unit * rounded + self.double_unit * products

    def one_product(self, read: Tensor | None = None) -> Tensor:
        """Bound a kernel from double precision, and one sum of up to T m products."""
        weights = 2 * self.counts()[1:] * self.roundings * self.double_unit
        terms = (self.counts() * self.m + 3) * self.unit
        sums = self.convolved(None, read=read)
        return self.convolved(weights, read=read) + terms[:, None, None] * sums

    def free_motion(self, path: Path | None, read: Tensor | None = None) -> Tensor:
        """Bound the errors of the initial state's contribution, through powers of A."""
        if not self.start.any():
            return self.start.new_zeros(1) if read is not None else self.start
        span = None if path is None else path.span
        sources = torch.cat([self.start, torch.zeros_like(self.drive)], -3)
        most = self.system.split(self.system.reached(sources), span, read)
        return self.weights(path)[:, None, None] * most

    def any_order_varying(self) -> Tensor:
        """Bound as `in_order`, without kernels: all sources share their products."""
        return self.weights(None)[:, None, None] * self.most

    def convolved(
        self, weights: Tensor | None, span: int | None = None, read: Tensor | None = None
    ) -> Tensor:
        """Sum w_{t-s} G_{t-s} |u_s| over s; without weights, |A^{t-s}| |B| |u_s|.

        `read`, if given, is |C A^k| in place of the last |A^k|.
        """
        kernel = self.kernel
        if weights is not None and self.steps:
            kernel = self.system.split(kernel, span, read) * weights[:, None, None]
        elif read is not None:
            B = torch.eye(self.n, dtype=read.dtype) if self.system.B is None else self.system.B
            kernel = read[..., 1:, :, :].flip(-3) @ B
        nothing = self.start.new_zeros(*self.start.shape[:-3], 1, kernel.shape[-2], 1)
        if not self.steps:
            return nothing
        sums = self.system.convolved(kernel, self.inputs)
        return torch.cat([nothing.expand(*sums.shape[:-3], -1, -1, -1), sums], -3)

    def transforms(self, C: Tensor | None, D: Tensor | None) -> Tensor:
        """Bound the errors of transforming kernel and inputs, and their product back.

        Each transform of N < 4T numbers errs by 7 u log2(N) in the 2-norm, the product by 3 u.
        """
        h = self.kernel if C is None else C @ self.kernel
        if D is not None:
            now, later = h[..., :1, :, :] + D, h[..., 1:, :, :]
            h = torch.cat([now, later.expand(*now.shape[:-3], -1, -1, -1)], -3)
        u = self.inputs.mT  # (*batch, time, 1, m)
        h1, h2 = h.sum(-3), h.square().sum(-3).sqrt()
        u1, u2 = u.sum(-3), u.square().sum(-3).sqrt()
        sizes = 2 * h2 * u2 + torch.minimum(h1 * u2, h2 * u1)
        sizes = torch.where(h1 * u1 > torch.finfo(self.dtype).max / 4, torch.inf, sizes)
        return (self.unit * (7 * math.log2(4 * self.steps) + 3) * sizes).sum(-1).unsqueeze(-2)

    def read(
        self, states: Tensor, sizes: Tensor | None = None, carried: Tensor | None = None
    ) -> Tensor:
        """Bound the errors of outputs that are read from states with given errors.

        Args:
            states (*batch, time + 1, n, 1): the errors of the states.
            sizes: the sizes of the states. None: the largest possible.
            carried: the outputs' errors from the errors of the states. None: |C| times these.
        """
        C, D = self.system.C, self.system.D
        errors, own = states[..., 1:, :, :], self.sizes if sizes is None else sizes
        own = own[..., 1:, :, :]
        read = own if C is None else C @ own
        if C is not None:
            errors = C @ errors if carried is None else carried
            errors = errors + self.unit * (self.n + 2) * read
        errors, read = errors.squeeze(-1), read if D is None else read + D @ self.inputs
        read = read.squeeze(-1)
        if D is not None:
            errors = errors + self.unit * (self.m + 3) * read
        if self.rounded_to != self.dtype:  # outputs of half precision are rounded once more
            errors = errors + torch.finfo(self.rounded_to).eps / 2 * read
        return torch.where(read > torch.finfo(self.rounded_to).max / 4, torch.inf, errors)
