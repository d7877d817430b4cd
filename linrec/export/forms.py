"""The forms in which a recurrence or a module can be exported, as modules of plain tensors."""

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor, nn

from linrec.executors import Executor, Recurrent, Result
from linrec.export.kernels import Convolved, Kernel, Method, Recorded
from linrec.export.layers import (
    Convolution,
    constant_recurrence,
    in_real_numbers,
    recurrent_layers,
    with_equal_steps,
)
from linrec.export.wrappers import Sequences, Step, StepLoop, Steps, in_order
from linrec.nn import PlanCache, Recurrence, RecurrentLayer
from linrec.nn.checks import declared_input_size
from linrec.nn.sampled import TimedRecurrence
from linrec.systems import LinearRecurrence


class Form(StrEnum):
    """The form of an export: one step, or one of three ways to run all steps."""

    STEP = "step"  # one step, with the state before it and after it
    SCAN = "scan"  # all steps, as one node with a body
    CONV = "conv"  # all steps, as a convolution with a constant kernel
    FFT = "fft"  # the same by Fourier transforms


@dataclass(frozen=True, eq=False)
class Example:
    """The arguments to trace a form with.

    Attributes:
        module: a module that takes and returns tensors.
        arguments: some tensors to call it with.
        inputs: their names.
        outputs: the names of its outputs.
        time: which axis of the first argument is time; None for a step.
    """

    module: nn.Module
    arguments: tuple[Tensor, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    time: int | None


def as_module(target: LinearRecurrence | nn.Module) -> nn.Module:
    """Return a module as it is, or make one from a recurrence."""
    if isinstance(target, LinearRecurrence):
        return Recurrence(target)
    if isinstance(target, nn.Module):
        return target
    raise TypeError(
        f"A {type(target).__name__} cannot be exported: expected a `LinearRecurrence` or an "
        "`nn.Module`. Of a `StateSpace` pass `discretize(system, dt)`."
    )


def example_of(
    module: nn.Module, form: Form, inputs: Tensor | None, length: int, *, by_steps: bool = False
) -> Example:
    """Put a form around a module, and make tensors to trace it with.

    Args:
        module: the module.
        form: the form.
        inputs (batch, time, m): example inputs, or (batch, time) of integers. None: made from
            `module.input_size`.
        length: the steps of an example that is made.
        by_steps: for `scan`, whether the loop goes over the module's `step`.
    """
    own = module.recurrence if isinstance(module, Recurrence) else None
    if own is not None and own.time_varying:
        raise ValueError(
            "The recurrence varies with time: expected one that is the same at every step. What "
            "makes its matrices of its inputs is exported as a module, such as "
            "`linrec.nn.SelectiveSSM`."
        )
    if own is not None and own.batch_shape.numel() > 1 and inputs is None:
        raise ValueError(
            f"The recurrence is a batch of systems, {tuple(own.batch_shape)}: expected one. "
            "Export one of them; or pass `example`, inputs with these axes before time."
        )
    if inputs is None:
        inputs = torch.zeros(2, length, input_size_of(module), dtype=dtype_of(module))
    whole_numbers = not (inputs.is_floating_point() or inputs.is_complex())
    time = inputs.ndim - (1 if whole_numbers else 2)
    for axis in (0, time):
        if inputs.shape[axis] < 2:  # torch would make a size of one a constant
            inputs = inputs.repeat_interleave(2, axis)
    inputs = in_order(inputs)
    if form is Form.STEP:
        first, state = first_step(module, inputs, time)
        names = ("input", "state"), ("output", "next_state")
        return Example(Step(module), (first, state), *names, None)
    if form is Form.SCAN and not by_steps:
        # (The second is how networks continue; their `forward` returns only outputs.)
        for name in ("forward", "resume"):
            method = getattr(module, name, None)
            if method is not None and "initial_state" in inspect.signature(method).parameters:
                with torch.no_grad():
                    state = method(inputs)[1]
                return with_state(Steps(module, name), inputs, in_order(state), time)
    if form is Form.SCAN and takes_steps(module):
        first, state = first_step(module, inputs, time)
        with torch.no_grad():
            all_of_them, one = outputs_of(module(inputs)), outputs_of(module.step(first))  # type: ignore[operator]  # a method
        at_end = all_of_them[0].ndim == one[0].ndim
        return with_state(StepLoop(module, time, at_end=at_end), inputs, state, time)
    return Example(Sequences(module), (inputs,), ("inputs",), ("outputs",), time)


def with_state(module: nn.Module, inputs: Tensor, state: Tensor, time: int) -> Example:
    """Make the example for a module that takes all steps and a state."""
    given = (inputs, state)
    return Example(module, given, ("inputs", "state"), ("outputs", "final_state"), time)


def takes_steps(module: nn.Module) -> bool:
    """Whether a module has a `step` that needs only an input and a state."""
    step = getattr(module, "step", None)
    if not callable(step):
        return False
    every = inspect.signature(step).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [each for each in every if each.kind in kinds and each.default is each.empty]
    return len(needed) <= 1 or [each.name for each in needed[1:]] == ["state"]


def first_step(module: nn.Module, inputs: Tensor, time: int) -> tuple[Tensor, Tensor]:
    """Return the first step's input, and a state.

    Raises:
        ValueError: the module has no `step`, or its state is not a tensor.
    """
    first = in_order(inputs.select(time, 0))
    if not takes_steps(module):
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
    return first, in_order(state)


@contextmanager
def running(example: Example, form: Form, length: int) -> Iterator[None]:
    """Make every recurrence of a module run in a form while the module is traced."""
    kept: list[tuple[nn.Module, str, object]] = []

    def put(module: nn.Module, name: str, value: object) -> None:
        kept.append((module, name, getattr(module, name)))
        setattr(module, name, value)

    try:
        convolved = kernels_of(example, length) if form in (Form.CONV, Form.FFT) else {}
        with ExitStack() as stack:
            for layer in recurrent_layers(example.module):
                stack.enter_context(in_real_numbers(layer))
            for part in list(example.module.modules()):
                if isinstance(part, TimedRecurrence):
                    stack.enter_context(with_equal_steps(part))
            for module, kernel in convolved.items():
                if isinstance(module, RecurrentLayer):
                    put(module, "executor", Convolution(kernel, method_of(form)))
                else:
                    put(module, "plans", Convolved(module.plans, kernel, method_of(form)))
            for module in [] if form is Form.STEP else list(example.module.modules()):
                if module in convolved:
                    continue  # it stays a loop
                if isinstance(getattr(module, "executor", None), Executor):
                    put(module, "executor", Recurrent())
                elif isinstance(getattr(module, "plans", None), PlanCache):
                    put(module, "plans", PlanCache(Recurrent()))
            yield
    finally:
        for module, name, value in reversed(kept):
            setattr(module, name, value)


def kernels_of(example: Example, length: int) -> dict[nn.Module, Kernel]:
    """Run a module once to see which recurrences it runs, and compute their kernels."""
    found = {}
    for layer in recurrent_layers(example.module):
        constant = constant_recurrence(layer)
        if constant is not None:
            found[layer] = Kernel.of(constant[0], length, constant[1])
    keepers = [
        module
        for module in example.module.modules()
        if isinstance(getattr(module, "plans", None), PlanCache)
        and not isinstance(module, RecurrentLayer)
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
    for module, recorder in zip(keepers, recorders, strict=True):
        if len(recorder.recurrences) > 1:
            raise ValueError(
                f"`{type(module).__name__}` runs more than one recurrence: expected one. Type the "
                "form `scan` or `step`."
            )
        for each in recorder.recurrences:
            found[module] = Kernel.of(each, length)
    if not found:
        raise ValueError(
            "The module runs no recurrence that is the same at every step, and so has no kernel. "
            "Type the form `scan` or `step`."
        )
    return found


def method_of(form: Form) -> Method:
    """Return how a form convolves."""
    return "conv" if form is Form.CONV else "fft"


def input_size_of(module: nn.Module) -> int:
    """Find the number of input features that a module declares."""
    size = declared_input_size(module)
    if size is not None:
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
