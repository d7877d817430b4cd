"""The forms in which a recurrence or a module can be exported, as modules of tensors alone."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor, nn

from linrec.executors import Executor, Recurrent, Result
from linrec.export.kernels import Convolved, Kernel, Recorded, Way
from linrec.nn import PlanCache, Recurrence
from linrec.systems import LinearRecurrence


class Form(StrEnum):
    """How time is gone through."""

    STEP = "step"  # one step, with the state before it and after it
    SCAN = "scan"  # all steps, as one node with a body
    CONV = "conv"  # all steps, as a convolution with a constant kernel
    FFT = "fft"  # the same by Fourier transforms


@dataclass(frozen=True, eq=False)
class Example:
    """The arguments to trace a form with.

    Attributes:
        module: takes tensors and gives tensors.
        arguments: some tensors to call it with.
        inputs: their names.
        outputs: the names of what it gives.
        time: which axis of the first argument is time; None of a step.
    """

    module: nn.Module
    arguments: tuple[Tensor, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    time: int | None


class Step(nn.Module):
    """One step: the input and the state before it, to the output and the state after it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, input: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Run one step."""
        outputs, after = self.module.step(input, state)  # type: ignore[operator]  # a method
        return outputs, after


class Steps(nn.Module):
    """All steps, and the state before and after them."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Run all steps."""
        outputs, after = self.module(inputs, state)
        return outputs, after


class Sequences(nn.Module):
    """All steps from a zero state; outputs alone."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: Tensor) -> Tensor:
        """Run all steps."""
        found = self.module(inputs)
        return found if isinstance(found, Tensor) else found[0]


def as_module(target: LinearRecurrence | nn.Module) -> nn.Module:
    """Take a module as it is, and make one of a recurrence."""
    if isinstance(target, LinearRecurrence):
        return Recurrence(target)
    if isinstance(target, nn.Module):
        return target
    raise TypeError(
        f"A {type(target).__name__} cannot be exported: expected a `LinearRecurrence` or an "
        "`nn.Module`. Of a `StateSpace` pass `discretize(system, dt)`."
    )


def example_of(module: nn.Module, form: Form, inputs: Tensor | None, length: int) -> Example:
    """Put a form around a module, and make tensors to trace it with.

    Args:
        module: the module.
        form: the form.
        inputs (batch, time, m): an example of what the module takes, or (batch, time) of whole
            numbers. None: made from `module.input_size`.
        length: the steps of an example that is made.
    """
    if inputs is None:
        inputs = torch.zeros(2, length, input_size_of(module), dtype=dtype_of(module))
    whole_numbers = not (inputs.is_floating_point() or inputs.is_complex())
    time = inputs.ndim - (1 if whole_numbers else 2)
    for axis in (0, time):
        if inputs.shape[axis] < 2:  # of one, torch would make a constant
            inputs = inputs.repeat_interleave(2, axis)
    inputs = in_order(inputs)
    if form is Form.STEP:
        first = in_order(inputs.select(time, 0))
        if not callable(getattr(module, "step", None)):
            raise ValueError(
                f"`{type(module).__name__}` has no `step(input, state)`: expected a module that "
                "can be run one step at a time. Type another form."
            )
        with torch.no_grad():
            state = module.step(first)[1]  # type: ignore[operator]  # a method
        if not isinstance(state, Tensor):
            raise ValueError(
                f"The state of `{type(module).__name__}` is a {type(state).__name__}: expected "
                "one tensor. Wrap the module in one whose `step` takes and gives a tensor."
            )
        return Example(
            Step(module),
            (first, in_order(state)),
            ("input", "state"),
            ("output", "next_state"),
            None,
        )
    stateful = "initial_state" in inspect.signature(module.forward).parameters
    if form is Form.SCAN and stateful:
        with torch.no_grad():
            state = module(inputs)[1]
        return Example(
            Steps(module),
            (inputs, in_order(state)),
            ("inputs", "state"),
            ("outputs", "final_state"),
            time,
        )
    return Example(Sequences(module), (inputs,), ("inputs",), ("outputs",), time)


def in_order(tensor: Tensor) -> Tensor:
    """Copy a tensor so that its numbers lie in memory one after the other.

    A compiler (AOTInductor) reads what it is given later by the strides of the example, without
    looking: of a step that was cut out of a sequence they were those of the sequence, and it read
    what lies behind the input. (`contiguous` would leave the stride of an axis of one as it is.)
    """
    return tensor.clone(memory_format=torch.contiguous_format)


@contextmanager
def running(example: Example, form: Form, length: int) -> Iterator[None]:
    """Let every recurrence of a module run in a form, for as long as it is traced."""
    kept: list[tuple[nn.Module, str, object]] = []

    def put(module: nn.Module, name: str, value: object) -> None:
        kept.append((module, name, getattr(module, name)))
        setattr(module, name, value)

    try:
        if form is Form.SCAN:
            for module in example.module.modules():
                if isinstance(getattr(module, "executor", None), Executor):
                    put(module, "executor", Recurrent())
                if isinstance(getattr(module, "plans", None), PlanCache):
                    put(module, "plans", PlanCache(Recurrent()))
        elif form is not Form.STEP:
            for module, kernel in kernels_of(example, length):
                put(module, "plans", Convolved(module.plans, kernel, way_of(form)))
        yield
    finally:
        for module, name, value in reversed(kept):
            setattr(module, name, value)


def kernels_of(example: Example, length: int) -> list[tuple[nn.Module, Kernel]]:
    """Run a module once to see which recurrences it runs, and compute their kernels."""
    keepers = [
        module
        for module in example.module.modules()
        if isinstance(getattr(module, "plans", None), PlanCache)
    ]
    recorders = [Recorded(module.plans) for module in keepers]
    try:
        for module, recorder in zip(keepers, recorders, strict=True):
            module.plans = recorder  # type: ignore[assignment]  # torch's stub allows modules alone
        with torch.no_grad():
            example.module(*example.arguments)
    finally:
        for module, recorder in zip(keepers, recorders, strict=True):
            module.plans = recorder.keeper  # type: ignore[assignment]  # likewise
    found = []
    for module, recorder in zip(keepers, recorders, strict=True):
        if len(recorder.recurrences) > 1:
            raise ValueError(
                f"`{type(module).__name__}` runs more than one recurrence: expected one. Type the "
                "form `scan` or `step`."
            )
        found += [(module, Kernel.of(each, length)) for each in recorder.recurrences]
    if not found:
        raise ValueError(
            "The module runs no recurrence that is the same at every step, and so has no kernel. "
            "Type the form `scan` or `step`."
        )
    return found


def way_of(form: Form) -> Way:
    """How a form convolves."""
    return "conv" if form is Form.CONV else "fft"


def input_size_of(module: nn.Module) -> int:
    """Ask a module for the features that it takes."""
    size = getattr(module, "input_size", None)
    recurrence = getattr(module, "recurrence", None)
    if size is None and isinstance(recurrence, LinearRecurrence):
        size = recurrence.input_size
    if isinstance(size, int):
        return size
    raise ValueError(
        f"`{type(module).__name__}` does not say how many features it takes: pass an example of "
        "its inputs, or give it an attribute `input_size`."
    )


def dtype_of(module: nn.Module) -> torch.dtype:
    """Find the dtype of a module's tensors."""
    tensors = [*module.parameters(), *module.buffers()]
    floating = [each.dtype for each in tensors if each.is_floating_point() or each.is_complex()]
    return floating[0] if floating else torch.get_default_dtype()


def outputs_of(found: Result | Tensor | tuple) -> tuple[Tensor, ...]:
    """List the outputs of a form."""
    return (found,) if isinstance(found, Tensor) else tuple(found)
