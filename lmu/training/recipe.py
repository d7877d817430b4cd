"""How a network is trained, and by which number it is judged."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Metric:
    """A number that says how good predictions are.

    Args:
        name: what it is called in tables and files.
        function: from all predictions and all targets to the number.
        higher_is_better: whether a higher number is a better one.
        digits: decimals that are printed.
    """

    name: str
    function: Callable[[Tensor, Tensor], float]
    higher_is_better: bool
    digits: int

    def show(self, score: float) -> str:
        """Write a score with its decimals."""
        return f"{score:.{self.digits}f}"


def accuracy(scores: Tensor, targets: Tensor) -> float:
    """Compute the percentage of examples whose highest score is that of their class.

    Args:
        scores (examples, classes): the predictions.
        targets (examples): the classes.

    Returns:
        0 … 100.
    """
    return 100.0 * (scores.argmax(-1) == targets).double().mean().item()


def nrmse(predictions: Tensor, targets: Tensor) -> float:
    """Compute the normalised root mean square error: RMSE / RMS(targets).

    Args:
        predictions (...): any shape.
        targets (...): the same shape.

    Returns:
        0 for perfect predictions, 1 for those that are always zero.
    """
    error = (predictions - targets).double().square().mean()
    return math.sqrt((error / targets.double().square().mean()).item())


ACCURACY = Metric("accuracy", accuracy, higher_is_better=True, digits=2)
NRMSE = Metric("NRMSE", nrmse, higher_is_better=False, digits=4)


@dataclass(frozen=True)
class Recipe:
    """What is minimised, by which optimiser, on batches of which size, how often.

    Args:
        loss: from predictions and targets of a batch to a number.
        metric: chooses the best epoch, on the validation examples.
        optimizer: from the parameters to an optimiser.
        batch_size: examples in a step.
        epochs: how often all examples are seen.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    metric: Metric
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
    batch_size: int
    epochs: int

    def with_epochs(self, epochs: int | None) -> "Recipe":
        """Return the recipe with another number of epochs; None leaves it as it is."""
        if epochs is None:
            return self
        if epochs < 1:
            raise ValueError(f"`epochs` is {epochs}: expected 1 or more.")
        return replace(self, epochs=epochs)
