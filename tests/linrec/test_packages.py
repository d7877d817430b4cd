"""AOTInductor packages give their originals' results, from Python and from C++."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import linrec
import lmu
from linrec.export import Form, Format, exported, to_package
from linrec.export.comparison import load_export
from linrec.export.forms import example_of
from linrec.export.program import trace_form
from linrec.testing import error_bound
from tests.cases import data
from tests.linrec.exported import LENGTH, SIZES, largest_share, single

COMPILER = shutil.which("g++")
DOCS = Path(__file__).resolve().parents[2] / "docs"
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="there is no compiler of C++")

# A third of a minute each. Of a diagonal system torch's own settings compile no `scan`.
CASES = [
    ("dense", "ABCD", Form.STEP),
    ("dense", "ABCD", Form.SCAN),
    ("dense", "ABCD", Form.CONV),
    ("dense", "ABCD", Form.FFT),
    ("diagonal", "AD", Form.STEP),
    ("diagonal", "AD", Form.SCAN),
    ("legendre", "AB, 3 copies", Form.SCAN),
    ("low rank", "ABCD", Form.SCAN),
]


def strides(program: torch.export.ExportedProgram) -> list[bool]:
    """Say of each input whether the program was traced with a contiguous one."""
    given = [node for node in program.graph.nodes if node.op == "placeholder"]
    names = set(program.graph_signature.user_inputs)
    return [node.meta["val"].is_contiguous() for node in given if node.name in names]


@pytest.mark.parametrize("form", Form)
def test_programs_are_traced_with_contiguous_inputs(form: Form) -> None:
    """What is compiled from them reads its inputs by the strides of the example."""
    memory = lmu.LegendreMemory(channels=3, order=4, theta=9)
    apart = torch.zeros(3, 4, 8).permute(1, 2, 0)  # (batch, time, channels)
    for example in (None, apart, apart[:1]):
        made = example_of(memory, form, example, 8)
        assert all(each.is_contiguous() for each in made.arguments)
        assert all(strides(trace_form(memory, form, example, 8)[0]))


def test_loops_hand_over_the_sizes_that_are_open() -> None:
    """Inductor makes room for the states by them."""
    program, _ = trace_form(single("dense", "ABCD"), "scan", None, None)
    (loop,) = [node for node in program.graph.nodes if "scan" in str(node.target)][-1:]
    assert any(isinstance(each.meta["val"], torch.SymInt) for each in loop.args[3])


def test_what_cannot_be_compiled_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_found(*_: object, **__: object) -> None:
        raise RuntimeError("no working compiler among ['g++']")

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", none_found)
    with pytest.raises(ValueError, match=r"cannot be compiled.*needs a compiler of C\+\+"):
        to_package(linrec.LinearRecurrence([[0.5]], [[0.25]]), "step")


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("transition, system, form", CASES)
def test_packages_compute_the_recurrence_within_its_bound(transition, system, form) -> None:
    recurrence = single(transition, system)
    running = load_export(exported(recurrence, form, "package", length=LENGTH), Format.PACKAGE)
    for length, batch in SIZES:
        assert largest_share(recurrence, form, running, length, batch) <= 1


@needs_compiler
@pytest.mark.slow
def test_the_program_of_the_page_streams_samples(tmp_path: Path) -> None:
    """Compiled as the page says, and fed with a thousand samples."""
    recurrence = single("dense", "ABCD")
    (tmp_path / "memory.pt2").write_bytes(to_package(recurrence, "step"))
    page = (DOCS / "export.md").read_text()
    (source,) = re.findall(r"```cpp\n(.*?)```", page, re.DOTALL)
    assert len(source.splitlines()) < 35
    (tmp_path / "stream.cpp").write_text(source)
    (typed,) = re.findall(r"(torch=\$\(python.*?)\./stream", page, re.DOTALL)
    subprocess.run(["bash", "-c", typed], cwd=tmp_path, check=True, timeout=400)
    inputs, _ = data(recurrence, 1000)
    words = ["./stream", "memory.pt2", str(recurrence.input_size), str(recurrence.state_size)]
    ran = subprocess.run(
        words, cwd=tmp_path, input=inputs.numpy().tobytes(), capture_output=True, check=True
    )
    got = torch.from_numpy(np.frombuffer(ran.stdout, np.float32).copy())
    exact = linrec.run(recurrence.to(torch.float64), inputs.double()).outputs
    bound = error_bound(recurrence, inputs, linrec.Recurrent()).outputs
    assert ((got.reshape(exact.shape) - exact).abs() <= bound).all()
