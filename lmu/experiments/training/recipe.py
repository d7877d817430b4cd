"""A training recipe and its metric."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Metric:
    """A number that says how good predictions are: a function of sums over all examples.

        score = finalize(Σ accumulate(predictions, targets))

    Args:
        name: its name in tables and files.
        accumulate: from the predictions and targets of a batch to a vector of sums over it, so that
            only one batch of predictions is in memory at a time.
        finalize: from the sums over all batches to the number.
        higher_is_better: whether a higher number is a better one.
        digits: decimals that are printed.
    """

    name: str
    accumulate: Callable[[Tensor, Tensor], Tensor]
    finalize: Callable[[Tensor], float]
    higher_is_better: bool
    digits: int

    def score(self, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
        """Compute the number from the predictions and targets of each batch."""
        return self.finalize(sum((self.accumulate(*batch) for batch in batches), torch.zeros(())))

    def show(self, score: float) -> str:
        """Write a score with its decimals."""
        return f"{score:.{self.digits}f}"


def count_correct(scores: Tensor, targets: Tensor) -> Tensor:
    """Count the examples classified correctly, and all examples.

    Args:
        scores (examples, classes): the predictions; or (examples), one score for and against.
        targets (examples): the classes; or 1 and 0, for and against.

    Returns:
        sums (2).
    """
    decisions = scores > 0 if scores.ndim == targets.ndim else scores.argmax(-1)
    return torch.tensor([(decisions == targets).sum().item(), targets.numel()])


def sum_squares(predictions: Tensor, targets: Tensor) -> Tensor:
    """Sum the squares of the errors and of the targets.

    Args:
        predictions (...): any shape.
        targets (...): the same shape.

    Returns:
        sums (2), float64.
    """
    errors = (predictions - targets).double().square().sum()
    return torch.stack([errors, targets.double().square().sum()])


def percentage(sums: Tensor) -> float:
    """Divide the first sum by the second: 0 … 100."""
    return (100.0 * sums[0].double() / sums[1]).item()


def root_ratio(sums: Tensor) -> float:
    """Divide the first sum by the second and take the root: RMSE / RMS(targets).

    It is 0 for perfect predictions, 1 for those that are always zero.
    """
    return math.sqrt(sums[0] / sums[1])


ACCURACY = Metric("accuracy", count_correct, percentage, higher_is_better=True, digits=2)
NRMSE = Metric("NRMSE", sum_squares, root_ratio, higher_is_better=False, digits=4)


def constant_rate(done: float) -> float:
    """Keep the learning rate constant."""
    return 1.0


def name_of(function: Callable[..., object]) -> str:
    """Return a function's name, with the keyword arguments that `partial` has fixed."""
    if not isinstance(function, partial):
        return str(getattr(function, "__name__", type(function).__name__))
    given = ", ".join(f"{name}={value!r}" for name, value in function.keywords.items())
    return f"{name_of(function.func)}({given})"


@dataclass(frozen=True)
class Recipe:
    """A training recipe: loss, metric, optimiser, batch size, epochs.

    Args:
        loss: from predictions and targets of a batch to a number.
        metric: chooses the best epoch, on the validation examples.
        optimizer: from the parameters to an optimiser.
        batch_size: examples in a step, and in a batch that is scored.
        epochs: how often all examples are seen. 0: the network is scored as it was built.
        examples: how many examples, drawn anew, make an epoch; None: all.
        bucket_by: from all inputs to a number for each, such as its length; batches are made of
            inputs with similar numbers, so that there is little padding. None: batches are random.
        schedule: from the share of all steps already taken, 0 … 1, to a factor for the learning
            rates of the optimiser.
        max_gradient_norm: the largest norm of all gradients together; longer ones are scaled down
            to it. None: they are not scaled.
        curriculum: from the inputs and targets of a batch, and the share of all steps already
            taken, to easier or fewer ones (Bengio et al. 2009). None: they are used as they are.
        adversarial_distance: how far, in Euclidean norm, inputs are moved in the direction that
            raises the loss most, x + distance · g / |g| with g the gradient of the loss. Half of
            the loss is then that of the moved inputs (Goodfellow, Shlens and Szegedy 2015). 0: they
            are not moved.
        with_validation: whether to train on the validation examples too, with a recipe that was
            chosen while they were held out. Then no epoch is chosen: the last one counts.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    metric: Metric
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
    batch_size: int
    epochs: int
    examples: int | None = None
    bucket_by: Callable[[Tensor], Tensor] | None = None
    schedule: Callable[[float], float] = constant_rate
    max_gradient_norm: float | None = None
    curriculum: Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]] | None = None
    adversarial_distance: float = 0.0
    with_validation: bool = False

    def describe(self) -> dict[str, float | str | None]:
        """Return all settings but the optimiser's own, as JSON values, for a record."""
        return {
            "loss": name_of(self.loss),
            "schedule": name_of(self.schedule),
            "max_gradient_norm": self.max_gradient_norm,
            "curriculum": None if self.curriculum is None else name_of(self.curriculum),
            "adversarial_distance": self.adversarial_distance,
            "validation": "trained on" if self.with_validation else "kept apart",
            "bucket_by": None if self.bucket_by is None else name_of(self.bucket_by),
        }

    def with_epochs(self, epochs: int | None) -> "Recipe":
        """Return the recipe with another number of epochs; None keeps its own."""
        if epochs is None:
            return self
        if epochs < 1:
            raise ValueError(f"`epochs` is {epochs}: expected 1 or more.")
        return replace(self, epochs=epochs)

    def with_learning_rate(self, rate: float | None) -> "Recipe":
        """Return the recipe with another learning rate for all parameters; None keeps its own."""
        if rate is None:
            return self
        if not 0 < rate < math.inf:
            raise ValueError(f"`learning_rate` is {rate}: expected a positive number.")
        # Recipes hold partial functions of an optimiser's class: a later rate replaces the first.
        changed = partial(cast(Callable[..., torch.optim.Optimizer], self.optimizer), lr=rate)
        return replace(self, optimizer=changed)
