"""Delays: the signals are what they are said to be, and a memory gives them back untrained."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from linrec import Auto, Chunked, Executor, FFTConvolution, Recurrent, Toeplitz
from lmu.experiments import EXPERIMENTS, Budget, Run, evaluate
from lmu.experiments.data import delay_steps, delayed_noise
from lmu.experiments.models import DelayReader
from lmu.experiments.training import NRMSE

QUICK = EXPERIMENTS["capacity"]


def test_targets_are_the_inputs_of_before() -> None:
    inputs, targets = delayed_noise(theta=80).test
    assert inputs.shape == (4, 160, 1) and targets.shape == (4, 160, 5)
    for place, delay in enumerate(delay_steps(80)):
        assert torch.equal(targets[:, delay:, place], inputs[:, : 160 - delay, 0])
        assert not targets[:, :delay, place].any()
    assert delay_steps(80) == (0, 20, 40, 60, 79)


def test_signals_are_of_a_low_band_and_fade_in() -> None:
    signals = delayed_noise(theta=400, windows=8).test.inputs.double()[..., 0]
    # What fades in is not band-limited: the last windows are, up to what a Hann window spreads.
    settled = signals[:, 400:] * torch.hann_window(2_800, periodic=True, dtype=torch.float64)
    power = torch.fft.rfft(settled).abs().square()
    above = power[:, 7 * 10 + 8 :].sum(-1) / power.sum(-1)
    assert above.max() < 1e-4
    assert not signals[:, 0].any()
    assert 0.4 < signals[:, 400:].square().mean().sqrt() < 0.6
    assert not torch.equal(signals, delayed_noise(1, theta=400, windows=8).test.inputs[..., 0])


def test_a_window_that_is_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at least 40 steps"):
        delayed_noise(theta=39)


@pytest.mark.parametrize(
    "executor", [Recurrent(), Toeplitz(), FFTConvolution(), Chunked(), Auto()], ids=repr
)
def test_every_executor_remembers(executor: Executor) -> None:
    data = delayed_noise(theta=1_000)
    reader = DelayReader(order=100, theta=1_000, delays=delay_steps(1_000), executor=executor)
    with torch.no_grad():
        assert NRMSE.score([(reader(data.test.inputs), data.test.targets)]) < 0.01


@pytest.mark.parametrize(("order", "least", "most"), [(10, 0.5, 1.0), (90, 0.0, 0.01)])
def test_ten_cycles_need_more_than_ten_polynomials(order: int, least: float, most: float) -> None:
    data = delayed_noise(theta=1_000)
    reader = DelayReader(order=order, theta=1_000, delays=delay_steps(1_000))
    with torch.no_grad():
        assert least < NRMSE.score([(reader(data.test.inputs), data.test.targets)]) < most


def test_the_experiment_runs_without_epochs_and_streams(tmp_path: Path) -> None:
    short = replace(QUICK, data=lambda seed, folder, budget: delayed_noise(seed, theta=200))
    run = Run(short, tmp_path / "run", budget=Budget.QUICK)
    record, outcome = run.train()
    assert (record.epochs, record.best_epoch, outcome.history) == (0, 0, [])
    assert list(record.figures)[:2] == ["NRMSE", "delay 0"] and len(record.figures) == 6
    assert record.score < 0.1
    result = evaluate(short, tmp_path / "run" / "best.safetensors", streaming=True)
    assert result.score == pytest.approx(record.score)
    assert result.largest_difference is not None and result.largest_difference < 1e-4
    again, _ = Run(short, tmp_path / "run", budget=Budget.QUICK, resume=True).train()
    assert again.figures == record.figures
