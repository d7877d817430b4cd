"""`lmu export`: a trained network is written, and is the network."""

import io
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from lmu.commands import app
from lmu.experiments import EXPERIMENTS, Experiment, restore


@pytest.fixture(autouse=True)
def trained(tiny: Experiment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(EXPERIMENTS, "tiny", tiny)
    monkeypatch.chdir(tmp_path)
    typed("train", "tiny", "--epochs", "1", "--output", "here")


def typed(*words: str, fails: bool = False) -> str:
    done = CliRunner().invoke(app, words)
    assert (done.exit_code != 0) == fails, done.output
    return done.output


def exported(*words: str, fails: bool = False) -> str:
    return typed("export", "tiny", "--checkpoint", "here/best.safetensors", *words, fails=fails)


def test_a_trained_network_is_exported(tiny: Experiment) -> None:
    network, _, data = restore(tiny, "here/best.safetensors")
    network.eval()
    inputs = data.test.inputs[:5]
    for form in ("scan", "conv", "fft", "step"):
        told = exported("--form", form, "--format", "torch", "--output", "net.pt2")
        assert f"form {form}, format torch" in told
        program = torch.export.load(io.BytesIO(Path("net.pt2").read_bytes())).module()
        with torch.no_grad():
            expected = network(inputs)
            if form != "step":
                got = program(inputs)
            else:
                state = torch.zeros(5, 8)
                for input in inputs.unbind(1):
                    got, state = program(input, state)
        torch.testing.assert_close(got, expected)


def test_what_cannot_be_is_refused() -> None:
    refused = exported("--format", "c", "--output", "net.h", fails=True)
    assert refused.startswith("error: C is written for a recurrence")
    assert "C is written for one step" in exported(
        "--form", "scan", "--format", "c", "--output", "net.h", fails=True
    )
    assert not Path("net.h").exists()
