"""Exported files of recurrences and modules, in a form and a format."""

from enum import StrEnum

import torch
from torch import Tensor, nn

from linrec._tensors.devices import on_cpu
from linrec.export.c import find_recurrence, to_c
from linrec.export.forms import Form
from linrec.export.onnx import to_onnx
from linrec.export.package import to_package
from linrec.export.program import as_form, save_program, to_program
from linrec.export.quantize import quantize
from linrec.export.quantize_weights import quantize_weights
from linrec.systems import LinearRecurrence


class Format(StrEnum):
    """The file formats."""

    ONNX = "onnx"
    TORCH = "torch"  # an exported program, for torch.export.load
    PACKAGE = "package"  # compiled by AOTInductor, for C++
    C = "c"  # a header of C99


class Weights(StrEnum):
    """The type of the weights in C."""

    FLOAT = "float"  # unchanged
    INT8 = "int8"  # whole numbers; states have 16 bits
    INT16 = "int16"


class States(StrEnum):
    """The type of a state with integer weights."""

    INT16 = "int16"  # for processors without floats
    FLOAT16 = "float16"


@on_cpu
def exported(
    target: LinearRecurrence | nn.Module,
    form: Form | str,
    format: Format | str,
    *,
    name: str = "recurrence",
    example: Tensor | None = None,
    length: int | None = None,
    weights: Weights | str = Weights.FLOAT,
    states: States | str = States.INT16,
    stochastic: bool = False,
    largest_input: float = 1.0,
) -> bytes:
    """Export a recurrence or a module in a form and a format.

    Args:
        target: the recurrence or module.
        form: `step`, `scan`, `conv` or `fft`.
        format: `onnx`, `torch`, `package` or `c`.
        name: the prefix of all names in C.
        example: inputs to trace a module that does not declare its number of features.
        length: for `conv`, `fft` and integer weights, the longest sequence.
        weights: for C, `float`, `int8` or `int16`; see `quantize`.
        states: with integer weights, `int16` or `float16`; see `quantize_weights`.
        stochastic: whether states in float16 are rounded at random.
        largest_input: the largest absolute value of an input, for integer weights in C.

    Returns:
        The file's content.

    Raises:
        ValueError: the target cannot be exported in this form, or the form in this format.

    Example:
        >>> import linrec, linrec.export
        >>> average = linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]])
        >>> content = linrec.export.exported(average, "step", "c", name="average")
        >>> content.startswith(b"/* average.h")
        True
    """
    form = as_form(form)
    try:
        format = Format(format)
    except ValueError:
        raise ValueError(
            f"`{format}` is no format: expected one of {', '.join(each.value for each in Format)}."
        ) from None
    if weights not in list(Weights):
        raise ValueError(
            f"`{weights}` are no weights: expected one of {', '.join(map(str, Weights))}."
        )
    if states not in list(States):
        raise ValueError(
            f"`{states}` are no states: expected one of {', '.join(map(str, States))}."
        )
    if states != States.INT16 and weights == Weights.FLOAT:
        raise ValueError(
            f"States of {states} go with whole weights: type the weights `int8` or `int16`."
        )
    if stochastic and states != States.FLOAT16:
        raise ValueError("States of float16 are what can be rounded by chance: type `float16`.")
    if weights != Weights.FLOAT and format is not Format.C:
        raise ValueError(f"Weights of {weights} are written in C: type the format `c`.")
    if format is Format.ONNX:
        return to_onnx(target, form, example=example, length=length)
    if format is Format.TORCH:
        return save_program(to_program(target, form, example=example, length=length))
    if format is Format.PACKAGE:
        return to_package(target, form, example=example, length=length)
    if form is not Form.STEP:
        raise ValueError(
            f"C is written for one step, not for the form `{form}`: type the form `step`, and call "
            "it in a loop."
        )
    if weights == Weights.FLOAT:
        return to_c(target, name, example=example).encode()
    if length is None:
        raise ValueError(
            f"Weights of {weights} need a length: the bound of their error holds so far. Say how "
            "long sequences may be (`length=…`, `--length …`)."
        )
    kind = torch.int8 if weights == Weights.INT8 else torch.int16
    one = linear(target)
    if states == States.FLOAT16:
        halves = quantize_weights(
            one, steps=length, largest_input=largest_input, weights=kind, stochastic=stochastic
        )
        return to_c(halves, name).encode()
    small = quantize(one, steps=length, largest_input=largest_input, weights=kind)
    return to_c(small, name).encode()


def linear(target: LinearRecurrence | nn.Module) -> LinearRecurrence:
    """Return the recurrence that a target is, and refuse a target that is more."""
    found = find_recurrence(target)
    if found is not None:
        return found
    raise ValueError(
        f"Whole weights are written for a recurrence, and `{type(target).__name__}` is more than "
        "one: expected a `LinearRecurrence`, or a module that is nothing else, such as "
        "`linrec.nn.Recurrence` and `lmu.LegendreMemory`. Type the weights `float`."
    )
