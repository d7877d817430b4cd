"""text8: the next of 27 letters, in bits per character.

The paper stacks parallel LMUs with small windows, θ of about 10 and d of about 5, on sequences of
180 letters, with 2.4 million parameters. How they are stacked was not found: here each is a highway
block (its gate chooses between what goes in and what comes out), followed by a feed-forward block.

`full` has the paper's size, and reads as many windows as there are, at batches of 64: minutes on an
accelerator. `quick` is small enough for minutes on two cores: 5.4 million letters, which all
networks read in the same order in batches of 8 windows. The LSTM and minGRU have as many parameters
as `lmu` within five percent.

On the quick budget rates were tried in 2 epochs of seed 0, and scored on the validation text: each
network has the best of three or four of its own (docs/comparisons.md has them), but for `lstm`,
`lstm-pairs` and `gru-pairs`: in 6 epochs lower rates are better than those that were ahead in 2.

`gated-blocks` are two blocks whose feed-forward layer reads a memory beside its input and has a
gate, and a vector for each pair of letters beside that of each letter: pairs are looked up, so that
their parameters take no time. They were chosen from some fifteen shapes in 2 epochs of seed 0.
`lmu-pairs`, `lstm-pairs` and `gru-pairs` are `lmu`, an LSTM and a GRU with the same vectors.

`lstm-residual` are two LSTMs with skip connections and the same vectors, the best of four shapes in
2 epochs of seed 0 (the others had gates), at the rate of the other LSTMs. `lstm-wide` is one LSTM
of more units than a step has numbers, with a feed-forward layer after it and vectors of pairs with
the two letters before: the best of fifty-eight shapes.

`gated-min-gru` are two minGRUs with a gate around each, the lower one wider, and vectors of pairs
of a letter with each of the three before it. It has as many parameters as `lstm-pairs`. Its shape
is one of some twenty-five that were tried in 2 epochs of seed 0. `gated-min-gru-deep` are four,
narrower between and wider inside: the best of the fourteen shapes tried next, and slower. (Seven
narrower ones, tried later, gained up to 0.007 bits in 2 epochs.) Each of its minGRUs sees the step
before as well (`TokenShift`), the best of eleven trials of this kind; all in all, fifty-eight.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from linrec.nn import FeedForward, Gated, MinGRU, Residual, Stack, TokenShift, residual_blocks
from linrec.nn.blocks import Pointwise
from lmu.experiments.data import Dataset, text8
from lmu.experiments.data.text8 import LETTERS
from lmu.experiments.experiment import (
    PARALLELIZING,
    Budget,
    Experiment,
    Folder,
    Provenance,
    PublishedResult,
    TrainingSetup,
    most_likely,
)
from lmu.experiments.models import LanguageModel, NGrams, PairedWords, Words
from lmu.experiments.texts import mean, warmup_then_cosine
from lmu.experiments.training import Metric, Recipe
from lmu.layers import GRU, LSTM, memory_blocks, window_blocks

SCORED = {Budget.QUICK: (1_000, 5_000), Budget.FULL: (None, None)}  # windows


def load_windows(seed: int, folder: Folder, budget: Budget) -> Dataset:
    """Return the windows, the same for every seed; `quick` scores fewer of them."""
    return text8(folder, most=SCORED[budget])


def loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute the mean cross-entropy, in nats a letter.

    Args:
        logits (windows, time, letters): the scores of each next letter.
        targets (windows, time): the next letters.
    """
    return torch.nn.functional.cross_entropy(logits.flatten(0, -2), targets.flatten().long())


def sum_nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum the cross-entropy of all letters, and count them; arguments as of `loss`."""
    nats = loss(logits, targets).double()
    count = nats.new_full((), targets.numel())
    return torch.stack([nats * count, count])


def bits(sums: Tensor) -> float:
    """Divide the first sum by the second, in bits."""
    return mean(sums) / math.log(2.0)


BITS_PER_CHARACTER = Metric("bits per character", sum_nats, bits, higher_is_better=False, digits=3)


def recipe(learning_rate: float, budget: Budget) -> Recipe:
    """Train by Adam: on 5.4 million letters in batches of 8, or on all in batches of 64."""
    quick = budget is Budget.QUICK
    return Recipe(
        loss=loss,
        metric=BITS_PER_CHARACTER,
        optimizer=partial(torch.optim.Adam, lr=learning_rate, fused=True),
        batch_size=8 if quick else 64,
        epochs=6 if quick else 8,
        examples=5_000 if quick else 60_000,
        schedule=warmup_then_cosine,
        max_gradient_norm=1.0,
    )


def parallel_lmu(
    width: int, depth: int, channels: int, data: Dataset, pairs: int = 0
) -> LanguageModel:
    """Build highway blocks of LMUs, with vectors of pairs or not."""
    blocks = window_blocks(width, depth, order=5, theta=10.0, channels=channels)
    return LanguageModel(letters(width, pairs), blocks)


def gated_blocks(
    width: int, thetas: Sequence[float], channels: int, data: Dataset, pairs: int = 0
) -> LanguageModel:
    """Build blocks with gates that read memories of these windows; with vectors of pairs or not."""
    blocks = memory_blocks(width, thetas, order=5, channels=channels, expansion=1.75, gated=True)
    return LanguageModel(letters(width, pairs), blocks)


def letters(width: int, pairs: int) -> Words:
    """Build the vectors of letters, and of pairs with as many letters before each."""
    if pairs:
        return PairedWords(len(LETTERS), width, pairs)
    return Words(len(LETTERS), width, padded=False)


def lstm(hidden_size: int, data: Dataset, pairs: int = 0) -> LanguageModel:
    """Build one LSTM, with vectors of pairs or not."""
    return LanguageModel(letters(hidden_size, pairs), LSTM(hidden_size, hidden_size))


def residual_lstm(width: int, depth: int, data: Dataset, pairs: int = 0) -> LanguageModel:
    """Build LSTMs with a skip connection around each, with vectors of pairs or not."""
    blocks = Stack(Residual(LSTM(width, width)) for _ in range(depth))
    return LanguageModel(letters(width, pairs), blocks)


class Projection(Pointwise):
    """A linear map of each step, y_t = W x_t + b."""

    def __init__(self, input_size: int, output_size: int) -> None:
        super().__init__(input_size, output_size)
        self.linear = torch.nn.Linear(input_size, output_size)

    def apply_to(self, inputs: Tensor) -> Tensor:
        """Compute y of steps, each by itself."""
        return self.linear(inputs)


def wide_lstm(width: int, units: int, inner: int, data: Dataset, pairs: int = 0) -> LanguageModel:
    """Build one LSTM of more units than a step has numbers, and a feed-forward layer after it."""
    widened = Stack([LSTM(width, units), Projection(units, width)])
    blocks = Stack([Residual(widened), Residual(FeedForward(width, inner))])
    return LanguageModel(letters(width, pairs), blocks)


def gru(hidden_size: int, data: Dataset, pairs: int = 0) -> LanguageModel:
    """Build one GRU, as `lstm`."""
    return LanguageModel(letters(hidden_size, pairs), GRU(hidden_size, hidden_size))


def gated_min_gru(
    width: int, inner: Sequence[int], data: Dataset, pairs: int = 0, shifted: bool = False
) -> LanguageModel:
    """Build residual blocks, each a minGRU of `inner` states with a gate around it.

    Args:
        width: the numbers in a step.
        inner: the states of each minGRU.
        data: not read.
        pairs: as in `letters`.
        shifted: whether each minGRU sees the step before as well.
    """
    wide = (MinGRU(width, states, activation=torch.nn.Identity()) for states in inner)
    layers = (TokenShift(each) if shifted else each for each in wide)
    return LanguageModel(letters(width, pairs), Stack(Residual(Gated(each)) for each in layers))


def min_gru(width: int, depth: int, data: Dataset) -> LanguageModel:
    """Build residual blocks of minGRUs, each followed by a feed-forward block."""
    blocks = residual_blocks((MinGRU(width, width) for _ in range(depth)), expansion=2)
    return LanguageModel(Words(len(LETTERS), width, padded=False), blocks)


def count_letters(most: int, order: int, data: Dataset) -> NGrams:
    """Count the letters of `most` windows or fewer, from all over the training text."""
    windows = len(data.train.inputs)
    taken = torch.linspace(0, windows - 1, min(most, windows)).long()
    return NGrams(len(LETTERS), order, data.train.inputs[taken], data.train.targets[taken])


def without_training(budget: Budget) -> Recipe:
    """Score the counts as they are, without training."""
    return replace(recipe(1e-3, budget), epochs=0)


TEXT8 = Experiment(
    name="text8",
    title="the next letter of running text",
    paper=PARALLELIZING,
    table="text8, bits per character of the test text",
    target=PublishedResult("parallel LMU (the paper)", 1.61, Provenance.CONFIRMED, 2_400_000),
    baselines=(PublishedResult("LSTM", 1.65, Provenance.UNCONFIRMED, 3_300_000),),
    data=load_windows,
    models={
        "lmu": {
            Budget.FULL: TrainingSetup(
                partial(parallel_lmu, 256, 4, 64), recipe(2e-3, Budget.FULL)
            ),
            Budget.QUICK: TrainingSetup(
                partial(parallel_lmu, 128, 3, 32), recipe(8e-3, Budget.QUICK)
            ),
        },
        "lmu-pairs": {
            Budget.FULL: TrainingSetup(
                partial(parallel_lmu, 250, 4, 62, pairs=1), recipe(2e-3, Budget.FULL)
            ),
            Budget.QUICK: TrainingSetup(
                partial(parallel_lmu, 116, 3, 30, pairs=1), recipe(8e-3, Budget.QUICK)
            ),
        },
        "lstm": {
            Budget.FULL: TrainingSetup(partial(lstm, 528), recipe(2e-3, Budget.FULL)),
            Budget.QUICK: TrainingSetup(partial(lstm, 228), recipe(8e-3, Budget.QUICK)),
        },
        "gated-blocks": {
            Budget.FULL: TrainingSetup(
                partial(gated_blocks, 320, (5.0, 15.0, 45.0), 32, pairs=1),
                recipe(2e-3, Budget.FULL),
            ),
            Budget.QUICK: TrainingSetup(
                partial(gated_blocks, 128, (5.0, 25.0), 16, pairs=1),
                recipe(4e-3, Budget.QUICK),
            ),
        },
        "lstm-pairs": {
            Budget.FULL: TrainingSetup(partial(lstm, 500, pairs=1), recipe(2e-3, Budget.FULL)),
            Budget.QUICK: TrainingSetup(partial(lstm, 192, pairs=1), recipe(8e-3, Budget.QUICK)),
        },
        "lstm-residual": {
            Budget.FULL: TrainingSetup(
                partial(residual_lstm, 360, 2, pairs=1), recipe(2e-3, Budget.FULL)
            ),
            Budget.QUICK: TrainingSetup(
                partial(residual_lstm, 144, 2, pairs=1), recipe(8e-3, Budget.QUICK)
            ),
        },
        "lstm-wide": {
            Budget.FULL: TrainingSetup(
                partial(wide_lstm, 176, 576, 880, pairs=2), recipe(2e-3, Budget.FULL)
            ),
            Budget.QUICK: TrainingSetup(
                partial(wide_lstm, 64, 232, 320, pairs=2), recipe(8e-3, Budget.QUICK)
            ),
        },
        "gru-pairs": {
            Budget.FULL: TrainingSetup(partial(gru, 570, pairs=1), recipe(2e-3, Budget.FULL)),
            Budget.QUICK: TrainingSetup(partial(gru, 215, pairs=1), recipe(4e-3, Budget.QUICK)),
        },
        "gated-min-gru": {
            Budget.FULL: TrainingSetup(
                partial(gated_min_gru, 320, (608, 448, 320), pairs=3), recipe(2e-3, Budget.FULL)
            ),
            Budget.QUICK: TrainingSetup(
                partial(gated_min_gru, 128, (208, 96), pairs=3), recipe(8e-3, Budget.QUICK)
            ),
        },
        "gated-min-gru-deep": {
            Budget.FULL: TrainingSetup(
                partial(gated_min_gru, 256, (704, 640, 512, 384), pairs=2, shifted=True),
                recipe(2e-3, Budget.FULL),
            ),
            Budget.QUICK: TrainingSetup(
                partial(gated_min_gru, 80, (288, 256, 224, 160), pairs=2, shifted=True),
                recipe(8e-3, Budget.QUICK),
            ),
        },
        "min-gru": {
            Budget.FULL: TrainingSetup(partial(min_gru, 352, 3), recipe(2e-3, Budget.FULL)),
            Budget.QUICK: TrainingSetup(partial(min_gru, 152, 3), recipe(8e-3, Budget.QUICK)),
        },
        "ngrams": {  # of as many letters as the networks read
            Budget.FULL: TrainingSetup(
                partial(count_letters, 500_000, 7), without_training(Budget.FULL)
            ),
            Budget.QUICK: TrainingSetup(
                partial(count_letters, 30_000, 6), without_training(Budget.QUICK)
            ),
        },
    },
    decide=most_likely,
)
