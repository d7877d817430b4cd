"""`lmu export`: a trained network is written, and is the network."""

import io
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import lmu
from linrec.export import to_program
from lmu.commands import app
from lmu.experiments import EXPERIMENTS, Experiment, restore
from lmu.experiments.models import (
    DeepClassifier,
    LayerClassifier,
    LayerPredictor,
    PairClassifier,
    TextClassifier,
    TextReader,
    Words,
)
from lmu.layers import LSTM
from tests.lmu.text_networks import COUNT, blocks, language_model, translator


@pytest.fixture
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


def test_a_trained_network_is_exported(trained: None, tiny: Experiment) -> None:
    network, _, data = restore(tiny, "here/best.safetensors")
    network.eval()
    inputs = data.test.inputs[:5]
    for form in ("scan", "conv", "fft", "step"):
        told = exported("--form", form, "--format", "torch", "--output", "net.pt2")
        assert f"form {form}, format torch" in told
        program = torch.export.load(io.BytesIO(Path("net.pt2").read_bytes())).module()
        with torch.no_grad():
            expected = network(inputs)
            if form in ("conv", "fft"):
                got = program(inputs)
            elif form == "scan":
                _, state = program(inputs[:, :7], torch.zeros(5, 8))
                got, _ = program(inputs[:, 7:], state)
            else:
                state = torch.zeros(5, 8)
                for input in inputs.unbind(1):
                    got, state = program(input, state)
        torch.testing.assert_close(got, expected)


def texts(seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    words = torch.randint(1, COUNT, (3, 11))
    words[0, 5:] = 0
    return words


NETWORKS = {
    "LSTM": lambda: LayerClassifier(LSTM(2, 4), classes=3),
    "unit of 2019": lambda: LayerPredictor(
        lmu.LMU(2, 1, 4, 8.0, hidden=nn.RNNCell(4, 5), hidden_to_memory=True)
    ),
    "deep classifier": lambda: DeepClassifier(
        classes=3, hidden_sizes=(10, 8), order=7, theta=30.0, dropout=0.5
    ),
    "texts": lambda: TextClassifier(TextReader(Words(COUNT, 6), LSTM(6, 5)), 2),
    "pairs": lambda: PairClassifier(
        TextReader(Words(COUNT, 6), lmu.ParallelLMU(6, 5, 2, 3, 10.0)), 1
    ),
    "language": lambda: language_model(blocks(1)),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.sampled(2)
def test_scans_of_networks_go_on_from_a_state(name: str) -> None:
    """Whatever a network is, its `scan` has a state, and blocks join to the whole."""
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    words = {"texts": texts(), "pairs": torch.stack([texts(), texts(1)], 1)}
    inputs = words.get(name, torch.randn(3, 11, getattr(network, "input_size", 1)))
    if name == "language":
        inputs = texts().clamp(min=1)
    time = network.time_axis
    program = to_program(network, "scan", example=inputs[:2]).module()
    with torch.no_grad():
        state = torch.zeros_like(network.step(inputs.select(time, 0))[1])
        expected = network(inputs)
        parts = []
        for block in inputs.split([4, 1, 6], time):
            outputs, state = program(block.contiguous(), state)
            parts.append(outputs)
    got = torch.cat(parts, 1) if expected.shape[1:2] == (11,) else parts[-1]
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_a_step_of_more_than_input_and_state_is_refused() -> None:
    network = translator(blocks)
    words = torch.randint(4, COUNT, (2, 2, 6))
    with pytest.raises(ValueError, match="has no `step"):
        to_program(network, "step", example=words)


def test_the_step_of_a_network_is_written_in_c(trained: None) -> None:
    exported("--format", "c", "--output", "net.h")
    assert "static inline void net_step(net_t *self" in Path("net.h").read_text(encoding="utf-8")


def test_what_cannot_be_is_refused(trained: None) -> None:
    assert "C is written for one step" in exported(
        "--form", "scan", "--format", "c", "--output", "net.h", fails=True
    )
    assert not Path("net.h").exists()
