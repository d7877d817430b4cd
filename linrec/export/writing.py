"""Write a recurrence or a module into a file, in a form and a format."""

from enum import StrEnum

from torch import Tensor, nn

from linrec.export.c_source import to_c
from linrec.export.forms import Form
from linrec.export.onnx import to_onnx
from linrec.export.package import to_package
from linrec.export.program import as_form, saved, to_program
from linrec.systems import LinearRecurrence


class Format(StrEnum):
    """The file formats."""

    ONNX = "onnx"
    TORCH = "torch"  # an exported program, for torch.export.load
    PACKAGE = "package"  # compiled by AOTInductor, for C++
    C = "c"  # a header of C99


def exported(
    target: LinearRecurrence | nn.Module,
    form: Form | str,
    format: Format | str,
    *,
    name: str = "recurrence",
    example: Tensor | None = None,
    length: int | None = None,
) -> bytes:
    """Export a recurrence or a module in a form and a format.

    Args:
        target: the recurrence or module.
        form: `step`, `scan`, `conv` or `fft`.
        format: `onnx`, `torch`, `package` or `c`.
        name: the prefix of all names in C.
        example: inputs to trace a module with that does not say how many features it takes.
        length: of `conv` and `fft` the longest sequence.

    Returns:
        The file's content.

    Raises:
        ValueError: the form cannot be had of the target, or in the format.

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
    if format is Format.ONNX:
        return to_onnx(target, form, example=example, length=length)
    if format is Format.TORCH:
        return saved(to_program(target, form, example=example, length=length))
    if format is Format.PACKAGE:
        return to_package(target, form, example=example, length=length)
    if form is not Form.STEP:
        raise ValueError(
            f"C is written for one step, not for the form `{form}`: type the form `step`, and call "
            "it in a loop."
        )
    return to_c(linear(target), name).encode()


def linear(target: LinearRecurrence | nn.Module) -> LinearRecurrence:
    """Find the recurrence that a target is and no more."""
    if isinstance(target, LinearRecurrence):
        return target
    found = getattr(target, "recurrence", None)
    if isinstance(found, LinearRecurrence):
        return found
    raise ValueError(
        f"C is written for a recurrence, and `{type(target).__name__}` is more than one: expected "
        "a `LinearRecurrence`, or a module with a `recurrence`, such as `lmu.LegendreMemory`. "
        "Type the format `onnx` or `torch`."
    )
