"""Selective copying: 16 tokens out of 4,096 steps, said again in order.

The task that time-invariant recurrences fail and gated ones learn. The paper of minGRU stacks three
layers; what stands around them was not found: here each is a residual block, followed by a
feed-forward block, and the width is 64. The paper draws new sequences for each of 400,000 steps;
here an epoch is all of a fixed number. `full` drops most of the blanks at first and doubles the
length eight times, up to 4,096 steps: what was learned of short sequences is true of longer ones,
and costs little. `quick` scatters the tokens over 512 steps from the start. `places` is what the
place of each token alone says of its number in order.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from linrec.nn import GatedDeltaNet, Layer, MinGRU, MinLSTM, SelectiveSSM, residual_blocks
from lmu.experiments.data import Dataset, drop_blanks, selective_copying
from lmu.experiments.data.copying import BLANK, SIGN, TOKENS
from lmu.experiments.experiment import (
    Budget,
    Experiment,
    Folder,
    Provenance,
    PublishedResult,
    TrainingSetup,
    most_likely,
)
from lmu.experiments.models import BagOfPlaces, LanguageModel, Words
from lmu.experiments.texts import warmup_then_cosine
from lmu.experiments.training import Metric, Recipe
from lmu.experiments.training.recipe import count_correct, percentage
from lmu.layers import LSTM, ParallelLMU

WIDTH, DEPTH = 64, 3
SIZES = {Budget.FULL: (4_096, 20_000), Budget.QUICK: (512, 12_000)}  # steps, sequences


def generate_sequences(seed: int, folder: Folder, budget: Budget) -> Dataset:
    """Return the sequences; no folder is read."""
    length, train = SIZES[budget]
    # Scoring 1,000 long sequences takes as long as an epoch of short ones.
    validated = 100 if budget is Budget.FULL else None
    return selective_copying(seed, length=length, train=train, validated=validated)


def network(make: Callable[[], Layer], data: Dataset) -> LanguageModel:
    """Build the blocks, and the scores of every token after every step."""
    blocks = residual_blocks((make() for _ in range(DEPTH)), expansion=2)
    return LanguageModel(Words(TOKENS, WIDTH, padded=False), blocks, tied=False)


def take_answers(logits: Tensor, targets: Tensor) -> Tensor:
    """Take the scores at the signs, `(sequences, copied, tokens)`."""
    return logits[..., -targets.shape[-1] :, :]


def loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute the mean cross-entropy of the answers, in nats.

    Args:
        logits (sequences, time, tokens): the scores.
        targets (sequences, copied): the tokens.
    """
    scores = take_answers(logits, targets)
    return torch.nn.functional.cross_entropy(scores.flatten(0, -2), targets.flatten())


def count_right(logits: Tensor, targets: Tensor) -> Tensor:
    """Count the tokens that are said right, and all; arguments as of `loss`."""
    return count_correct(take_answers(logits, targets), targets)


ACCURACY = Metric("accuracy", count_right, percentage, higher_is_better=True, digits=2)


def grow_sequences(inputs: Tensor, targets: Tensor, done: float) -> tuple[Tensor, Tensor]:
    """Drop blanks in training: at first all, then fewer and fewer, none at its end.

        length = copied (whole / copied)^g,   g = (done - 0.3) / 0.65, kept within 0 and 1

    Of sequences of more than 64 steps there are fewer in a batch, as the root of their length:
    longer ones say more about when to keep, and cost more.

    Args:
        inputs (sequences, time): whole sequences.
        targets (sequences, copied): their tokens.
        done: the share of all steps that are done.

    Returns:
        inputs (fewer, length + copied) and targets (fewer, copied).
    """
    copied = targets.shape[-1]
    whole = inputs.shape[-1] - copied
    growth = min(max((done - 0.3) / 0.65, 0.0), 1.0)
    length = round(copied * (whole / copied) ** growth)
    taken = math.ceil(len(inputs) * math.sqrt(min(64 / length, 1.0)))
    return drop_blanks(inputs[:taken], length, copied), targets[:taken]


def recipe(budget: Budget) -> Recipe:
    """Train by Adam; in `quick` on small batches: many steps do more than large ones."""
    quick = budget is Budget.QUICK
    return Recipe(
        loss=loss,
        metric=ACCURACY,
        optimizer=partial(torch.optim.Adam, lr=3e-3),
        batch_size=8 if quick else 32,
        epochs=2 if quick else 16,
        schedule=warmup_then_cosine,
        max_gradient_norm=1.0,
        curriculum=None if quick else grow_sequences,
    )


def places(data: Dataset) -> BagOfPlaces:
    """Build the guess of each token from its place."""
    return BagOfPlaces(TOKENS, data.train.targets.shape[-1], others=max(BLANK, SIGN) + 1)


def without_training(budget: Budget) -> Recipe:
    """Score it as it is."""
    return replace(recipe(budget), epochs=0)


MODELS: dict[str, Callable[[], Layer]] = {
    "min-gru": lambda: MinGRU(WIDTH, WIDTH),
    "min-lstm": lambda: MinLSTM(WIDTH, WIDTH),
    "selective-ssm": lambda: SelectiveSSM(WIDTH),
    "gated-delta-net": lambda: GatedDeltaNet(WIDTH),
    "lstm": lambda: LSTM(WIDTH, WIDTH),
    "lmu": lambda: ParallelLMU(WIDTH, WIDTH, WIDTH, order=4, theta=64.0),
}

SELECTIVE_COPY = Experiment(
    name="selective-copy",
    title="16 tokens between thousands of blanks, in order",
    paper="Feng et al. 2024, Were RNNs All We Needed?",
    table="Selective copying, accuracy of the tokens in percent",
    target=PublishedResult("minGRU (the paper)", 99.5, Provenance.CONFIRMED),
    baselines=(PublishedResult("minLSTM (the paper)", 96.0, Provenance.CONFIRMED),),
    data=generate_sequences,
    models={
        name: {budget: TrainingSetup(partial(network, make), recipe(budget)) for budget in Budget}
        for name, make in MODELS.items()
    }
    | {"places": {each: TrainingSetup(places, without_training(each)) for each in Budget}},
    decide=most_likely,
)
