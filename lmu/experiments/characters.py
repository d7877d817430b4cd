"""Characters: a comparison of layers in the same blocks, on the same letters.

The networks predict the next of 27 letters of the text at hand; the score is in bits per
character. Two residual blocks of the same width each have a layer that mixes steps and a
feed-forward layer, whose own width makes all networks equally large. So only the layer that mixes
steps differs. All networks read the same letters in the same order.
`ngrams` counts as many letters as the networks read.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from linrec.nn import (
    FeedForward,
    GatedDeltaNet,
    GatedLinearAttention,
    Layer,
    MinGRU,
    MinLSTM,
    Residual,
    Stack,
)
from lmu.experiments.data import Dataset
from lmu.experiments.data.text8 import LETTERS
from lmu.experiments.experiment import Budget, Experiment, TrainingSetup, most_likely
from lmu.experiments.models import LanguageModel, Words
from lmu.experiments.text8 import BITS_PER_CHARACTER, count_letters, load_windows, loss
from lmu.experiments.texts import warmup_then_cosine
from lmu.experiments.training import Recipe
from lmu.layers import GRU, LSTM, ParallelLMU

DEPTH = 2
WIDTH = {Budget.QUICK: 64, Budget.FULL: 256}
BLOCK = {Budget.QUICK: 50_000, Budget.FULL: 780_000}  # parameters, without norms
EPOCHS = {Budget.QUICK: 4, Budget.FULL: 20}
WINDOWS = 2_560  # an epoch
ORDER = 6  # of the n-grams: the best of 4 to 7 on the validation text
BATCH = 32


def network(make: Callable[[int], Layer], budget: Budget, data: Dataset) -> LanguageModel:
    """Build the blocks around layers, which `make` makes from a width."""
    width, parts = WIDTH[budget], list[Layer]()
    for _ in range(DEPTH):
        layer = make(width)
        own = sum(p.numel() for p in layer.parameters() if p.requires_grad)
        inner = round((BLOCK[budget] - own - width) / (2 * width + 1))
        parts += [Residual(layer), Residual(FeedForward(width, inner))]
    return LanguageModel(Words(len(LETTERS), width, padded=False), Stack(parts))


def recipe(budget: Budget, quick_rate: float) -> Recipe:
    """Train by Adam on batches of 32 windows."""
    return Recipe(
        loss=loss,
        metric=BITS_PER_CHARACTER,
        optimizer=partial(torch.optim.Adam, lr=quick_rate if budget is Budget.QUICK else 2e-3),
        batch_size=BATCH,
        epochs=EPOCHS[budget],
        examples=WINDOWS,
        schedule=warmup_then_cosine,
        max_gradient_norm=1.0,
    )


# Layers, and their learning rates on the quick budget: each is the best of four or more on the
# validation text of seed 0. On the full budget, no rate was chosen.
LAYERS: dict[str, tuple[Callable[[int], Layer], float]] = {
    "lmu": (lambda width: ParallelLMU(width, width, width // 4, order=5, theta=10.0), 32e-3),
    "min-gru": (lambda width: MinGRU(width, width), 16e-3),
    "min-lstm": (lambda width: MinLSTM(width, width), 32e-3),
    "gla": (GatedLinearAttention, 8e-3),
    "gated-delta-net": (GatedDeltaNet, 16e-3),
    "gru": (lambda width: GRU(width, width), 32e-3),
    "lstm": (lambda width: LSTM(width, width), 32e-3),
}

CHARACTERS = Experiment(
    name="characters",
    title="the next letter, by equal networks around different layers",
    paper="Feng et al. 2024, Were RNNs All We Needed? (of another text, without such figures)",
    table="Letters of one English text, bits per character of the test text",
    target=None,
    baselines=(),
    data=load_windows,
    models={
        name: {
            budget: TrainingSetup(partial(network, make, budget), recipe(budget, rate))
            for budget in Budget
        }
        for name, (make, rate) in LAYERS.items()
    }
    | {
        "ngrams": {
            budget: TrainingSetup(
                partial(count_letters, EPOCHS[budget] * WINDOWS, ORDER),
                replace(recipe(budget, 4e-3), epochs=0),
            )
            for budget in Budget
        }
    },
    decide=most_likely,
)
