"""What the experiments with texts have in common: words that have vectors, and scores."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lmu.data import Dataset
from lmu.models import Network
from lmu.training import ACCURACY, Recipe


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


def falling(done: float) -> float:
    """Let the learning rate fall to zero on a line."""
    return 1.0 - done


def for_or_against(scores: Tensor) -> Tensor:
    """Return the decision of one score."""
    return scores > 0


def most_likely(scores: Tensor) -> Tensor:
    """Return the class of the highest score."""
    return scores.argmax(-1)


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
