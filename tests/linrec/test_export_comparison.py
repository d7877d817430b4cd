"""The comparison of an exported file with its original; a file that differs is not written."""

from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import linrec
import lmu
from linrec.commands import app
from linrec.export import Format, comparison, exported, to_c, to_program
from linrec.export import compare as compare_export
from tests.linrec.exported import single
from tests.linrec.test_c_source import needs_compiler

swing = linrec.LinearRecurrence([[0.9, -0.2], [0.2, 0.9]], [[1.0], [0.0]], [[0.0, 1.0]])
FORMS = [("step", "torch"), ("scan", "torch"), ("fft", "torch"), ("step", "c"), ("conv", "onnx")]


@needs_compiler
@pytest.mark.parametrize("form, format", FORMS)
def test_what_was_exported_is_within_its_bound(form: str, format: str) -> None:
    if format == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    content = exported(swing, form, format, length=50)
    report = compare_export(content, swing, form, format, length=50)
    assert (report.sequences, report.steps) == (3, 33) and report.size > 1
    assert report.share is not None and 0 < report.share <= 1
    # Of something else: a digit of one entry, which no eye would see.
    other = linrec.LinearRecurrence(swing.A.to_dense() * (1 + 1e-4), swing.B, swing.C)
    wrong = compare_export(content, other, form, format, length=50)
    assert wrong.share is not None and wrong.share > 1


@needs_compiler
def test_the_text_of_a_header_is_compared_as_its_file_is() -> None:
    text = to_c(swing)
    assert compare_export(text, swing, "step", "c") == compare_export(
        exported(swing, "step", "c"), swing, "step", "c"
    )
    for content, format in ((text, "torch"), (None, "c")):
        with pytest.raises(TypeError, match=r"`content` is of type .*: expected bytes"):
            compare_export(content, swing, "step", format)  # type: ignore[arg-type]  # tested


@needs_compiler
def test_complex_systems_are_compared_in_c_as_well() -> None:
    turning = single("diagonal complex", "ABCD")
    report = compare_export(exported(turning, "step", "c"), turning, "step", "c")
    assert report.share is not None and 0 < report.share <= 1


class Words(nn.Module):
    """A layer over words."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.layer = nn.Embedding(9, 3), linrec.nn.EMA(3)

    def step(self, input: torch.Tensor, state: torch.Tensor | None = None) -> linrec.Result:
        return self.layer.step(self.table(input), state)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layer(self.table(inputs)).outputs


@needs_compiler
@pytest.mark.parametrize("form, format", [("step", "c"), ("step", "torch"), ("conv", "torch")])
def test_modules_that_read_words(form: str, format: str) -> None:
    torch.manual_seed(0)
    network, words = Words(), torch.randint(9, (2, 40))
    content = exported(network, form, format, example=words, length=40)
    report = compare_export(content, network, form, format, example=words, length=40)
    assert report.share is None and report.steps == 40
    assert report.difference <= 1e-6 * report.size and network.training


def test_a_command_says_how_far_the_file_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("memories.py").write_text(
        "import linrec\nmemory = linrec.LinearRecurrence([[0.9]], [[0.1]])\n",
        encoding="utf-8",
    )
    words = ["export", "memories.py:memory", "--format", "torch", "--output", "memory.pt2"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0 and "of the bound of its error (3 sequences" in done.output
    done = CliRunner().invoke(app, [*words, "--no-compare"])
    assert done.exit_code == 0 and "difference" not in done.output

    Path("memory.pt2").unlink()
    load = comparison.load_export

    def spoiled(content: bytes, format: Format) -> comparison.Runner:
        running = load(content, format)
        return lambda *given: [each * (1 + 1e-5) for each in running(*given)]

    monkeypatch.setattr(comparison, "load_export", spoiled)
    done = CliRunner().invoke(app, words)
    assert done.exit_code != 0 and "was not written" in " ".join(done.output.split())
    assert not Path("memory.pt2").exists()


def test_where_there_is_no_compiler_nothing_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(comparison.shutil, "which", lambda _: None)
    Path("memories.py").write_text(
        "import lmu\nmemory = lmu.LegendreMemory(1, 4, 20.0)\n", encoding="utf-8"
    )
    words = ["export", "memories.py:memory", "--format", "c", "--output", "memory.h"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0 and "Not compared: there is no compiler" in done.output
    assert Path("memory.h").exists()


def test_a_module_without_a_bound_has_a_difference() -> None:
    torch.manual_seed(0)
    layer = lmu.ParallelLMU(3, 5, channels=2, order=4, theta=8)
    report = compare_export(exported(layer, "scan", "torch"), layer, "scan", "torch")
    assert report.share is None and "of the bound" not in str(report)
    assert report.difference <= 1e-5 * report.size


@needs_compiler
@pytest.mark.parametrize("content", [b"", b"x", b"PK\x03\x04 and no more"])
@pytest.mark.parametrize("format", ["torch", "onnx", "c"])
def test_damaged_content_is_refused_in_a_sentence(format: str, content: bytes) -> None:
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    with pytest.raises(ValueError, match=r"`content` cannot be (read|compiled)"):
        compare_export(content, swing, "step", format)


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_floats_are_written_in_c_as_floats(dtype: torch.dtype) -> None:
    average = linrec.LinearRecurrence([[0.5, 0.1], [0.0, 0.7]], [[0.5], [0.2]]).to(dtype)
    content = exported(average, "step", "c")
    assert b"float" in content
    assert (compare_export(content, average, "step", "c").share or 2.0) <= 1


CONSTANT = linrec.LinearRecurrence([[0.5]], [[0.5]])
TURNED = linrec.LinearRecurrence(linrec.Diagonal(torch.tensor([0.5 + 0.5j])))


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (
            linrec.LinearRecurrence(torch.rand(8, 2, 2), time_varying=True),
            "varies with time: expected one that is the same at every step",
        ),
        (linrec.LinearRecurrence(linrec.Diagonal(torch.rand(3, 2))), r"batch of systems, \(3,\)"),
    ],
)
@pytest.mark.parametrize("format", ["torch", "onnx"])
@pytest.mark.parametrize("form", ["step", "scan", "conv", "fft"])
def test_systems_without_one_form_are_named(
    target: linrec.LinearRecurrence, said: str, form: str, format: str
) -> None:
    if format == "onnx":
        pytest.importorskip("onnxscript")
    with pytest.raises(ValueError, match=said):
        exported(target, form, format, length=9)


def test_what_a_runtime_lacks_is_said() -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    double = CONSTANT.to(torch.float64)
    content = exported(double, "conv", "onnx", length=9)
    with pytest.raises(ValueError, match=r"onnxruntime cannot run the model .*Cast to float32"):
        compare_export(content, double, "conv", "onnx", length=9)
    with pytest.raises(ValueError, match=r"no bfloat16.*\.to\(torch\.float32\)"):
        exported(CONSTANT.to(torch.bfloat16), "scan", "onnx")
    for format in ("torch", "onnx"):
        with pytest.raises(ValueError, match=r"is complex.*linrec\.real_part"):
            exported(TURNED, "conv", format, length=9)


def test_a_batch_of_systems_goes_by_an_example() -> None:
    bank = linrec.LinearRecurrence(linrec.Diagonal(torch.rand(3, 4)), torch.randn(3, 4, 1))
    program = to_program(linrec.nn.Recurrence(bank), "scan", example=torch.zeros(2, 3, 8, 1))
    inputs = torch.randn(5, 3, 11, 1)
    outputs, _ = program.module()(inputs, torch.zeros(5, 3, 4))
    torch.testing.assert_close(outputs, linrec.run(bank, inputs).outputs)
