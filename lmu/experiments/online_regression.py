"""Online learning: predict each sample of a series from those before it, then learn from it.

Nothing is trained beforehand, and no sample is seen twice. The score is of the predictions for the
second half, each made before its sample was seen. One step of Adam follows each sample.

`lmu` is a memory of order 16 over 32 samples, which has no weights, followed by a rectified layer
of 24, so that its gradient is exact. `min-gru` has weights before its recurrence, which is
diagonal: `linrec.nn.OnlineLayer` carries the exact derivative forward, one number per weight.
`lstm` learns by backpropagation through the last 16 samples, `lstm-1` only through the current
one. `least-squares`, the plain baseline, fits a linear function of the last 16 samples to all
samples so far.

All networks have 400 to 600 weights. Rates of 0.001, 0.003 and 0.01 were tried for each, on the
validation series of seed 0.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from linrec.nn import MinGRU, OnlineLayer
from lmu.experiments.data import Dataset, sparse_mackey_glass, speech_samples
from lmu.experiments.experiment import Budget, Experiment, Folder, Model, TrainingSetup
from lmu.experiments.models import Network, OnlineReader, RecursiveLeastSquares
from lmu.experiments.models.online import OnlineNetwork
from lmu.experiments.training import NRMSE, Recipe
from lmu.experiments.training.recipe import sum_squares
from lmu.layers import LSTM
from lmu.memory import LegendreMemory


def sum_late_squares(predictions: Tensor, targets: Tensor) -> Tensor:
    """Sum the squares of the errors and of the targets over the second half of each series."""
    half = targets.shape[1] // 2
    return sum_squares(predictions[:, half:], targets[:, half:])


RECIPE = Recipe(
    loss=nn.functional.mse_loss,
    metric=replace(NRMSE, accumulate=sum_late_squares),
    optimizer=partial(torch.optim.Adam, lr=1e-3),
    batch_size=1_000,
    epochs=0,
)


def adam(learning_rate: float) -> Callable[..., torch.optim.Optimizer]:
    """Return a function that makes Adam with a learning rate."""
    return partial(torch.optim.Adam, lr=learning_rate, fused=True)


def lmu(learning_rate: float, data: Dataset) -> OnlineReader:
    """Build a memory and a layer that reads it."""
    readout = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 1))
    return OnlineReader(LegendreMemory(1, 16, 32.0), readout, adam(learning_rate))


def min_gru(learning_rate: float, data: Dataset) -> OnlineReader:
    """Build a minGRU with exact gradients, and a layer that reads it."""
    readout = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 1))
    return OnlineReader(OnlineLayer(MinGRU(1, 16)), readout, adam(learning_rate))


def lstm(learning_rate: float, data: Dataset, *, reach: int) -> OnlineReader:
    """Build an LSTM whose gradient goes back `reach` samples."""
    return OnlineReader(LSTM(1, 10), nn.Linear(10, 1), adam(learning_rate), reach)


def least_squares(data: Dataset) -> RecursiveLeastSquares:
    """Build a linear function of the last 16 samples."""
    return RecursiveLeastSquares(16, forgetting=0.999)


def time_and_score(network: Network, data: Dataset) -> Mapping[str, float]:
    """Return the error of the test series, which were predicted last, and the time taken."""
    assert isinstance(network, OnlineNetwork) and network.predicted is not None
    error = RECIPE.metric.score([(network.predicted, data.test.targets)])
    return {RECIPE.metric.name: error, "ms of CPU a sample": network.milliseconds}


BUILD = {
    "lmu": lmu,
    "min-gru": min_gru,
    "lstm": partial(lstm, reach=16),
    "lstm-1": partial(lstm, reach=1),
}


def models(rates: Mapping[str, float]) -> Mapping[str, Model]:
    """Return the models with their learning rates; both budgets are the same."""
    settings = {
        name: TrainingSetup(partial(BUILD[name], rate), replace(RECIPE, optimizer=adam(rate)))
        for name, rate in rates.items()
    }
    settings["least-squares"] = TrainingSetup(least_squares, RECIPE)
    return {name: dict.fromkeys(Budget, setting) for name, setting in settings.items()}


def load_chaos(seed: int, folder: Folder, budget: Budget) -> Dataset:
    """Return the series; no folder is read."""
    return sparse_mackey_glass(seed)


def load_speech(seed: int, folder: Folder, budget: Budget) -> Dataset:
    """Return the sound of two speakers, who depend on the seed."""
    return speech_samples(seed, folder)


ONLINE_MACKEY_GLASS = Experiment(
    name="online-mackey-glass",
    title="Mackey-Glass, learned while it is predicted",
    paper="Vural et al. 2020, Achieving Online Regression Performance of LSTMs (other series)",
    table="Mackey-Glass learned online, six samples ahead, NRMSE of the second half",
    target=None,
    baselines=(),
    data=load_chaos,
    models=models({"lmu": 0.003, "min-gru": 0.003, "lstm": 0.003, "lstm-1": 0.003}),
    examine=time_and_score,
)

ONLINE_SPEECH = replace(
    ONLINE_MACKEY_GLASS,
    name="online-speech",
    title="the sound of speech, learned while it is predicted",
    table="Speech learned online, a sample ahead, NRMSE of the second half",
    data=load_speech,
    models=models({"lmu": 0.003, "min-gru": 0.001, "lstm": 0.003, "lstm-1": 0.001}),
)
