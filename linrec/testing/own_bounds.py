"""Error bounds of the ways to run a recurrence in its own coordinates."""

import math
from functools import cached_property

import torch
from torch import Tensor

from linrec._checks import double_dtype
from linrec.executors import Executor, FFTConvolution, Recurrent, Result, Toeplitz
from linrec.structures import BlockDiagonal, Companion, Dense, Diagonal
from linrec.systems import LinearRecurrence
from linrec.testing.paths import Path
from linrec.testing.plain_loops import dtypes_of, goes_astray, run_states
from linrec.testing.products import Magnitudes, magnitudes


class ErrorBounds:
    """The bounds of one call for any kind of executor; arguments as of `error_bound`.

    What they are made of is kept, in double precision: sequences of states are
    `(*batch, time + 1, n, 1)`, columns, the initial state first. Copies are a batch axis.
    """

    def __init__(
        self,
        recurrence: LinearRecurrence,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
        *,
        dtypes: tuple[torch.dtype, torch.dtype] | None = None,
    ) -> None:
        self.dtype, self.rounded_to = dtypes or dtypes_of(recurrence, inputs, initial_state)
        dtype = self.dtype
        self.steps, self.copies, self.lengths = inputs.shape[-2], recurrence.copies, lengths
        self.n, self.m = recurrence.A.state_size, recurrence.input_size // recurrence.copies
        inputs = inputs.detach().to(double_dtype(dtype))
        if lengths is not None:
            own = torch.arange(self.steps) < lengths.unsqueeze(-1)
            inputs = torch.where(own.unsqueeze(-1), inputs, 0)
        start = inputs.new_zeros(recurrence.state_size) if initial_state is None else initial_state
        shapes = [recurrence.batch_shape, inputs.shape[:-2], start.shape[:-1]]
        batch = torch.broadcast_shapes(*shapes, () if lengths is None else lengths.shape)
        inputs = inputs.expand(*batch, -1, -1)
        start = start.detach().to(inputs.dtype).expand(*batch, -1)
        if self.copies > 1:
            inputs = inputs.unflatten(-1, (self.copies, -1)).movedim(-2, -3)
            start = start.unflatten(-1, (self.copies, -1))
        self.signed_inputs, self.signed_start = inputs, start
        self.inputs, self.start = inputs.abs().unsqueeze(-1), start.abs()[..., None, :, None]
        self.recurrence, self.batch = recurrence, batch
        self.by_way: dict[tuple[type[Executor], Path | None], tuple[Tensor, Tensor]] = {}
        self.system = self.prepared()
        self.signed_states = run_states(recurrence, inputs, start, inputs.dtype)
        self.states = self.signed_states.abs().unsqueeze(-1)

    def prepared(self) -> Magnitudes:
        """Write out the system and its products."""
        return magnitudes(self.recurrence, self.steps)

    @property
    def unit(self) -> float:
        """The unit roundoff of the run; a complex product errs by 2√2 u (Higham, lemma 3.5)."""
        return torch.finfo(self.dtype).eps / 2 * (2**1.5 if self.dtype.is_complex else 1)

    @property
    def double_unit(self) -> float:
        """The unit roundoff of double precision."""
        return self.unit * torch.finfo(torch.float64).eps / torch.finfo(self.dtype).eps

    @property
    def roundings(self) -> int:
        """How many roundings one step, or one product of matrices, takes."""
        return self.n + self.m + 3

    def of_kind(self, kind: type[Executor], path: Path | None = None) -> tuple[Tensor, Tensor]:
        """Bound outputs `(*batch, time, p)` and states `(*batch, time + 1, n)`.

        Args:
            kind: the class of the executor; `Executor` of one that works in any order.
            path: how often it rounds. None: as often as in any order.
        """
        if (kind, path) not in self.by_way:
            self.by_way[kind, path] = self.computed(kind, path)
        return self.by_way[kind, path]

    def computed(self, kind: type[Executor], path: Path | None) -> tuple[Tensor, Tensor]:
        """Compute what `of_kind` remembers."""
        if kind is Recurrent:
            return self.in_a_loop()
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
        """Bound the output errors of state errors, where C cancels growing powers of A.

        The way from an error to an output is exact, C A^k, so that |C A^k| carries it.
        """
        read = self.output_products
        if read is None or self.system.C is None:
            return None
        errors = self.one_product(read) if once else self.in_order(path, read)
        errors = errors + self.free_motion(path, read)
        return (errors + self.system.C @ self.underflow)[..., 1:, :, :]

    @cached_property
    def output_products(self) -> Tensor | None:
        """|C A^k| for k = T … 0, where A has no parts that cancel."""
        plain = self.steps > 0 and self.kind in (Dense, Diagonal, BlockDiagonal, Companion)
        return self.system.outputs(self.steps) if plain else None

    @property
    def kind(self) -> type:
        """The class of A."""
        return type(self.recurrence.A)

    def in_a_loop(self) -> tuple[Tensor, Tensor]:
        """One rounding error in each step, carried on by the exact system.

        It is made of the states as they were computed, which differ from the exact ones by the
        errors of the steps before.
        """
        local, states = self.loop_errors(None)
        sizes = self.states.expand_as(states).cummax(-3).values
        if not bool((states <= sizes.amax(-2, keepdim=True)).all()):
            local, states = self.loop_errors(sizes)
            astray = goes_astray(
                self.recurrence,
                self.signed_inputs,
                self.signed_start,
                self.signed_states,
                self.dtype,
            )
            states = torch.where(astray.unsqueeze(-1), torch.inf, states)
        sizes = self.states + states
        carried = None if self.system.C is None else self.read_errors(local, states)
        states = states + self.lost
        if carried is not None and self.system.C is not None:
            lost = torch.where(states.isfinite(), self.lost, torch.inf)
            carried = carried + self.system.C @ lost[..., 1:, :, :]
        outputs = self.read(states, sizes, carried)
        if self.lengths is not None and not self.system.time_varying:
            states = torch.maximum(states, self.of_own_ends())
        return outputs, states.squeeze(-1)

    def loop_errors(self, most: Tensor | None) -> tuple[Tensor, Tensor]:
        """Bound the rounding of each step, and its effect so far; no state is off by `most`."""
        unit = self.unit * self.step_roundings.unsqueeze(-1)  # (*batch, time or 1, n, 1)
        local = torch.zeros_like(self.sources)
        errors = [local[..., 0, :, :]]
        for t in range(self.steps):
            now = min(t, self.system.A.shape[-3] - 1), min(t, unit.shape[-3] - 1)
            off = errors[-1] if most is None else torch.minimum(errors[-1], most[..., t, :, :])
            made = self.system.A[..., now[0], :, :] @ (self.states[..., t, :, :] + off)
            made = made + self.drive[..., t, :, :]
            made = torch.where(made > torch.finfo(self.dtype).max / 4, torch.inf, made)
            local[..., t + 1, :, :] = unit[..., now[1], :, :] * made
            errors.append(self.arrived(local, errors[-1], t + 1))
        return local, torch.stack(torch.broadcast_tensors(*errors), -3)

    def of_own_ends(self) -> Tensor:
        """A sequence's own end is found by powers of A, or is read off all states."""
        return self.in_order(None) + self.free_motion(None) + self.underflow

    def arrived(self, local: Tensor, before: Tensor, t: int) -> Tensor:
        """Propagate the errors of the steps up to t to the state after step t."""
        return self.system.arrived(local, t)

    def read_errors(self, local: Tensor, states: Tensor) -> Tensor:
        """Σ_r |C A^{t-r}| times the errors of step r; where it varies |C| times the states'."""
        assert self.system.C is not None
        read = self.output_products
        if read is None:
            return self.system.C @ states[..., 1:, :, :]
        return self.system.convolved(read.flip(-3), local)[..., 1:, :, :]

    @cached_property
    def step_roundings(self) -> Tensor:
        """How many roundings each state takes in a step, `(*batch, time or 1, n)`.

        As many as its row of [A B] has entries, and one; none where that is a single one whose
        products are exact. Of structures that are not applied row by row, the most.
        """
        A, B = self.system.A, self.system.B
        if self.kind not in (Dense, Diagonal, BlockDiagonal, Companion):
            return A.new_full((1, self.n), self.roundings)
        B = torch.eye(self.n, dtype=A.dtype) if B is None else B
        batch = torch.broadcast_shapes(A.shape[:-2], B.shape[:-2])
        row = torch.cat([A.expand(*batch, -1, -1), B.expand(*batch, -1, -1)], -1)
        entries = (row != 0).sum(-1)
        if self.dtype.is_complex:  # an absolute value of 1 need not be 1 or i
            return entries + 1.0
        powers_of_two = (row == 0) | (torch.frexp(row).mantissa == 0.5)
        exact = (entries <= 1) & powers_of_two.all(-1)
        return torch.where(exact, 0.0, entries + 1.0)

    def in_order(self, path: Path | None, read: Tensor | None = None) -> Tensor:
        """Products of A and sums of up to T m terms; without a path in any order."""
        if path is not None:
            return self.convolved(self.weights(path)[:-1], path.span, read)
        each = self.convolved(2 * self.counts()[1:] * self.roundings * self.unit, None, read)
        terms = (self.counts() * (self.n + self.m) + 3) * self.unit
        sums = self.convolved(torch.ones(self.steps).double(), None, read)
        return each + terms[:, None, None] * sums

    def weights(self, path: Path | None) -> Tensor:
        """How much is lost on a way over 0 … T steps."""
        products = 2 * self.roundings * (self.counts() + 1)
        if path is None:
            return self.unit * products
        rounded = path.fixed + path.each * self.counts()
        return self.unit * rounded + self.double_unit * products

    def one_product(self, read: Tensor | None = None) -> Tensor:
        """A kernel from double precision, and one sum of up to T m products."""
        weights = 2 * self.counts()[1:] * self.roundings * self.double_unit
        terms = (self.counts() * self.m + 3) * self.unit
        sums = self.convolved(None, read=read)
        return self.convolved(weights, read=read) + terms[:, None, None] * sums

    def free_motion(self, path: Path | None, read: Tensor | None = None) -> Tensor:
        """What becomes of the initial state, through powers of A; as it is read."""
        if not self.start.any():
            return self.start.new_zeros(1) if read is not None else self.start
        span = None if path is None else path.span
        sources = torch.cat([self.start, torch.zeros_like(self.drive)], -3)
        most = self.system.split(self.system.reached(sources), span, read)
        return self.weights(path)[:, None, None] * most

    def any_order_varying(self) -> Tensor:
        """As `in_order`; where there are no kernels, all sources share their products."""
        return self.weights(None)[:, None, None] * self.most

    def counts(self) -> Tensor:
        """0 … T."""
        return torch.arange(self.steps + 1, dtype=torch.float64)

    def convolved(
        self, weights: Tensor | None, span: int | None = None, read: Tensor | None = None
    ) -> Tensor:
        """Σ_s w_{t-s} G_{t-s} |u_s|; without weights, Σ_s |A^{t-s} B| |u_s|.

        Where |C A^k| is given to read by, it is in place of the last |A^k|.
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

    @cached_property
    def kernel(self) -> Tensor:
        """|A^k| |B| for k < T, `(*batch, time, n, m)`."""
        powers = self.system.products(self.steps).flip(-3)[..., : self.steps, :, :]
        return powers if self.system.B is None else powers @ self.system.B

    def transforms(self, C: Tensor | None, D: Tensor | None) -> Tensor:
        """The error of transforming kernel and inputs there and their product back.

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

    @cached_property
    def sources(self) -> Tensor:
        """The initial state, and what inputs add in every step."""
        return torch.cat([self.start, self.drive], -3)

    @cached_property
    def sizes(self) -> Tensor:
        """Σ_s |A^{t-s}| |B| |u_s| and the initial state's share: no exact state is larger."""
        return self.system.reached(self.sources)

    @cached_property
    def most(self) -> Tensor:
        """The largest intermediate results where all ways are cut at the same steps."""
        return self.system.split(self.sizes)

    @cached_property
    def lost(self) -> Tensor:
        """Bound the loss in subnormal numbers."""
        limits = torch.finfo(self.dtype)
        return limits.tiny * self.roundings * self.system.reached(torch.ones_like(self.sources))

    @cached_property
    def underflow(self) -> Tensor:
        """Bound the loss in subnormal numbers of a product, infinite where some may overflow."""
        limits = torch.finfo(self.dtype)
        made = [self.system.products(self.steps)]
        if (
            not self.system.time_varying
        ):  # of a kernel, one number that overflows can spoil all steps
            made += [self.kernel]
            made += [] if self.system.C is None else [self.system.C @ each for each in made]
        spoiled = any(bool((each > limits.max / 4).any()) for each in made)
        return torch.where((self.most > limits.max / 4) | spoiled, torch.inf, self.lost)

    def read(
        self, states: Tensor, sizes: Tensor | None = None, carried: Tensor | None = None
    ) -> Tensor:
        """Bound the outputs that are read from states of given bounds.

        Args:
            states (*batch, time + 1, n, 1): how far the states are off.
            sizes: how large they are. None: as large as they could be.
            carried: what their errors do to the outputs. None: |C| times as much.
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

    @cached_property
    def sizes_of_outputs(self) -> Tensor:
        """|C| times the sizes of the states, and |D| |u|: no exact output is larger."""
        sizes, C, D = self.sizes[..., 1:, :, :], self.system.C, self.system.D
        sizes = sizes if C is None else C @ sizes
        return (sizes if D is None else sizes + D @ self.inputs).squeeze(-1)

    @cached_property
    def drive(self) -> Tensor:
        """|B| |u_t|, `(*batch, time, n, 1)`."""
        return self.inputs if self.system.B is None else self.system.B @ self.inputs

    def carried(self, error: Tensor) -> Result:
        """Carry an error of the initial state, `(*batch, n)`, on to outputs and final state."""
        error = error.unflatten(-1, (self.copies, -1)) if self.copies > 1 else error
        start = error[..., None, :, None].expand_as(self.start)
        states = self.carried_states(start)
        outputs = states[..., 1:, :, :]
        outputs = outputs if self.system.C is None else self.system.C @ outputs
        return self.finish(outputs.squeeze(-1), states.squeeze(-1))

    def carried_states(self, start: Tensor) -> Tensor:
        """Carry an error `(*batch, 1, n, 1)` of the initial state on to all states."""
        return self.system.reached(torch.cat([start, torch.zeros_like(self.drive)], -3))

    def largest(self) -> Result:
        """Bound the sizes of outputs and final state themselves."""
        return self.finish(self.sizes_of_outputs, self.sizes.squeeze(-1))

    def finish(self, outputs: Tensor, states: Tensor) -> Result:
        """Put copies side by side, and take each sequence's own last state."""
        # What is not a number is no promise either.
        outputs, states = (each.nan_to_num(torch.inf, torch.inf) for each in (outputs, states))
        if self.copies > 1:
            outputs, states = (each.movedim(-3, -2).flatten(-2) for each in (outputs, states))
        if self.lengths is None:
            return Result(outputs, states[..., -1, :])
        ends = self.lengths.expand(states.shape[:-2])[..., None, None]
        last = states.gather(-2, ends.expand(*ends.shape[:-1], states.shape[-1])).squeeze(-2)
        own = torch.arange(self.steps) < ends.squeeze(-1)
        return Result(torch.where(own.unsqueeze(-1), outputs, 0), last)
