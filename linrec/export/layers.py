"""Export, in real numbers, of layers that make a recurrence from their inputs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from linrec.executors import Executor, Plan, Result
from linrec.export.kernels import Kernel, Method
from linrec.nn import Recurrence, RecurrentLayer
from linrec.nn.sampled import TimedRecurrence
from linrec.real_part import real_part
from linrec.systems import LinearRecurrence

Made = Callable[[Tensor], tuple[LinearRecurrence, Tensor]]


def recurrent_layers(module: nn.Module) -> list[RecurrentLayer]:
    """List the layers that make a recurrence from their inputs."""
    return [each for each in module.modules() if isinstance(each, RecurrentLayer)]


def constant_recurrence(layer: RecurrentLayer) -> tuple[LinearRecurrence, torch.Size] | None:
    """Make the recurrence of a layer, in real numbers, if it is the same for all inputs.

    Its state is the layer's state: real and imaginary parts, side by side.

    Returns:
        The recurrence, and its axes of heads.
    """
    weight = next(layer.parameters(), torch.zeros(()))
    inputs = weight.new_zeros(2, 3, layer.input_size)
    with torch.no_grad():
        recurrence, drive = layer.recurrence(inputs)
        heads = drive.shape[1:-2]
        if recurrence.time_varying or len(recurrence.batch_shape) > len(heads):
            return None
        return real_part(recurrence), heads


@contextmanager
def in_real_numbers(layer: RecurrentLayer) -> Iterator[None]:
    """Make a layer compute its recurrence without complex numbers, if possible, within a context.

    A recurrence that is the same for all inputs becomes a constant (in a module of its own, since a
    loop in a graph accepts only buffers). One that depends on the inputs has to be made in real
    numbers by the layer itself, in a method `real_recurrence`.
    """
    constant, made = constant_recurrence(layer), layer.recurrence
    others: Made | None = getattr(layer, "real_recurrence", None)
    if constant is not None:
        layer.constant = Recurrence(constant[0])
        others = partial(with_constant, layer.constant, made)
    if others is not None:
        layer.recurrence = others  # type: ignore[method-assign]  # of this one, for a while
    try:
        yield
    finally:
        if others is not None:
            del layer.recurrence
        if constant is not None:
            del layer.constant


def with_constant(
    constant: Recurrence, made: Made, inputs: Tensor
) -> tuple[LinearRecurrence, Tensor]:
    """Return the constant recurrence and its inputs."""
    return constant.recurrence, made(inputs)[1]


@contextmanager
def with_equal_steps(module: TimedRecurrence) -> Iterator[None]:
    """Make the recurrence of a module's equal steps a constant within a context.

    A trained window is discretised in each call, by an operation that only this library has.
    """
    with torch.no_grad():
        module.constant = Recurrence(module.recurrence_of(None))
    held, made = module.constant, module.recurrence_of

    def recurrence_of(dt: Tensor | None) -> LinearRecurrence:
        return held.recurrence if dt is None else made(dt)

    module.recurrence_of = recurrence_of  # type: ignore[method-assign]  # of this one, for a while
    try:
        yield
    finally:
        del module.recurrence_of, module.constant


@dataclass(frozen=True, eq=False)
class Convolution(Executor):
    """An executor for one recurrence: a convolution with a constant kernel, from a zero state.

    Args:
        kernel: the kernel of that recurrence.
        method: how it is convolved.
    """

    kernel: Kernel
    method: Method

    def execute(
        self, recurrence: LinearRecurrence, plan: Plan, inputs: Tensor, state: Tensor | None
    ) -> Result:
        """Convolve, and return the state after the last step too."""
        side_by_side = beside(inputs, plan.copies)
        outputs = self.kernel.convolved(side_by_side, self.method)
        if plan.copies > 1:
            outputs = outputs.unflatten(-1, (plan.copies, -1)).movedim(-2, -3)
        return Result(outputs, self.final_state(recurrence, plan, inputs, state))

    def final_state(
        self, recurrence: LinearRecurrence, plan: Plan, inputs: Tensor, state: Tensor | None
    ) -> Tensor:
        """Compute the last state by one product."""
        if state is not None:
            raise ValueError(
                "A convolution begins at zero, but the module passes an initial state on: expected "
                "none. Type the form `scan` or `step`."
            )
        last = self.kernel.last_state(beside(inputs, plan.copies))
        return last.unflatten(-1, (plan.copies, -1)) if plan.copies > 1 else last


def beside(inputs: Tensor, copies: int) -> Tensor:
    """Put copies `(*batch, copies, time, m)`, as executors receive them, side by side."""
    return inputs.movedim(-3, -2).flatten(-2) if copies > 1 else inputs
