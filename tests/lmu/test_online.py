"""Networks that learn while they predict: no look ahead, no memory of other series, plain cases."""

import io
import wave
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from linrec.nn import MinGRU, OnlineLayer
from lmu.experiments import EXPERIMENTS, Budget, Run
from lmu.experiments.data import sparse_mackey_glass, speech_samples
from lmu.experiments.models import OnlineReader, RecursiveLeastSquares
from lmu.experiments.models.online import OnlineNetwork
from lmu.layers import LSTM
from lmu.memory import LegendreMemory

NETWORKS: dict[str, Callable[[float], OnlineNetwork]] = {
    "memory": lambda rate: reader(LegendreMemory(1, 4, 6.0), 4, rate),
    "exact": lambda rate: reader(OnlineLayer(MinGRU(1, 4)), 4, rate),
    "truncated": lambda rate: reader(LSTM(1, 3), 3, rate, 5),
    "of the present": lambda rate: reader(LSTM(1, 3), 3, rate),
    "least squares": lambda rate: RecursiveLeastSquares(3),
}


def reader(layer: nn.Module, size: int, rate: float, reach: int = 1) -> OnlineReader:
    optimizer = partial(torch.optim.SGD, lr=rate)
    return OnlineReader(layer, nn.Linear(size, 1), optimizer, reach)  # pyright: ignore[reportArgumentType]


def made(name: str, rate: float = 0.05) -> OnlineNetwork:
    torch.manual_seed(0)
    return NETWORKS[name](rate)


def series(count: int = 2, steps: int = 24) -> Tensor:
    return torch.randn(count, steps, 1, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NETWORKS)
def test_what_comes_later_moves_no_bit_of_a_prediction(name: str) -> None:
    network, inputs = made(name), series()
    changed = inputs.clone()
    changed[:, 15:] += 1
    before, after = network(inputs), network(changed)
    assert torch.equal(before[:, :15], after[:, :15])
    assert not torch.equal(before[:, 15:], after[:, 15:])


@pytest.mark.parametrize("name", NETWORKS)
def test_every_series_is_begun_anew(name: str) -> None:
    network, inputs = made(name), series()
    together = network(inputs)
    assert torch.equal(together, network(inputs))
    for one, each in zip(together, inputs, strict=True):
        assert torch.equal(network(each[None])[0], one)
    assert network.milliseconds > 0 and network(inputs[:0]).shape == (0, 24, 1)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "least squares"])
def test_without_learning_it_is_the_layer(name: str) -> None:
    """At a rate of 0 the predictions are those of one run over the series."""
    network, inputs = made(name, 0.0), series()
    assert isinstance(network, OnlineReader)
    expected = network.readout(network.layer(inputs)[0])
    torch.testing.assert_close(network(inputs), expected, rtol=1e-5, atol=1e-6)


def test_the_first_step_is_taken_down_the_gradient() -> None:
    """Of an LSTM that looks back over everything: the update is that of the last error alone."""
    network, inputs = made("truncated", 0.1), series(1, 3)
    plain = made("truncated", 0.1)
    assert isinstance(network, OnlineReader) and isinstance(plain, OnlineReader)
    optimizer = torch.optim.SGD([p for p in plain.parameters() if p.requires_grad], lr=0.1)
    expected = []
    for now in range(3):
        outputs = plain.readout(plain.layer(inputs[:, : now + 1])[0])[0, -1]
        expected.append(outputs.detach())
        if now < 2:
            optimizer.zero_grad()
            (outputs - inputs[0, now + 1]).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(network(inputs)[0], torch.stack(expected), rtol=1e-5, atol=1e-6)


def test_recursive_least_squares_are_least_squares() -> None:
    """With forgetting and the ridge that it begins with, against numpy at every sample."""
    forgetting, inputs = 0.95, series(1, 20)[0]
    got = RecursiveLeastSquares(3, forgetting)(inputs[None])[0, :, 0].double().numpy()
    samples = inputs[:, 0].double().numpy()
    rows = np.array(
        [[samples[t - d] if t >= d else 0.0 for d in range(3)] + [1] for t in range(20)]
    )
    for now in range(20):
        root = np.sqrt(forgetting ** np.arange(now - 1, -1, -1.0))[:, None]
        ridge = np.sqrt(1e-4 * forgetting**now) * np.eye(4)
        left = np.concatenate([root * rows[:now], ridge])
        right = np.concatenate([root[:, 0] * samples[1 : now + 1], np.zeros(4)])
        weights = np.linalg.lstsq(left, right, rcond=None)[0]
        assert abs(rows[now] @ weights - got[now]) < 1e-5 * max(1, abs(got[now]))


def test_series_of_mackey_glass_are_spaced() -> None:
    data = sparse_mackey_glass(3, series=2, length=50)
    assert data.test.inputs.shape == data.validation.targets.shape == (2, 50, 1)
    assert torch.equal(data.test.inputs[:, 1:], data.test.targets[:, :-1])
    assert len(data.train.inputs) == 0
    assert not torch.equal(data.test.inputs, data.validation.inputs)


def recordings(folder: Path, takes: int) -> None:
    (folder / "fsdd").mkdir()
    with zipfile.ZipFile(folder / "fsdd/recordings.zip", "w") as archive:
        for number, take in enumerate(range(takes)):
            content = io.BytesIO()
            with wave.open(content, "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(8_000)
                file.writeframes(np.full(10, 100 * (number + 1), "<i2").tobytes())
            archive.writestr(f"recordings/3_ann_{take}.wav", content.getvalue())


def test_speech_is_recording_after_recording(tmp_path: Path) -> None:
    recordings(tmp_path, takes=10)
    data = speech_samples(0, tmp_path, series=1, length=25)
    heard = data.test.inputs[0, :, 0]
    ratios = heard / heard[0]
    torch.testing.assert_close(ratios[[0, 9, 10, 19, 20]], torch.tensor([1.0, 1, 2, 2, 3]))
    assert data.validation.inputs.square().mean().sqrt() == pytest.approx(1, rel=0.05)
    with pytest.raises(ValueError, match=r"has 50 samples of ann.*expected more than 60"):
        speech_samples(0, tmp_path, series=1, length=60)


def test_a_run_scores_the_second_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = EXPERIMENTS["online-mackey-glass"]
    short = partial(sparse_mackey_glass, length=60)
    monkeypatch.setattr("lmu.experiments.online_regression.sparse_mackey_glass", short)
    run = Run(experiment, tmp_path / "run", model="least-squares", budget=Budget.QUICK)
    record, _ = run.train()
    assert list(record.figures) == ["NRMSE", "ms of CPU a sample"] and record.parameters == 17
    late = (run.network(run.data.test.inputs) - run.data.test.targets)[:, 30:].square().sum()
    expected = (late / run.data.test.targets[:, 30:].square().sum()).sqrt().item()
    assert record.score == pytest.approx(expected, rel=1e-6)
