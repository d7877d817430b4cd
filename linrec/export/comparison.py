"""Comparisons of exported files with their sources."""

import io
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from linrec._tensors.devices import on_cpu
from linrec._tensors.dtypes import double_dtype
from linrec.executors import Executor, FFTConvolution, Recurrent, Toeplitz
from linrec.export.c_source import real_dtype
from linrec.export.forms import Form, as_module, dtype_of, example_of, input_size_of
from linrec.export.writing import Format
from linrec.run import run
from linrec.systems import LinearRecurrence

# The executor whose bound applies to a form, because it has the same sums.
EXECUTORS: dict[Form, Executor] = {
    Form.STEP: Recurrent(),
    Form.SCAN: Recurrent(),
    Form.CONV: Toeplitz(),
    Form.FFT: FFTConvolution(),
}
MOST_STEPS = 64  # in a comparison

# Reads samples from standard input and writes outputs, then the state.
MAIN = """
#include <stdio.h>
#include "NAME.h"
int main(void)
{
    static NAME_t memory;
    INPUT input[UPPER_INPUTS];
    NUMBER output[UPPER_OUTPUTS];
    NAME_init(&memory);
    while (fread(input, sizeof input, 1, stdin) == 1) {
        NAME_step(&memory, input, output);
        if (fwrite(output, sizeof output, 1, stdout) != 1)
            return 1;
    }
    return 0;
}
"""
C_TYPES = {torch.float32: "float", torch.float64: "double", torch.int32: "int"}

Runner = Callable[..., Sequence[Tensor]]


@dataclass(frozen=True)
class ExportReport:
    """How far an exported file is from its source.

    Attributes:
        difference: the largest difference of an output or a state.
        size: the largest output or state.
        share: for recurrences, the largest error as a share of its bound, where 1 is the bound.
            None for modules, which have no bound.
        sequences, steps: the number of sequences and of steps that were run.
    """

    difference: float
    size: float
    share: float | None
    sequences: int
    steps: int

    def __str__(self) -> str:
        """Write the report as a sentence."""
        share = "" if self.share is None else f", {self.share:.2g} of the bound of its error"
        return (
            f"Largest difference {self.difference:.1e}, of numbers up to {self.size:.2g}{share} "
            f"({self.sequences} sequences, {self.steps} steps)."
        )


@on_cpu
def compare(
    content: bytes | str,
    target: LinearRecurrence | nn.Module,
    form: Form | str,
    format: Format | str,
    *,
    name: str = "recurrence",
    example: Tensor | None = None,
    length: int | None = None,
) -> ExportReport:
    """Run an exported file, and compare it with its source, a recurrence or a module.

    It is run with other numbers of sequences and steps than it was traced with.

    Args:
        content: the content of the file, from `linrec.export.exported` with unchanged weights; in C
            also the text that `linrec.export.to_c` returns.
        target: the recurrence or module that was exported.
        form: its form.
        format: its format. ONNX needs onnxruntime, C a compiler called `cc`.
        name: the prefix of names in C.
        example: inputs `(batch, time, m)`, or `(batch, time)` of integers, to run it on. None:
            normal random numbers, if the target declares its number of features.
        length: for `conv` and `fft`, the longest sequence.

    Returns:
        Differences from the target; for a recurrence, errors measured against double precision.

    Raises:
        ModuleNotFoundError: onnxruntime is not installed.
        FileNotFoundError: there is no compiler of C.
        ValueError: the content is damaged, or cannot be compiled.

    Example:
        >>> import linrec, linrec.export
        >>> average = linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]])
        >>> content = linrec.export.exported(average, "scan", "torch")
        >>> linrec.export.compare(content, average, "scan", "torch").share <= 1
        True
    """
    form, format, module = Form(form), Format(format), as_module(target)
    if isinstance(content, str) and format is Format.C:
        content = content.encode()
    if not isinstance(content, bytes):
        raise TypeError(
            f"`content` is of type {type(content).__name__}: expected bytes in the format "
            f"`{format}`, as `linrec.export.exported` returns them."
        )
    training = module.training
    module.eval()
    try:
        inputs = some_inputs(module, example, length)
        made = example_of(module, form, inputs, inputs.shape[1])
        state = None if len(made.arguments) == 1 else torch.zeros_like(made.arguments[1])
        with torch.no_grad():
            expected = run_form(made.module, form, inputs, state)
            if format is Format.C:
                got = [run_header(content.decode(), name, inputs, dtype_of(module))]
                got[0] = got[0].view_as(expected[0])
            else:
                got = run_form(load_checked(content, format), form, inputs, state)
    finally:
        module.train(training)
    pairs = list(zip(got, expected, strict=False))  # (C hands no state out)
    share = None
    if isinstance(target, LinearRecurrence):
        share = largest_share(target, form, got, inputs, state, length)
    difference = largest(mine - theirs for mine, theirs in pairs)
    size = largest(theirs for _, theirs in pairs)
    return ExportReport(difference, size, share, inputs.shape[0], inputs.shape[1])


def assure(
    content: bytes,
    target: LinearRecurrence | nn.Module,
    form: Form | str,
    format: Format | str,
    **options: Any,
) -> str:
    """Compare, and say in a sentence how far off the file is, or why it was not compared.

    Args:
        content: the content of the file.
        target: the recurrence or module that was exported.
        form: its form.
        format: its format.
        options: `name`, `example` and `length`, as in `compare`.

    Returns:
        The sentence.

    Raises:
        ValueError: an error exceeds its bound, or, without a bound, a hundredth of the largest
            number; or a result is not a number.

    Example:
        >>> import linrec, linrec.export
        >>> average = linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]])
        >>> content = linrec.export.exported(average, "step", "torch")
        >>> linrec.export.assure(content, average, "step", "torch")
        'Largest difference ... of the bound of its error (3 sequences, 33 steps).'
    """
    try:
        report = compare(content, target, form, format, **options)
    except (ModuleNotFoundError, FileNotFoundError) as error:
        return f"Not compared: {error}."
    allowed = report.difference <= report.size / 100 if report.share is None else report.share <= 1
    if not allowed:
        raise ValueError(f"The file is not what it was made of, and was not written. {report}")
    return str(report)


def some_inputs(module: nn.Module, example: Tensor | None, length: int | None) -> Tensor:
    """Draw inputs of three sequences, or take them from an example."""
    most = MOST_STEPS if length is None else min(length, MOST_STEPS)
    if example is None:
        generator = torch.Generator().manual_seed(0)
        shape = 3, min(33, most), input_size_of(module)
        return torch.randn(shape, generator=generator, dtype=dtype_of(module))
    some = torch.cat([example, example.flip(0), example])[:3, :most]
    return some.contiguous()


def run_form(running: Runner, form: Form, inputs: Tensor, state: Tensor | None) -> list[Tensor]:
    """Run all steps, one by one if the form is a step; return outputs and the last state."""
    if form is not Form.STEP:
        found = running(inputs) if state is None else running(inputs, state)
        return [found] if isinstance(found, Tensor) else list(found)
    outputs = []
    for input in inputs.unbind(1):
        output, state = running(input.contiguous(), state)
        outputs.append(output)
    assert state is not None
    return [torch.stack(outputs, 1), state]


def load_checked(content: bytes, format: Format) -> Runner:
    """Load the content of a file; raise a readable error if it is damaged."""
    archive = format in (Format.TORCH, Format.PACKAGE)
    try:
        if archive and not content.startswith(b"PK"):
            raise ValueError("it is no archive")
        return load_export(content, format)
    except ModuleNotFoundError:
        raise
    except Exception as error:  # whatever torch or onnxruntime says of a damaged file
        reason = str(error).strip().partition("\n")[0][:200]
        if "NOT_IMPLEMENTED" in reason:
            raise ValueError(
                f"onnxruntime cannot run the model ({reason}): expected operations that it has. "
                "Cast to float32, type another form, or leave the comparison out "
                "(`--no-compare`) for a runtime that can."
            ) from error
        raise ValueError(
            f"`content` cannot be read in the format `{format}` ({reason}): expected the bytes "
            "that `linrec.export.exported` returned."
        ) from error


def load_export(content: bytes, format: Format) -> Runner:
    """Load a program, a package or a model, as a function of tensors."""
    if format is Format.TORCH:
        return torch.export.load(io.BytesIO(content)).module()
    if format is Format.PACKAGE:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "package.pt2"
            path.write_bytes(content)
            package = torch._inductor.aoti_load_package(str(path))
        return lambda *given: package(*(each.contiguous() for each in given))
    return load_onnx(content)


def load_onnx(content: bytes) -> Runner:
    """Load a model of ONNX."""
    if find_spec("onnxruntime") is None:
        raise ModuleNotFoundError(
            "Running a model of ONNX needs onnxruntime: type\n  pip install 'linrec[onnx]'",
            name="onnxruntime",
        )
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def running(*given: Tensor) -> list[Tensor]:
        fed: dict[str, Any] = {n: each.numpy() for n, each in zip(names, given, strict=False)}
        return [torch.from_numpy(each) for each in session.run(None, fed)]

    return running


def run_header(source: str, name: str, inputs: Tensor, dtype: torch.dtype) -> Tensor:
    """Compile a header, and run each sequence through its step from a zero state."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise FileNotFoundError("there is no compiler of C: expected `cc`")
    real = real_dtype(dtype)
    given = inputs
    if inputs.is_complex():
        given = torch.view_as_real(inputs).flatten(-2)
    given = given.to(real if inputs.is_floating_point() or inputs.is_complex() else torch.int32)
    words = {"INPUT ": f"{C_TYPES[given.dtype]} ", "NUMBER": C_TYPES[real]}
    words |= {"UPPER": name.upper(), "NAME": name}
    program = MAIN
    for word, meaning in words.items():
        program = program.replace(word, meaning)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / f"{name}.h").write_text(source, encoding="utf-8")
        (Path(folder) / "main.c").write_text(program, encoding="utf-8")
        built = [compiler, "-std=c99", "-O1", "main.c", "-o", "main", "-lm"]
        done = subprocess.run(built, cwd=folder, capture_output=True, text=True, timeout=300)
        if done.returncode:
            reason = done.stderr.strip().partition("\n")[0][:200]
            raise ValueError(f"`content` cannot be compiled as C by `{compiler}`: {reason}")
        rows = []
        for sequence in given:
            fed = sequence.contiguous().numpy().tobytes()
            ran = subprocess.run([f"{folder}/main"], input=fed, capture_output=True, check=True)
            rows.append(torch.frombuffer(bytearray(ran.stdout), dtype=real))
    found = torch.stack(rows)
    return torch.view_as_complex(found.unflatten(-1, (-1, 2))) if dtype.is_complex else found


def largest_share(
    recurrence: LinearRecurrence,
    form: Form,
    got: Sequence[Tensor],
    inputs: Tensor,
    state: Tensor | None,
    length: int | None,
) -> float:
    """Return the largest error of outputs and final state, as a share of the bound of the form.

    Args:
        recurrence: the system.
        form: the form.
        got: outputs, and the final state where the form has one.
        inputs, state: the inputs and the initial state of the run.
        length: for `conv` and `fft`, the steps of the kernel.
    """
    from linrec.testing import error_bound  # (hypothesis is not needed to write a file)

    steps, executor = inputs.shape[-2], EXECUTORS[form]
    # Transforms have the kernel's length, whatever the length of the sequence.
    longest = steps if length is None or form not in (Form.CONV, Form.FFT) else length
    whole = nn.functional.pad(inputs, (0, 0, 0, longest - steps))
    allowed = error_bound(recurrence, whole, executor, state)
    bounds = [allowed.outputs[..., :steps, :], allowed.final_state]
    double = double_dtype(recurrence.dtype)
    start = None if state is None else state.to(double)
    exact = run(recurrence.to(double), inputs.to(double), start, executor=Recurrent())
    return largest(
        (mine - theirs).abs() / bound.clamp(min=1e-300)
        for mine, theirs, bound in zip(got, exact, bounds, strict=False)
    )


def largest(tensors: Iterable[Tensor]) -> float:
    """Return the largest absolute value; NaN if there is one."""
    return float(torch.stack([each.abs().max() for each in tensors]).max())
