"""The command `linrec export`: the files that it writes and the arguments that it refuses."""

import io
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import linrec
from linrec.commands import app

MINE = """\
import torch
import linrec

lag = linrec.StateSpace([[-1.0]], [[1.0]])
average = linrec.LinearRecurrence([[0.9]], [[0.1]])
gates = linrec.nn.MinGRU(3, 4)
"""


@pytest.fixture(autouse=True)
def mine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])


def typed(*words: str, fails: bool = False) -> str:
    done = CliRunner().invoke(app, ["export", *words])
    assert (done.exit_code != 0) == fails, done.output
    return " ".join(done.output.replace("│", " ").split())


def test_a_header_of_c_has_the_names_of_its_file() -> None:
    told = typed("mine.py:average", "--format", "c", "--output", "my-average.h")
    assert "my-average.h" in told and "form step, format c" in told
    assert "my_average_step" in Path("my-average.h").read_text(encoding="utf-8")


def test_a_program_of_torch_is_read_again() -> None:
    typed("mine.py:lag", "--dt", "0.5", "--format", "torch", "--output", "lag.pt2")
    program = torch.export.load(io.BytesIO(Path("lag.pt2").read_bytes())).module()
    system = linrec.discretize(linrec.StateSpace([[-1.0]], [[1.0]]), 0.5)
    input, state = torch.ones(3, 1), torch.full((3, 1), 2.0)
    torch.testing.assert_close(program(input, state)[1], linrec.step(system, input, state)[1])


def test_whole_numbers_are_written_in_c() -> None:
    words = ("mine.py:average", "--format", "c", "--weights", "int8", "--length", "100")
    typed(*words, "--largest-input", "2", "--output", "small.h")
    assert "static const int8_t A[1]" in Path("small.h").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "words, said",
    [
        (("mine.py:average", "--format", "c", "--weights", "int8"), "need a length"),
        (("mine.py:average", "--weights", "int8", "--length", "9"), "type the format `c`"),
        (("mine.py:average", "--form", "conv"), "needs a length"),
        (("mine.py:average", "--form", "scan", "--format", "c"), "type the form `step`"),
        (("mine.py:gates", "--format", "c", "--weights", "int8", "--length", "9"), "more than one"),
        (("mine.py:gates", "--form", "fft", "--length", "9"), "has no kernel"),
        (("mine.py:gates", "--form", "loop"), "is not one of"),
        (("mine.py:nothing",), "has no `nothing`"),
        (("mine.py:average", "--dt", "0.1"), "leave it out"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(words: tuple, said: str) -> None:
    assert said in typed(*words, "--output", "out", fails=True)
    assert not Path("out").exists()


def test_a_place_that_cannot_be_written_is_named() -> None:
    told = typed("mine.py:average", "--format", "c", "--output", "nowhere/a.h", fails=True)
    assert "--output: `nowhere/a.h` cannot be written (No such file or directory)" in told


def test_a_file_is_written_whole_or_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.h").write_text("before", encoding="utf-8")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert "No space left" in typed(
        "mine.py:average", "--format", "c", "--output", "a.h", fails=True
    )
    assert Path("a.h").read_text(encoding="utf-8") == "before"
    assert sorted(path.name for path in Path().glob("*a.h*")) == ["a.h"]
