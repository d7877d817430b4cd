"""Free runs: of a recurrence that is known exactly, and of networks with and without a state."""

import math

import pytest
import torch
from torch import Tensor, nn

import lmu
from lmu.experiments.free_run import run_free, useful_steps
from lmu.experiments.models import DelayPolynomial, LayerPredictor, Network, SeriesPredictor

AHEAD = 3


def waves(steps: int) -> Tensor:
    """x_{t+3} = 2 cos(3ω) x_t - x_{t-3}: three interleaved oscillations."""
    phases = torch.tensor([0.0, 1.3]).unsqueeze(-1)
    return (0.2 * torch.arange(steps) + phases).sin().unsqueeze(-1)


class Line(Network):
    """What the waves obey, without a state."""

    def features(self, inputs: Tensor) -> Tensor:
        return inputs

    def head(self, features: Tensor) -> Tensor:
        late = nn.functional.pad(features, (0, 0, AHEAD, 0))[:, : features.shape[1]]
        return 2 * math.cos(0.2 * AHEAD) * features - late

    def stream(self, inputs: Tensor) -> Tensor:
        return self(inputs)


def test_a_network_that_is_right_stays_right() -> None:
    series = waves(200)
    said = run_free(Line(), series[:, :50], 100, AHEAD)
    torch.testing.assert_close(said, series[:, 50:150], rtol=0, atol=1e-3)
    assert useful_steps(Line(), series, known=50, steps=100, ahead=AHEAD) == 100


NETWORKS = {
    "lmu": lambda: SeriesPredictor(hidden_size=4, dense_size=3, order=4, theta=9.0).double(),
    "lstm": lambda: LayerPredictor(lmu.layers.LSTM(1, 4)).double(),
    "polynomial": lambda: DelayPolynomial([0, 1, 4], 2).fit(waves(90), -waves(90)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_what_a_run_over_its_own_predictions_says(name: str) -> None:
    """Read as one series, known samples and predictions give these very predictions."""
    torch.manual_seed(0)
    network, known = NETWORKS[name](), waves(20).double()
    said = run_free(network, known, 15, AHEAD)
    read = torch.cat([known, said], 1)
    torch.testing.assert_close(network(read)[:, 20 - AHEAD : 35 - AHEAD], said)
    assert run_free(network, known, 0, AHEAD).shape == (2, 0, 1)


@pytest.mark.parametrize("where", [0, 7])
def test_the_first_error_of_the_size_of_the_series_is_found(where: int) -> None:
    series = waves(200)
    spoiled = series.clone()
    spoiled[:, 50 + where] += 5
    assert useful_steps(Line(), spoiled, known=50, steps=100, ahead=AHEAD) == where
