"""How far an executor may be from the truth: a bound from the system and its inputs alone."""

import math
from functools import cached_property

import torch
from torch import Tensor

from linrec._checks import accumulation_dtype, common_dtype, double_dtype
from linrec.executors import Executor, FFTConvolution, Recurrent, Result, Toeplitz
from linrec.planner import Auto
from linrec.systems import LinearRecurrence
from linrec.testing.products import Magnitudes, magnitudes, reached, split, summed


def error_bound(
    recurrence: LinearRecurrence,
    inputs: Tensor,
    executor: Executor,
    initial_state: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Result:
    """Bound the error of every output and of the final state.

    With |·| taken entry by entry, u the unit roundoff and x_s the exact states:

        step by step          u (n + m + 3) Σ_s |A^{t-s}| (|A||x_{s-1}| + |B||u_s|)
        in any other order    u Σ_s c_{t-s} G_{t-s} |u_s|
        with transforms       u log2(N) ‖h‖ ‖u‖, for every step, and the error of the kernel

    where G_k is the largest product of four parts |A^a||A^b||A^c||A^d||B| with a + b + c + d = k,
    and c_k counts roundings. Kernels that are computed in double precision and then cast count
    with its unit roundoff. docs/numerics.md derives all of it. Valid to first order in u.

    Args:
        recurrence: the system.
        inputs (*batch, time, m): u.
        executor: the executor whose error is bounded. One that is not linrec's is taken to
            multiply and add in some order, without transforms.
        initial_state (*batch, n): the state before the first step. None: zeros.
        lengths (*batch): the steps of each sequence; None: all.

    Returns:
        Bounds for outputs `(*batch, time, p)` and final state `(*batch, n)`, in float64; infinite
        where intermediate products overflow. It takes T² n² multiplications.

    Raises:
        TypeError: no executor.

    Example:
        >>> import torch, linrec, linrec.testing
        >>> average = linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]])
        >>> bound = linrec.testing.error_bound(average, torch.ones(3, 1), linrec.Recurrent())
        >>> bool((bound.outputs < 1e-6).all())
        True

    References:
        Higham 2002, Accuracy and Stability of Numerical Algorithms, sections 3.1, 3.6, 3.7 and
        theorem 24.2.
    """
    return ErrorBounds(recurrence, inputs, initial_state, lengths).of(an_executor(executor))


class ErrorBounds:
    """The bounds of one call for any executor; arguments as of `error_bound`.

    What they are made of is kept, in double precision: sequences of states are
    `(*batch, time + 1, n, 1)`, columns, the initial state first. Copies are a batch axis.
    """

    def __init__(
        self,
        recurrence: LinearRecurrence,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> None:
        narrow = common_dtype(*recurrence.leaves().values(), inputs)
        dtype = common_dtype(inputs.new_empty(0, dtype=accumulation_dtype(narrow)), initial_state)
        self.dtype, self.rounded_to = (
            dtype,
            narrow if accumulation_dtype(narrow) == dtype else dtype,
        )
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
        self.inputs, self.start = inputs.abs().unsqueeze(-1), start.abs()[..., None, :, None]
        self.recurrence, self.batch = recurrence, batch
        self.known: dict[Executor, Result] = {}
        self.by_kind: dict[type[Executor], tuple[Tensor, Tensor]] = {}
        self.system = self.prepared()
        self.states = exact_states(recurrence, inputs, start).abs().unsqueeze(-1)

    def prepared(self) -> Magnitudes:
        """Write out the system and its products."""
        return magnitudes(self.recurrence, self.steps)

    @property
    def unit(self) -> float:
        """The unit roundoff of the run; a complex product errs by 2√2 u (Higham, lemma 3.5)."""
        return torch.finfo(self.dtype).eps / 2 * (2**1.5 if self.dtype.is_complex else 1)

    @property
    def double_unit(self) -> float:
        """The unit roundoff of what is computed in double precision."""
        return self.unit * torch.finfo(torch.float64).eps / torch.finfo(self.dtype).eps

    @property
    def roundings(self) -> int:
        """How many roundings one step, or one product of matrices, takes."""
        return self.n + self.m + 3

    def of(self, executor: Executor) -> Result:
        """Bound outputs and final state; of `Auto`, of whatever it may choose."""
        if executor not in self.known:
            self.known[executor] = self.bounded(executor)
        return self.known[executor]

    def bounded(self, executor: Executor) -> Result:
        """Compute what `of` remembers."""
        choices = [executor]
        if isinstance(executor, Auto):
            choices = executor.choices(self.recurrence, self.steps, self.batch)
        bounds = [self.of_kind(kind) for kind in dict.fromkeys(map(kind_of, choices))]
        outputs, states = (torch.stack(each).amax(0) for each in zip(*bounds, strict=True))
        return self.finish(outputs, states)

    def of_kind(self, kind: type[Executor]) -> tuple[Tensor, Tensor]:
        """Bound outputs `(*batch, time, p)` and states `(*batch, time + 1, n)`."""
        if kind not in self.by_kind:
            self.by_kind[kind] = self.computed(kind)
        return self.by_kind[kind]

    def computed(self, kind: type[Executor]) -> tuple[Tensor, Tensor]:
        """Compute what `of_kind` remembers."""
        if kind is Recurrent:
            states = self.step_by_step()
        elif self.system.time_varying:
            states = self.any_order_varying()
        elif kind in (Toeplitz, FFTConvolution):
            states = self.one_product() + self.free_motion
        else:
            states = self.any_order() + self.free_motion
        states = states + self.underflow
        outputs = self.read(states)
        fourier = kind is FFTConvolution and self.steps > 0
        if fourier:
            outputs = outputs + self.transforms(self.system.C, self.system.D)
        if self.lengths is not None and not self.system.time_varying:
            # A sequence's own end is found by powers of A, or is read off all states.
            states = torch.maximum(states, self.any_order() + self.free_motion + self.underflow)
            if fourier:
                states = states + self.transforms(None, None).unsqueeze(-1)
        return outputs, states.squeeze(-1)

    def step_by_step(self) -> Tensor:
        """One rounding error in each step, carried on by the exact system."""
        local = self.system.A @ self.states[..., :-1, :, :] + self.drive
        local = torch.cat([torch.zeros_like(self.start), local], -3)
        return self.unit * self.roundings * reached(self.system, local)

    def any_order(self) -> Tensor:
        """Products of A, and sums of up to T m terms, in any order."""
        each = self.convolved(2 * self.counts()[1:] * self.roundings * self.unit)
        terms = (self.counts() * (self.n + self.m) + 3) * self.unit
        return each + terms[:, None, None] * self.convolved(torch.ones(self.steps).double())

    def one_product(self) -> Tensor:
        """A kernel from double precision, and one sum of up to T m products."""
        kernel = self.convolved(2 * self.counts()[1:] * self.roundings * self.double_unit)
        terms = (self.counts() * self.m + 3) * self.unit
        return kernel + terms[:, None, None] * self.convolved(None)

    @cached_property
    def free_motion(self) -> Tensor:
        """What becomes of the initial state, through powers of A."""
        if not self.start.any():
            return self.start
        sources = torch.cat([self.start, torch.zeros_like(self.drive)], -3)
        most = split(self.system, reached(self.system, sources))
        return self.unit * 2 * self.roundings * (self.counts() + 1)[:, None, None] * most

    def any_order_varying(self) -> Tensor:
        """As `any_order`; where there are no kernels, all sources share their products."""
        return self.unit * 2 * self.roundings * (self.counts() + 1)[:, None, None] * self.most

    def counts(self) -> Tensor:
        """0 … T."""
        return torch.arange(self.steps + 1, dtype=torch.float64)

    def convolved(self, weights: Tensor | None) -> Tensor:
        """Σ_s w_{t-s} G_{t-s} |u_s|; without weights, Σ_s |A^{t-s} B| |u_s|."""
        kernel = self.kernel
        if weights is not None and self.steps:
            kernel = split(self.system, kernel) * weights[:, None, None]
        rows = [torch.zeros_like(self.start.squeeze(-3))]
        for t in range(self.steps):
            latest_first = kernel[..., : t + 1, :, :].flip(-3)
            rows.append(summed(latest_first, self.inputs[..., : t + 1, :, :]))
        return torch.stack(rows, -3)

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
        return reached(self.system, self.sources)

    @cached_property
    def most(self) -> Tensor:
        """The largest intermediate results where all ways are cut at the same steps."""
        return split(self.system, self.sizes)

    @cached_property
    def underflow(self) -> Tensor:
        """What is lost in numbers too small to be normal, and infinity where some overflow."""
        limits = torch.finfo(self.dtype)
        lost = limits.tiny * self.roundings * reached(self.system, torch.ones_like(self.sources))
        made = [self.system.products(self.steps)]
        if not self.system.time_varying:  # one number of a kernel that overflows spoils all steps
            made += [self.kernel]
            made += [] if self.system.C is None else [self.system.C @ each for each in made]
        spoiled = any(bool((each > limits.max / 4).any()) for each in made)
        return torch.where((self.most > limits.max / 4) | spoiled, torch.inf, lost)

    def read(self, states: Tensor) -> Tensor:
        """Bound the outputs that are read from states of given bounds."""
        C, D = self.system.C, self.system.D
        errors, sizes = states[..., 1:, :, :], self.sizes[..., 1:, :, :]
        if C is not None:
            errors = C @ errors + self.unit * (self.n + 2) * (C @ sizes)
        errors, sizes = errors.squeeze(-1), self.sizes_of_outputs
        if D is not None:
            errors = errors + self.unit * (self.m + 3) * sizes
        if self.rounded_to != self.dtype:  # outputs of half precision are rounded once more
            errors = errors + torch.finfo(self.rounded_to).eps / 2 * sizes
        return torch.where(sizes > torch.finfo(self.rounded_to).max / 4, torch.inf, errors)

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
        return reached(self.system, torch.cat([start, torch.zeros_like(self.drive)], -3))

    def largest(self) -> Result:
        """Bound the sizes of outputs and final state themselves."""
        return self.finish(self.sizes_of_outputs, self.sizes.squeeze(-1))

    def finish(self, outputs: Tensor, states: Tensor) -> Result:
        """Put copies side by side, and take each sequence's own last state."""
        if self.copies > 1:
            outputs, states = (each.movedim(-3, -2).flatten(-2) for each in (outputs, states))
        if self.lengths is None:
            return Result(outputs, states[..., -1, :])
        ends = self.lengths.expand(states.shape[:-2])[..., None, None]
        last = states.gather(-2, ends.expand(*ends.shape[:-1], states.shape[-1])).squeeze(-2)
        own = torch.arange(self.steps) < ends.squeeze(-1)
        return Result(torch.where(own.unsqueeze(-1), outputs, 0), last)


def an_executor(given: object) -> Executor:
    """See that something is an executor, and not its class or its name."""
    if isinstance(given, Executor):
        return given
    raise TypeError(
        f"`executor` is {given!r}: expected one that is made, such as `linrec.Recurrent()`."
    )


def kind_of(executor: Executor) -> type[Executor]:
    """The class whose bound an executor keeps; `Executor`: that of any order of operations."""
    known = (Recurrent, Toeplitz, FFTConvolution)
    return next((kind for kind in known if isinstance(executor, kind)), Executor)


def exact_states(recurrence: LinearRecurrence, inputs: Tensor, state: Tensor) -> Tensor:
    """Run the states in double precision, the initial one first, `(*batch, time + 1, n)`."""
    one = recurrence.per_copy().to(inputs.dtype).over_time()
    A, B = one.A.to_dense().detach(), None if one.B is None else one.B.detach()
    A = A if A.ndim > 2 else A.unsqueeze(-3)
    drive = inputs if B is None else (B @ inputs.unsqueeze(-1)).squeeze(-1)
    states = [state]
    for t in range(inputs.shape[-2]):
        now = A[..., min(t, A.shape[-3] - 1), :, :]
        states.append((now @ states[-1].unsqueeze(-1)).squeeze(-1) + drive[..., t, :])
    return torch.stack(states, -2)
