"""Layers that consist of one linear recurrence, made from their inputs."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from linrec._tensors.dtypes import accumulation_dtype
from linrec._tensors.shapes import broadcast
from linrec.executors import Executor, Result
from linrec.lengths import expand_lengths, last_step, zero_padding
from linrec.nn.checks import check_size, check_step, check_steps
from linrec.nn.layer import Layer
from linrec.nn.plans import PlanCache
from linrec.planner import Auto
from linrec.resets import check_resets, with_resets
from linrec.run import final, run, step
from linrec.systems import LinearRecurrence

LARGEST_KERNEL = 1 << 21  # numbers that the plan of a layer may keep, a few times as many in all

# The recurrence, its inputs, its initial state, and lengths.
Arguments = tuple[LinearRecurrence, Tensor, Tensor | None, Tensor | None]


class RecurrentLayer(Layer):
    """A layer that makes a linear recurrence from its inputs, runs it, and reads its outputs.

        s_t = A_t s_{t-1} + B_t u_t        y_t = read_out(Re(C_t s_t + D_t u_t), x_t)

    A subclass defines A, B, C, D and u in `recurrence`; it may override `read_out` to process the
    recurrence's outputs. Both see one step at a time.

    The recurrence may have batch axes of its own after those of the inputs, such as the heads of
    attention: u is then `(*batch, heads, time, m)`. The layer's state and `read` hold the heads
    side by side. A complex state is kept as real and imaginary parts.

    Args:
        input_size: input features of a step.
        output_size: output features of a step.
        state_size: real numbers kept from step to step.
        executor: how the recurrence is run.

    Example:
        >>> import torch, linrec
        >>> class Gated(linrec.nn.RecurrentLayer):
        ...     def __init__(self, size):
        ...         super().__init__(size, size, size)
        ...         self.gate = torch.nn.Linear(size, size)
        ...
        ...     def recurrence(self, inputs):
        ...         gates = linrec.Diagonal(torch.sigmoid(self.gate(inputs)))
        ...         return linrec.LinearRecurrence(gates, time_varying=True), inputs
        >>> layer = Gated(4)
        >>> layer(torch.randn(2, 7, 4)).outputs.shape, layer.step(torch.randn(4)).outputs.shape
        (torch.Size([2, 7, 4]), torch.Size([4]))
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        state_size: int,
        executor: Executor = Auto(),
    ) -> None:
        super().__init__()
        sizes = {"input_size": input_size, "output_size": output_size, "state_size": state_size}
        for name, size in sizes.items():
            setattr(self, name, whole(name, size))
        self.plans = PlanCache(executor)

    @property
    def executor(self) -> Executor:
        """How the recurrence is run."""
        return self.plans.executor

    @executor.setter
    def executor(self, executor: Executor) -> None:
        self.plans = PlanCache(executor)

    @abstractmethod
    def recurrence(self, inputs: Tensor) -> tuple[LinearRecurrence, Tensor]:
        """Make the layer's recurrence for some inputs, and the recurrence's own inputs u.

        Args:
            inputs (*batch, time, input_size): x.

        Returns:
            The recurrence and u, `(*batch, *heads, time, m)`.
        """

    def read_out(self, read: Tensor, inputs: Tensor) -> Tensor:
        """Compute the layer's outputs from the recurrence's; by default they are the same.

        Args:
            read (..., heads · p): the outputs of the recurrence, of any number of steps.
            inputs (..., input_size): x of the same steps.

        Returns:
            `(..., output_size)`.
        """
        return read

    def forward(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> Result:
        """Run all steps; arguments and result as in `Layer.forward`.

        Args:
            inputs (*batch, time, input_size): x.
            initial_state (*batch, state_size): the state before the first step. None: zeros.
            lengths (*batch): the steps of each right-padded sequence.
            resets (*batch, time): True where the state before a step is forgotten, as between
                documents that are packed into one sequence (`linrec.with_resets`). None: nowhere.
        """
        inputs, lengths, heads, given = self.prepare(inputs, initial_state, lengths, resets)
        recurrence, drive, start, ends = given
        if keeps_plan(recurrence, drive):
            read, end = self.plans.run(recurrence, drive, start, ends)
        else:
            read, end = run(recurrence, drive, start, lengths=ends, executor=self.executor)
        read = read.movedim(-2, inputs.ndim - 2).flatten(inputs.ndim - 1)
        outputs = self.read_out(real(read).to(inputs.dtype), inputs)
        return Result(zero_padding(outputs, lengths), pack(end, heads))

    def final(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> Result:
        """Compute the last step only; arguments as in `forward`, result as in `Layer.final`."""
        if 0 in inputs.shape[-2:-1]:
            return super().final(inputs, initial_state, lengths)
        inputs, lengths, heads, given = self.prepare(inputs, initial_state, lengths, resets)
        recurrence, drive, start, ends = given
        if keeps_plan(recurrence, drive):
            read, end = self.plans.final(recurrence, drive, start, ends)
        else:
            read, end = final(recurrence, drive, start, lengths=ends, executor=self.executor)
        read = real(read.flatten(read.ndim - 1 - heads)).to(inputs.dtype)
        outputs = self.read_out(read, last_step(inputs, lengths))
        if lengths is not None:
            outputs = torch.where(lengths.unsqueeze(-1) > 0, outputs, 0)
        return Result(outputs, pack(end, heads))

    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Run one step; arguments and result as in `Layer.step`."""
        check_step(self, input)
        recurrence, drive = self.recurrence(input.unsqueeze(-2))
        heads = drive.ndim - input.ndim - 1
        start = self.unpacked("state", state, input.shape[:-1], recurrence, drive)
        read, end = step(recurrence, drive.squeeze(-2), start)
        read = real(read.flatten(read.ndim - 1 - heads)).to(input.dtype)
        return Result(self.read_out(read, input), pack(end, heads))

    def prepare(
        self,
        inputs: Tensor,
        state: Tensor | None,
        lengths: Tensor | None,
        resets: Tensor | None,
    ) -> tuple[Tensor, Tensor | None, int, Arguments]:
        """Check a call, put zeros into the padding, and make the arguments of `run`.

        Returns:
            The inputs, their lengths, the number of axes of heads; and the recurrence, its inputs,
            its initial state and its lengths.
        """
        check_steps(self, inputs)
        lengths = expand_lengths(lengths, inputs)
        inputs = zero_padding(inputs, lengths)
        recurrence, drive = self.recurrence(inputs)
        heads = drive.ndim - inputs.ndim
        if resets is not None:
            resets = check_resets(resets, inputs)[(..., *[None] * heads, slice(None))]
            recurrence = with_resets(recurrence, resets)
        start = self.unpacked("initial_state", state, inputs.shape[:-2], recurrence, drive)
        ends = None if lengths is None else lengths[(..., *[None] * heads)]
        return inputs, lengths, heads, (recurrence, drive, start, ends)

    def unpacked(
        self,
        name: str,
        state: Tensor | None,
        batch: torch.Size,
        recurrence: LinearRecurrence,
        drive: Tensor,
    ) -> Tensor | None:
        """Convert the layer's state to the state of its recurrence, or batch of recurrences.

        A state with fewer batch axes than the inputs is the state of all their sequences.
        """
        if state is None:
            return None
        check_size(name, state, self.state_size)
        if state.ndim <= len(batch):
            shape = (*broadcast(inputs=batch, **{name: state.shape[:-1]}), self.state_size)
            state = state.expand(shape)
        if recurrence.dtype.is_complex:
            state = complex_of(state.unflatten(-1, (-1, 2)))
        heads = drive.shape[state.ndim - 1 : -2]
        return state.unflatten(-1, (*heads, recurrence.state_size)) if heads else state

    def _apply(self, fn: Any, recurse: bool = True) -> "RecurrentLayer":
        self.plans.clear()  # (they would only keep memory in use)
        return super()._apply(fn, recurse)

    def extra_repr(self) -> str:
        """Describe the sizes."""
        return f"{self.input_size}, {self.output_size}, states={self.state_size}"


class SkipLayer(RecurrentLayer):
    """A recurrent layer that adds its inputs to its outputs, channel by channel.

    y_t = Re(C_t s_t) + D x_t        D (width,), a parameter of the subclass
    """

    D: nn.Parameter

    def read_out(self, read: Tensor, inputs: Tensor) -> Tensor:
        """Add D x; see `RecurrentLayer.read_out`."""
        return read + self.D * inputs


def keeps_plan(recurrence: LinearRecurrence, drive: Tensor) -> bool:
    """Whether the plan of one call may serve the next, as when a layer is evaluated.

    It has to be small beside the layer's results, since each layer of a network keeps its own; and
    on a device, comparing the matrices with those of the last call would wait.
    """
    if recurrence.time_varying or drive.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    kernels = recurrence.batch_shape.numel() * recurrence.input_size * recurrence.output_size
    return kernels * drive.shape[-2] <= LARGEST_KERNEL


def pack(state: Tensor, heads: int) -> Tensor:
    """Put the states of recurrences side by side, as real numbers."""
    state = state.flatten(state.ndim - 1 - heads)
    if not state.is_complex():
        return state
    # (The gradient of `torch.view_as_real` needs memory that is aligned for complex numbers.)
    return torch.stack([state.real, state.imag], -1).flatten(-2)


def real(tensor: Tensor) -> Tensor:
    """Take the real part of a tensor that may be complex."""
    return tensor.real if tensor.is_complex() else tensor


def complex_of(parts: Tensor) -> Tensor:
    """Join real and imaginary parts, `(..., 2)`."""
    return torch.complex(*widen(parts).unbind(-1))


def widen(tensor: Tensor) -> Tensor:
    """Cast to the dtype that recurrences accumulate in: half precision has few gates near 1."""
    return tensor.to(accumulation_dtype(tensor.dtype))


def split_heads(tensor: Tensor, heads: int) -> Tensor:
    """Reshape `(*batch, time, heads · size)` to `(*batch, heads, time, size)`."""
    return tensor.unflatten(-1, (heads, -1)).movedim(-2, -3)


def whole(name: str, size: int) -> int:
    """Check a whole number of at least 1."""
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f"`{name}` is {size!r}: expected a whole number of 1 or more.")
    return size
