"""Capacity: recall a signal up to 100,000 steps ago from 100 numbers, without training.

The task is the one of the 2019 paper, as far as it is known: a signal of up to 10 cycles per
window has to be recalled at five delays across the window. The memory has order 100, and the
readout is the closed form of equation 3. There are no epochs; `--epochs` trains the readout from
there. `samples` is the plain way to keep a signal in 100 numbers: a hundred samples at
regular intervals, and a polynomial through the eight nearest.
"""

from dataclasses import replace
from functools import partial

import torch

from lmu.experiments.data import Dataset, delay_steps, delayed_noise
from lmu.experiments.experiment import LEGENDRE, Budget, Experiment, Folder, TrainingSetup
from lmu.experiments.models import DelayReader, KeptSamples, Network
from lmu.experiments.training import NRMSE, Recipe, predictions

ORDER = 100
WINDOW = {Budget.FULL: 100_000, Budget.QUICK: 1_000}  # steps
METRIC = replace(NRMSE, digits=6)


def generate_noise(seed: int, folder: Folder, budget: Budget) -> Dataset:
    """Return the signals; no folder is read. On the quick budget the window is 1,000 steps."""
    return delayed_noise(seed, theta=WINDOW[budget])


def reader(data: Dataset) -> DelayReader:
    """Build the memory for the window of the signals, which are two windows long."""
    theta = data.test.inputs.shape[-2] // 2
    return DelayReader(order=ORDER, theta=theta, delays=delay_steps(theta))


def samples(data: Dataset) -> KeptSamples:
    """Build the memory of samples for the window of the signals."""
    theta = data.test.inputs.shape[-2] // 2
    return KeptSamples(kept=ORDER, theta=theta, delays=delay_steps(theta))


def score_delays(network: Network, data: Dataset) -> dict[str, float]:
    """Compute the error over all delays, and at each delay."""
    outputs, targets = map(
        torch.cat, zip(*predictions(network, network, data.test, 1), strict=True)
    )
    errors = {"NRMSE": METRIC.score([(outputs, targets)])}
    for place, delay in enumerate(delay_steps(data.test.inputs.shape[-2] // 2)):
        own = outputs[..., place], targets[..., place]
        errors[f"delay {delay:,}"] = METRIC.score([own])
    return errors


RECIPE = Recipe(
    loss=torch.nn.functional.mse_loss,
    metric=METRIC,
    optimizer=partial(torch.optim.Adam, lr=1e-3),
    batch_size=1,
    epochs=0,
)

CAPACITY = Experiment(
    name="capacity",
    title="delays of up to 100,000 steps",
    paper=LEGENDRE,
    table="Delayed noise, NRMSE over five delays",
    target=None,
    baselines=(),
    data=generate_noise,
    models={
        "lmu": {each: TrainingSetup(reader, RECIPE) for each in Budget},
        "samples": {each: TrainingSetup(samples, RECIPE) for each in Budget},
    },
    examine=score_delays,
)
