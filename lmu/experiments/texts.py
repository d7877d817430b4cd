"""Shared parts of the experiments with texts: word vectors and scores."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lmu.experiments.data import Dataset
from lmu.experiments.models import Network
from lmu.experiments.training import ACCURACY, Recipe


def with_vectors(make: Callable[..., Any], **sizes: Any) -> Callable[[Dataset], Network]:
    """Make the builder of a network that reads words by their given vectors.

    Args:
        make: makes the network from `words` and `width`, and from sizes of its own.
        sizes: those.

    Returns:
        From the data to the network, its vectors those of the vocabulary.
    """

    def build(data: Dataset) -> Network:
        vectors = data.vocabulary.vectors
        network = make(words=len(vectors), width=vectors.shape[1], **sizes)
        network.reader.words.set_vectors(vectors)
        return network

    return build


def padded_loss(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Compute the mean cross-entropy of what may be next, in nats, without the padding.

    Args:
        logits (texts, time, words): the scores, as far as the longest target goes.
        targets (texts, time or more): the words that are next; 0 is padding.
        smoothing: the share of probability that is spread over all words.
    """
    targets = targets[:, : logits.shape[1]].flatten().long()
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets, ignore_index=0, label_smoothing=smoothing
    )


def nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum the cross-entropy of all words, and count them; arguments as of `padded_loss`."""
    count = (targets != 0).sum().double()
    return torch.stack([padded_loss(logits, targets).double() * count, count])


def mean(sums: Tensor) -> float:
    """Divide the first sum by the second."""
    return (sums[0] / sums[1]).item()


def warm_then_falling(done: float) -> float:
    """Let the learning rate rise for a twentieth of the steps, then fall along a cosine."""
    return min(1.0, 20.0 * done) * 0.5 * (1.0 + math.cos(math.pi * done))


def falling(done: float) -> float:
    """Let the learning rate fall to zero on a line."""
    return 1.0 - done


def binary_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Compute the mean cross-entropy of one score, for (1) and against (0)."""
    return torch.nn.functional.binary_cross_entropy_with_logits(scores, targets.to(scores.dtype))


def binary_recipe(learning_rate: float, epochs: int, batch_size: int = 100) -> Recipe:
    """Train one score, for and against, at a learning rate that falls to zero."""
    return Recipe(
        loss=binary_loss,
        metric=ACCURACY,
        optimizer=partial(torch.optim.Adam, lr=learning_rate),
        batch_size=batch_size,
        epochs=epochs,
        schedule=falling,
        largest_gradient=1.0,
    )
