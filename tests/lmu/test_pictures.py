"""Drawings: each is an image, and what it is made of is right."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from lmu.commands import app
from lmu.experiments import EXPERIMENTS
from lmu.experiments.data import mackey_glass
from lmu.experiments.models import SeriesPredictor
from lmu.experiments.pictures import (
    draw_capacity,
    draw_prediction,
    draw_scaling,
    draw_sizes,
    draw_window,
)
from lmu.experiments.pictures.capacity import errors
from lmu.experiments.pictures.scaling import count_letters
from lmu.experiments.tables import Results, read_records
from tests.lmu.test_tables import RECORD

PNG = b"\x89PNG"


def test_a_window_is_drawn() -> None:
    assert draw_window(orders=(4,), moments=(600,)).startswith(PNG)


def test_errors_are_drawn_over_delays() -> None:
    assert draw_capacity((100,)).startswith(PNG)


def test_long_windows_are_held_better_in_double_precision() -> None:
    single, double = (max(errors(4_000, dtype=dtype)) for dtype in (torch.float32, torch.float64))
    assert double < single < 0.01


def test_a_prediction_is_drawn_beside_the_truth() -> None:
    network = SeriesPredictor(hidden_size=4, dense_size=3, order=6, theta=20.0)
    data = mackey_glass(series=4, length=100)
    assert draw_prediction(network, data, last=50).startswith(PNG)


@pytest.mark.parametrize("name", ["psmnist", "mackey-glass"])
def test_scores_are_drawn_over_sizes(name: str) -> None:
    assert draw_sizes(EXPERIMENTS[name], read_records()).startswith(PNG)


def test_losses_are_drawn_over_parameters_and_letters() -> None:
    """At one size, by hand: 5,000 windows of 180 letters an epoch, as far as there are runs."""
    runs = [
        Results((replace(RECORD, experiment="scaling", model=model, epochs=epochs),))
        for model, epochs in (("blocks-400k", 6), ("blocks-400k-sixth", 1))
    ]
    assert draw_scaling(runs).startswith(PNG) and draw_scaling([]).startswith(PNG)
    assert [count_letters(run) for run in runs] == [5_400_000, 900_000]


def test_the_command_writes_what_is_asked_for(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["plot", "psmnist", "speedup", "--output", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["psmnist.png", "speedup.png"]
    result = CliRunner().invoke(app, ["plot", "--checkpoint", "none.pt"])
    assert result.exit_code == 1 and "`none.pt` is no file" in result.output
