"""`linrec plot`: every line has its name, and trained modules can be drawn."""

import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import linrec
from linrec.commands import app
from linrec.commands.plot import draw_responses
from linrec.response import frequency_response, impulse_response, poles

pytest.importorskip("matplotlib")

BANK = linrec.LinearRecurrence(
    torch.tensor([[[0.9, 0.2], [-0.2, 0.9]], [[0.5, 0.0], [0.0, -0.5]]]),
    B=torch.eye(2),
    C=[[1.0, 0.5]],
)


def test_lines_and_poles_say_which_they_are() -> None:
    figure = draw_responses(BANK, 40, "bank.py:bank")
    axes = {each.get_title(): each for each in figure.axes}
    assert list(axes) == ["Impulse response", "Step response", "Poles", "Gain", "Phase (degrees)"]
    assert figure.get_suptitle() == "bank.py:bank: 2 systems, each of 2 states, 2 inputs, 1 output"
    named = [text.get_text() for text in axes["Impulse response"].get_legend().get_texts()]
    assert named == [f"system {s}, u{i} → y1" for s in (0, 1) for i in (1, 2)]
    for line, (system, channel) in zip(
        axes["Impulse response"].get_lines(), [(0, 0), (0, 1), (1, 0), (1, 1)], strict=True
    ):
        expected = impulse_response(BANK, 40)[system, :, 0, channel]
        torch.testing.assert_close(torch.as_tensor(line.get_ydata()), expected)
    places = axes["Poles"].get_lines()[1:]
    assert [line.get_label() for line in places] == ["system 0", "system 1"]
    for line, own in zip(places, poles(BANK), strict=True):
        assert line.get_xdata().tolist() == own.real.tolist()
        assert line.get_ydata().tolist() == own.imag.tolist()


def test_the_phase_of_a_delay_falls_by_its_length() -> None:
    delay = linrec.memories.delay_line(3)
    figure = draw_responses(delay, 10, "delay")
    phase = next(each for each in figure.axes if each.get_title() == "Phase (degrees)")
    frequencies = torch.linspace(0, torch.pi, 400, dtype=torch.float64)
    angles = frequency_response(delay, frequencies).angle()
    wound = torch.deg2rad(torch.stack([torch.as_tensor(line.get_ydata()) for line in phase.lines]))
    for line, row in zip(wound, angles.flatten(1).mT, strict=True):  # the same, modulo 2π
        torch.testing.assert_close(torch.exp(1j * line), torch.exp(1j * row))
        assert float((line.diff()).abs().max()) < 0.1  # no jumps


def test_complex_systems_have_dashed_imaginary_parts() -> None:
    ringing = linrec.LinearRecurrence(linrec.Diagonal(torch.tensor([0.9 * 1j**0.5])))
    figure = draw_responses(ringing, 20, "ringing")
    impulse = figure.axes[0]
    assert impulse.get_title() == "Impulse response (dashed: imaginary)"
    assert [line.get_linestyle() for line in impulse.get_lines()] == ["-", "--"]


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "trained.py").write_text(
        "import torch, linrec, lmu\n"
        "system = linrec.LinearRecurrence(torch.eye(2) / 2, [[1.0], [1.0]])\n"
        "module = linrec.nn.Recurrence(system, trainable=['A', 'B'])\n"
        "module(torch.ones(5, 1)).outputs.sum().backward()\n"
        "inside = torch.nn.Sequential(torch.nn.Linear(2, 1), module)\n"
        "both = torch.nn.ModuleDict({'a': module, 'b': linrec.nn.Recurrence(system)})\n"
        "gated = linrec.nn.MinGRU(2, 2)\n"
        "memory = lmu.LegendreMemory(2, 4, 10.0)\n"
    )
    return tmp_path


@pytest.mark.parametrize("name", ["module", "inside", "both.a", "memory"])
def test_trained_modules_are_drawn(trained: Path, name: str) -> None:
    words = ["plot", f"trained.py:{name}", "--output", "drawing.svg", "--length", "20"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert b"<svg" in (trained / "drawing.svg").read_bytes()


@pytest.mark.parametrize(
    ("name", "words"), [("both", "trained.py:both.a"), ("gated", "fixed matrices")]
)
def test_what_has_no_one_recurrence_is_refused(trained: Path, name: str, words: str) -> None:
    done = CliRunner().invoke(app, ["plot", f"trained.py:{name}"], env={"COLUMNS": "400"})
    assert done.exit_code == 2
    assert words in " ".join(done.output.replace("│", " ").split())
