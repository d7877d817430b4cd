"""The magnitudes of a run's numbers, the terms of its error bounds."""

from functools import cached_property

import torch
from torch import Tensor

from linrec._tensors.dtypes import double_dtype
from linrec._tensors.shapes import broadcast_shapes
from linrec.executors import Result
from linrec.structures import BlockDiagonal, Companion, Dense, Diagonal
from linrec.systems import LinearRecurrence
from linrec.testing.plain_loops import dtypes_of, run_states
from linrec.testing.products import Magnitudes, magnitudes


class RunSizes:
    """The magnitudes of one call: its matrices and their products, its inputs and its states.

    All are in double precision. Sequences of states are columns, `(*batch, time + 1, n, 1)`, the
    initial state first. Copies are a batch axis. Arguments are as for `error_bound`.
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
        batch = broadcast_shapes(*shapes, () if lengths is None else lengths.shape)
        inputs = inputs.expand(*batch, -1, -1)
        start = start.detach().to(inputs.dtype).expand(*batch, -1)
        if self.copies > 1:
            inputs = inputs.unflatten(-1, (self.copies, -1)).movedim(-2, -3)
            start = start.unflatten(-1, (self.copies, -1))
        self.signed_inputs, self.signed_start = inputs, start
        self.inputs, self.start = inputs.abs().unsqueeze(-1), start.abs()[..., None, :, None]
        self.recurrence, self.batch = recurrence, batch
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
        """The number of roundings of one step, or of one product of matrices."""
        return self.n + self.m + 3

    @property
    def kind(self) -> type:
        """The class of A."""
        return type(self.recurrence.A)

    def counts(self) -> Tensor:
        """0 … T."""
        return torch.arange(self.steps + 1, dtype=torch.float64)

    @cached_property
    def output_products(self) -> Tensor | None:
        """|C A^k| for k = T … 0, where A has no parts that cancel."""
        plain = self.steps > 0 and self.kind in (Dense, Diagonal, BlockDiagonal, Companion)
        return self.system.outputs(self.steps) if plain else None

    @cached_property
    def kernel(self) -> Tensor:
        """|A^k| |B| for k < T, `(*batch, time, n, m)`."""
        powers = self.system.products(self.steps).flip(-3)[..., : self.steps, :, :]
        return powers if self.system.B is None else powers @ self.system.B

    @cached_property
    def sources(self) -> Tensor:
        """The initial state, and the inputs' contribution to every step."""
        return torch.cat([self.start, self.drive], -3)

    @cached_property
    def sizes(self) -> Tensor:
        """Σ_s |A^{t-s}| |B| |u_s| and the initial state's share: no exact state is larger."""
        return self.system.reached(self.sources)

    @cached_property
    def most(self) -> Tensor:
        """The largest intermediate results, of products over all cuts of the steps."""
        return self.system.split(self.sizes)

    @cached_property
    def lost(self) -> Tensor:
        """Bound the loss in subnormal numbers."""
        limits = torch.finfo(self.dtype)
        return limits.tiny * self.roundings * self.system.reached(torch.ones_like(self.sources))

    @cached_property
    def underflow(self) -> Tensor:
        """Bound the loss of a product in subnormal numbers; infinite where some may overflow."""
        limits = torch.finfo(self.dtype)
        made = [self.system.products(self.steps)]
        if (
            not self.system.time_varying
        ):  # an overflow in one number of a kernel can spoil all steps
            made += [self.kernel]
            made += [] if self.system.C is None else [self.system.C @ each for each in made]
        spoiled = any(bool((each > limits.max / 4).any()) for each in made)
        return torch.where((self.most > limits.max / 4) | spoiled, torch.inf, self.lost)

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

    def arrived(self, local: Tensor, before: Tensor, t: int) -> Tensor:
        """Propagate the errors of the steps up to t to the state after step t."""
        return self.system.arrived(local, t)

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
        """Join the copies, and take each sequence's own last state."""
        # A bound of NaN promises nothing, like an infinite one.
        outputs, states = (each.nan_to_num(torch.inf, torch.inf) for each in (outputs, states))
        if self.copies > 1:
            outputs, states = (each.movedim(-3, -2).flatten(-2) for each in (outputs, states))
        if self.lengths is None:
            return Result(outputs, states[..., -1, :])
        ends = self.lengths.expand(states.shape[:-2])[..., None, None]
        last = states.gather(-2, ends.expand(*ends.shape[:-1], states.shape[-1])).squeeze(-2)
        own = torch.arange(self.steps) < ends.squeeze(-1)
        return Result(torch.where(own.unsqueeze(-1), outputs, 0), last)
