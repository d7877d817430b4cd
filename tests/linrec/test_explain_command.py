"""The command `linrec explain`: the arguments that it refuses."""

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from linrec.commands import app


@pytest.fixture(autouse=True)
def mine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = "import linrec\nsystem = linrec.StateSpace([[-1.0]], [[1.0]])\n"
    (tmp_path / "mine.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.mark.parametrize("dt", ["0", "-1", "nan"])
def test_a_time_step_that_is_not_positive_is_refused(dt: str) -> None:
    done = CliRunner().invoke(app, ["explain", "mine.py:system", "--dt", dt])
    told = " ".join(done.output.replace("│", " ").split())
    assert done.exit_code == 2 and f"--dt: `dt` is {float(dt)}: expected a positive step" in told


def test_a_time_step_is_taken() -> None:
    done = CliRunner().invoke(app, ["explain", "mine.py:system", "--dt", "0.5"])
    assert done.exit_code == 0 and "<- chosen" in done.output
