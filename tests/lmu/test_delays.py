"""Delays: the signals are what they are said to be, and a memory gives them back untrained."""

from bisect import bisect_right
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scipy.interpolate import BarycentricInterpolator

from linrec import Auto, Chunked, Executor, FFTConvolution, Recurrent, Toeplitz
from lmu.experiments import EXPERIMENTS, Budget, Run, evaluate
from lmu.experiments.data import delay_steps, delayed_noise
from lmu.experiments.models import DelayReader, KeptSamples
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


@pytest.mark.parametrize("points", [2, 3, 4, 8])
@pytest.mark.parametrize("theta", [40, 97, 300])
def test_kept_samples_are_those_of_a_buffer(points: int, theta: int) -> None:
    """Compared with a loop over a buffer, and scipy's polynomials through the nearest samples."""
    signal = torch.randn(3 * theta, generator=torch.Generator().manual_seed(0)).double()
    delays = [0, 1, theta // 3, theta - 1]
    memory = KeptSamples(kept=12, theta=theta, delays=delays, points=points)
    with torch.no_grad():
        found = memory(signal[None, :, None])[0].double()
    buffer = [(-step * memory.spacing, 0.0) for step in range(12, 0, -1)]
    for now in range(3 * theta):
        if now % memory.spacing == 0:
            buffer = [*buffer[1:], (now, signal[now].item())]
        known = dict([*buffer, (now, signal[now].item())])
        for place, delay in enumerate(delays):
            at = now - delay
            times = sorted(known)
            before = bisect_right(times, at) - 1
            start = min(before - (points // 2 - 1), len(times) - points)
            nodes = times[start : start + points]
            polynomial = BarycentricInterpolator(nodes, [known[each] for each in nodes])
            expected = float(polynomial(at)) if at not in nodes else known[at]
            assert start >= 0 and found[now, place] == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_kept_samples_are_refused_where_they_do_not_reach() -> None:
    with pytest.raises(ValueError, match="expected 0 to 99"):
        KeptSamples(kept=12, theta=100, delays=[100])
    for points in (1, 12):
        with pytest.raises(ValueError, match="expected 2 to 11, of 12 samples"):
            KeptSamples(kept=12, theta=100, delays=[0], points=points)


def test_as_many_samples_recall_noise_better_than_the_memory() -> None:
    data = delayed_noise(theta=1_000)
    reader = DelayReader(order=100, theta=1_000, delays=delay_steps(1_000))
    samples = KeptSamples(kept=100, theta=1_000, delays=delay_steps(1_000))
    with torch.no_grad():
        errors = [
            NRMSE.score([(network(data.test.inputs), data.test.targets)])
            for network in (reader, samples)
        ]
    assert errors[1] < errors[0] / 4


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
