"""Shared parts of the experiments with texts: word vectors, memories, losses and recipes."""

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from lmu.experiments.data import Dataset
from lmu.experiments.models import EncodedWords, TextReader, Words
from lmu.experiments.training import ACCURACY, Recipe
from lmu.memory import LegendreMemory


def build_words(data: Dataset, encoded: Sequence[int] = ()) -> Words:
    """Build words with the vocabulary's vectors, which are not trained.

    Args:
        data: a data set whose vocabulary has vectors.
        encoded: the sizes of trained layers that encode each vector. Empty: there are none.
    """
    vectors = data.vocabulary.vectors
    count, width = vectors.shape
    if encoded:
        words = EncodedWords(count, width, encoded)
    else:
        words = Words(count, width, trained=False)
    words.set_vectors(vectors)
    return words


def fading_mean(words: Words, theta: float, word_dropout: float = 0.0) -> TextReader:
    """Build a reader of texts with a memory of order 1, which has no trained weights.

    It keeps a mean of the words' vectors, which fades by exp(-1/θ) per word.

    Args:
        words: the words.
        theta: the length of the window, in words: the longest text.
        word_dropout: the share of words that are left out in training.
    """
    return TextReader(words, LegendreMemory(words.width, 1, theta), word_dropout)


def padded_loss(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Compute the mean cross-entropy of the next words, in nats, without the padding.

    Args:
        logits (texts, time, words): the scores, up to the end of the longest target.
        targets (texts, time or more): the next words; 0 is padding.
        smoothing: the share of probability that is spread over all words.
    """
    targets = targets[:, : logits.shape[1]].flatten().long()
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets, ignore_index=0, label_smoothing=smoothing
    )


def sum_nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum the cross-entropy of all words, and count them; arguments as of `padded_loss`."""
    count = (targets != 0).sum().double()
    return torch.stack([padded_loss(logits, targets).double() * count, count])


def mean(sums: Tensor) -> float:
    """Divide the first sum by the second."""
    return (sums[0] / sums[1]).item()


def warmup_then_cosine(done: float) -> float:
    """Raise the learning rate for a twentieth of the steps, then lower it along a cosine."""
    return min(1.0, 20.0 * done) * 0.5 * (1.0 + math.cos(math.pi * done))


def linear_decay(done: float) -> float:
    """Lower the learning rate linearly to zero."""
    return 1.0 - done


def binary_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Compute the mean cross-entropy of one score, for (1) and against (0)."""
    return torch.nn.functional.binary_cross_entropy_with_logits(scores, targets.to(scores.dtype))


def binary_recipe(learning_rate: float, epochs: int, batch_size: int = 100) -> Recipe:
    """Train one score, for and against, with a learning rate that falls to zero."""
    return Recipe(
        loss=binary_loss,
        metric=ACCURACY,
        optimizer=partial(torch.optim.Adam, lr=learning_rate),
        batch_size=batch_size,
        epochs=epochs,
        schedule=linear_decay,
        max_gradient_norm=1.0,
    )
