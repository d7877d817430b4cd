"""Mackey-Glass: a chaotic series, predicted 15 samples ahead at each of its 5,000 samples.

The network is the paper's, as far as it is known: d = 40, θ = 50, 140 rectified units, a dense
layer of 80 and a linear output; 17,241 parameters. The task is the public one with its direction
corrected (see `lmu.experiments.data.mackey_glass`).

The task's recipe is Adam on batches of 32, all training series at once, for 500 epochs: 500 steps,
after which this network has a test NRMSE of 0.034. We use one series per batch and 100 epochs:
3,200 steps, each with a thirty-second of the work. That is our choice, made on the validation
series; it takes a tenth of the time, and the error is less than a fifth.

The LSTM takes the same 3,200 steps. `lmu-2019`, `hybrid` and `lmu-500-steps` are trained by the
task's recipe on the full budget: 500 steps on all series. On the quick budget the training series
are cut into 640 windows of 250 samples, each read from an empty memory: as many training steps, but
over fewer samples. There all models but `lmu-500-steps` take 3,200 steps on 4 windows each. All are
validated and tested on the whole series.

`polynomial` is the plain baseline: least squares on products of up to three of twelve delayed
samples. One with 51 delays and no products has an NRMSE of 0.48, one with products of two 0.03.

The free run tests the network as a model of a chaotic system: after 2,000 samples of each test
series the network reads its own predictions, and the score is how long their error stays below the
error of predicting the mean.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch

from lmu.experiments.data import Dataset, Split, mackey_glass
from lmu.experiments.data.mackey_glass import AHEAD
from lmu.experiments.experiment import (
    PARALLELIZING,
    Budget,
    Experiment,
    Folder,
    Provenance,
    PublishedResult,
    TrainingSetup,
)
from lmu.experiments.free_run import useful_steps
from lmu.experiments.models import DelayPolynomial, LayerPredictor, Network, SeriesPredictor
from lmu.experiments.training import NRMSE, Recipe, predictions
from lmu.layers import LMU, LSTM, Stack

FREE_RUN = "samples of a free run"  # until its error reaches that of the mean
WINDOW = 250  # samples in a training window on the quick budget
# Learning rates of 3,200 steps, each the best of three or more on the validation series of seed 0.
RATE, RATE_2019 = 1e-2, 3e-3


def generate_series(seed: int, folder: Folder, budget: Budget) -> Dataset:
    """Return the series; no folder is read. On the quick budget the training series are cut."""
    data = mackey_glass(seed)
    if budget is Budget.FULL:
        return data
    windows = Split(*(part.reshape(-1, WINDOW, 1) for part in data.train))
    return data._replace(
        train=windows,
        reduced=f"the training series are cut into windows of {WINDOW} samples.",
    )


def parallel_lmu(data: Dataset) -> SeriesPredictor:
    """Build the network of 17,241 parameters."""
    return SeriesPredictor(hidden_size=140, dense_size=80, order=40, theta=50.0)


RECIPE = Recipe(
    loss=torch.nn.functional.mse_loss,
    metric=NRMSE,
    optimizer=partial(torch.optim.Adam, lr=RATE, fused=True),
    batch_size=1,
    epochs=100,
)
QUICK = replace(RECIPE, batch_size=4, epochs=20)
OURS = {
    Budget.FULL: TrainingSetup(parallel_lmu, RECIPE),
    Budget.QUICK: TrainingSetup(parallel_lmu, QUICK),
}


def unit_2019(input_size: int, hidden_size: int) -> LMU:
    """Build one unit of 2019, with a window of four steps."""
    return LMU.original(input_size, hidden_size, order=4, theta=4.0)


def lmu_2019(data: Dataset) -> LayerPredictor:
    """Build four units of 2019 on top of each other: 18,050 parameters."""
    return LayerPredictor(Stack(unit_2019(size, 49) for size in (1, 49, 49, 49)))


def lstm(data: Dataset) -> LayerPredictor:
    """Build four LSTMs on top of each other: 18,026 parameters."""
    return LayerPredictor(LSTM(1, 25, depth=4))


def hybrid(data: Dataset) -> LayerPredictor:
    """Build units of 2019 alternating with LSTMs: 17,900 parameters."""
    return LayerPredictor(Stack([unit_2019(1, 40), LSTM(40, 25), unit_2019(25, 40), LSTM(40, 25)]))


def polynomial(data: Dataset) -> DelayPolynomial:
    """Fit a cubic polynomial in twelve delayed samples, 4 samples apart: 455 numbers."""
    return DelayPolynomial(list(range(0, 48, 4)), 3).fit(*data.train)


RECIPE_2019 = replace(RECIPE, batch_size=32, epochs=500).with_learning_rate(1e-3)


def examine(network: Network, data: Dataset) -> Mapping[str, float]:
    """Return the error, and how long a free run is better than predicting the mean."""
    batches = predictions(network, network, data.test, RECIPE_2019.batch_size)
    steps = useful_steps(network, data.test.inputs, known=2_000, steps=2_000, ahead=AHEAD)
    return {NRMSE.name: NRMSE.score(batches), FREE_RUN: steps}


MACKEY_GLASS = Experiment(
    name="mackey-glass",
    title="Mackey-Glass, 15 samples ahead",
    paper=PARALLELIZING,
    table="Mackey-Glass, NRMSE on the test series",
    target=PublishedResult("parallel LMU (the paper)", 0.044, Provenance.UNCONFIRMED),
    baselines=(
        PublishedResult("hybrid LMU and LSTM", 0.045, Provenance.CONFIRMED),
        PublishedResult("LMU (2019)", 0.049, Provenance.CONFIRMED),
        PublishedResult("LSTM", 0.059, Provenance.CONFIRMED, 18_026),
    ),
    data=generate_series,
    models={
        "lmu": OURS,
        "lmu-500-steps": dict.fromkeys(Budget, TrainingSetup(parallel_lmu, RECIPE_2019)),
    }
    | {
        name: {
            Budget.FULL: TrainingSetup(network, full),
            Budget.QUICK: TrainingSetup(network, quick),
        }
        for name, network, full, quick in (
            ("lmu-2019", lmu_2019, RECIPE_2019, QUICK.with_learning_rate(RATE_2019)),
            ("lstm", lstm, RECIPE, QUICK),
            ("hybrid", hybrid, RECIPE_2019, QUICK.with_learning_rate(RATE_2019)),
        )
    }
    | {
        "polynomial": dict.fromkeys(Budget, TrainingSetup(polynomial, replace(RECIPE, epochs=0))),
    },
    examine=examine,
)
