"""Spoken digits: which of ten, from 98 windows of a spectrogram.

A small stand-in for Speech Commands, the data set of LMUFormer's paper: 3,000 recordings of six
speakers, all of whom are in training, validation and test.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from linrec import Diagonal, LinearRecurrence
from linrec.nn import RecurrentLayer
from lmu.experiments.data import Dataset
from lmu.experiments.data.speech import BANDS, STEPS, spoken_digits
from lmu.experiments.experiment import (
    Budget,
    Experiment,
    Folder,
    TrainingSetup,
    most_likely,
)
from lmu.experiments.models import LayerClassifier, Network, SampleNetwork
from lmu.experiments.texts import warmup_then_cosine
from lmu.experiments.training import ACCURACY, Recipe
from lmu.layers import LSTM, Layer, LMUFormer, ParallelLMU, SpikingLMUFormer

CLASSES = 10
WIDTH, LSTM_WIDTH = 64, 48  # about as many parameters


class ScoringNetwork(SampleNetwork):
    """A layer whose outputs are already the classes' scores.

    Args:
        layer: reads the sequence.
    """

    at_end = True

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer, self.input_size = layer, layer.input_size

    @property
    def reader(self) -> Layer:
        """The layer."""
        return self.layer

    def read_out(self, outputs: Tensor) -> Tensor:
        """Return the scores."""
        return outputs


class MeanOfSteps(RecurrentLayer):
    """The mean of all inputs so far, which ignores their order.

    The state is their sum and their number.

    Args:
        size: the size of an input.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size, size, size + 1)

    def recurrence(self, inputs: Tensor) -> tuple[LinearRecurrence, Tensor]:
        """Add up the inputs and a column of ones; as `RecurrentLayer.recurrence`."""
        counted = torch.cat([inputs, torch.ones_like(inputs[..., :1])], -1)
        return LinearRecurrence(Diagonal(counted.new_ones(counted.shape[-1]))), counted

    def read_out(self, read: Tensor, inputs: Tensor) -> Tensor:
        """Divide the sum by the number; as `RecurrentLayer.read_out`."""
        return read[..., :-1] / read[..., -1:]


def memory(theta: float = STEPS) -> ParallelLMU:
    """Build an LMU that remembers 32 signals over a second."""
    bend = nn.GELU()
    return ParallelLMU(
        BANDS, WIDTH, 32, 6, theta, memory_dropout=0.5, input_activation=bend, activation=bend
    )


def lmuformer(data: Dataset) -> Network:
    """Build LMUFormer, a quarter as wide as the published one."""
    return ScoringNetwork(LMUFormer(BANDS, CLASSES, width=64, order=32, theta=float(STEPS)))


def spiking_lmuformer(data: Dataset) -> Network:
    """Build LMUFormer of spiking neurons, of the same width, with a memory twice as large."""
    return ScoringNetwork(SpikingLMUFormer(BANDS, CLASSES, width=64, order=64, theta=float(STEPS)))


def classifier(make: Callable[[], Layer], data: Dataset) -> Network:
    """Build a layer, read at the last step, and a linear layer that scores the digits."""
    return LayerClassifier(make(), CLASSES)


# Networks, and their learning rates: each is the best of three or more on the quick budget, on the
# validation recordings.
NETWORKS: dict[str, tuple[Callable[[Dataset], Network], float]] = {
    "lmuformer": (lmuformer, 1e-3),
    "spiking-lmuformer": (spiking_lmuformer, 1e-2),
    "lmu": (partial(classifier, memory), 1e-2),
    "lstm": (partial(classifier, lambda: LSTM(BANDS, LSTM_WIDTH)), 1e-2),
    "mean": (partial(classifier, lambda: MeanOfSteps(BANDS)), 0.3),
}


def recordings(seed: int, folder: Folder, budget: Budget) -> Dataset:
    """Return the recordings, all of them for every budget."""
    return spoken_digits(folder)


def recipe(budget: Budget, learning_rate: float) -> Recipe:
    """Train by Adam with weight decay on batches of 64 recordings, for 10 or 60 epochs."""
    return Recipe(
        loss=nn.functional.cross_entropy,
        metric=ACCURACY,
        optimizer=partial(torch.optim.AdamW, lr=learning_rate, weight_decay=0.05),
        batch_size=64,
        epochs=60 if budget is Budget.FULL else 10,
        schedule=warmup_then_cosine,
        max_gradient_norm=1.0,
    )


SPOKEN_DIGITS = Experiment(
    name="spoken-digits",
    title="spoken digits, six speakers",
    paper="Liu et al. 2024, LMUFormer (of Speech Commands: 96.53 % of 35 words)",
    table="Spoken digits, test accuracy in percent",
    target=None,
    baselines=(),
    data=recordings,
    models={
        name: {budget: TrainingSetup(network, recipe(budget, rate)) for budget in Budget}
        for name, (network, rate) in NETWORKS.items()
    },
    decide=most_likely,
)
