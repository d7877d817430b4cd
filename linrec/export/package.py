"""A recurrence or a module compiled ahead of time, for programs in C++ without Python."""

import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from linrec._tensors.devices import on_cpu
from linrec.export.forms import Form
from linrec.export.program import as_form, trace_form
from linrec.systems import LinearRecurrence

# If Inductor of torch 2.13 writes another result into the memory of a loop's result, it declares
# that twice, and the C++ does not compile. So results never reuse the memory of inputs.
SETTINGS = {"inplace_buffers": False}


@on_cpu
def to_package(
    target: LinearRecurrence | nn.Module,
    form: Form | str = Form.SCAN,
    *,
    example: Tensor | None = None,
    length: int | None = None,
) -> bytes:
    """Compile a recurrence or a module with AOTInductor, with dynamic batch and time axes.

    The package (.pt2) runs from C++ (`torch::inductor::AOTIModelPackageLoader`) and from Python
    (`torch._inductor.aoti_load_package`), on processors like this machine's. Arguments and results
    are those of `to_program`. It assumes that its inputs are contiguous, without checking: pass
    `input.contiguous()`, or set AOTI_RUNTIME_CHECK_INPUTS=1 to have them checked.

    Args:
        target: the recurrence or module.
        form: `step`, `scan`, `conv` or `fft`.
        example: inputs to trace a module that does not declare its number of features.
        length: for `conv` and `fft`, the longest sequence.

    Returns:
        The package, to be written to a file.

    Raises:
        ValueError: the target cannot be exported in this form, or torch cannot compile it, for
            instance because there is no C++ compiler.

    Numerical error: that of the executor with the same sums, as in `to_program`.

    Example:
        >>> import linrec, linrec.export
        >>> average = linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]])
        >>> package = linrec.export.to_package(average, "step")  # doctest: +SKIP
    """
    form = as_form(form)
    program, _ = trace_form(target, form, example, length)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "package.pt2"
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")  # of torch, about itself
                torch._inductor.aoti_compile_and_package(
                    program, package_path=str(path), inductor_configs=SETTINGS
                )
        except Exception as error:  # whatever torch or the compiler has against it
            reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"
            raise ValueError(
                f"`{type(target).__name__}` cannot be compiled by AOTInductor of torch "
                f"{torch.__version__} in the form `{form}` ({reason}). It needs a compiler of C++ "
                "(g++, or another that the variable CXX names). Type the format `torch` or `onnx`."
            ) from error
        return path.read_bytes()
