"""A recurrence or a module as a model of ONNX."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from linrec._tensors.devices import on_cpu
from linrec.export.forms import Form, as_module, dtype_of
from linrec.export.program import as_form, trace_form
from linrec.systems import LinearRecurrence

# The packages of the extra `onnx` that are needed here; `onnxruntime` runs the models.
NEEDED = ("onnx", "onnxscript")


@on_cpu
def to_onnx(
    target: LinearRecurrence | nn.Module,
    form: Form | str = Form.SCAN,
    *,
    example: Tensor | None = None,
    length: int | None = None,
) -> bytes:
    """Export a recurrence or a module to ONNX, with dynamic batch and time axes.

    The step is a few products; `scan` is one node `Scan`, `conv` one `Conv` and `fft` `DFT`s, whose
    kernels are constants. Arguments and names of inputs and outputs are those of `to_program`.

    Args:
        target: the recurrence or module.
        form: `step`, `scan`, `conv` or `fft`.
        example: inputs to trace a module that does not declare its number of features.
        length: for `conv` and `fft`, the longest sequence. A model of ONNX does not refuse longer
            ones, but their outputs are those of the truncated kernel; the metadata has the length
            as `linrec.length`.

    Returns:
        The model, to be written to a file.

    Raises:
        ValueError: the target cannot be exported in this form, or is complex.
        ModuleNotFoundError: onnx or onnxscript is not installed.

    Example:
        >>> import linrec, linrec.export
        >>> average = linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]])
        >>> model = linrec.export.to_onnx(average, "step")  # doctest: +SKIP
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f"Models of ONNX need {', '.join(missing)}: type\n  pip install 'linrec[onnx]'",
            name=missing[0],
        )
    form = as_form(form)
    if dtype_of(as_module(target)) is torch.bfloat16:
        raise ValueError(
            "onnxruntime computes with no bfloat16, which the target has: expected float32. Cast "
            "it, `.to(torch.float32)`, or export to torch."
        )
    program, made = trace_form(target, form, example, length)
    if is_complex(program, form):
        raise ValueError(
            "ONNX has no complex numbers, and the target computes with them: expected a real one. "
            "Write a recurrence in real states, `linrec.real_part(recurrence)`, or export to torch."
        )
    try:
        with quietly(), torch.no_grad():  # a loop with a gradient would be another node
            written = torch.onnx.export(
                program,
                dynamo=True,
                optimize=True,
                verbose=False,
                input_names=list(made.inputs),
                output_names=list(made.outputs),
            )
    except RuntimeError as error:
        last = error
        while last.__cause__ is not None:
            last = last.__cause__
        raise ValueError(
            f"`{type(target).__name__}` cannot be exported to ONNX in the form `{form}`: "
            f"{str(last).strip().partition(chr(10))[0][:300]}. Type the format `torch`."
        ) from error
    assert written is not None
    model = written.model_proto
    for name, value in {"linrec.form": str(form), "linrec.length": length}.items():
        if value is not None:
            model.metadata_props.add(key=name, value=str(value))
    return model.SerializeToString()


def is_complex(program: ExportedProgram, form: Form) -> bool:
    """Whether a program computes with complex numbers outside of transforms."""
    values = [
        node.meta.get("val")
        for node in program.graph.nodes
        if node.op == "placeholder" or form is not Form.FFT
    ]
    return any(isinstance(each, Tensor) and each.is_complex() for each in values)


@contextmanager
def quietly() -> Iterator[None]:
    """Silence messages of torch's exporter that concern no user (torchvision, its own code)."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
