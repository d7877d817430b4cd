"""psMNIST: the digit from its 784 pixels, read one at a time in a shuffled order.

The recipe is the paper's: d = 468, θ = 784, 346 rectified units read at the last step only
(equation 25: the other 783 states are never computed), dropout of one half on the memory, a linear
layer to the ten classes, cross-entropy, Adam at 1e-3, batches of 100, pixels in [-1, 1], 100
epochs, the weights of the best validation epoch. Each seed draws a permutation of its own.

The paper counts 166,092 parameters with the input encoder u = U_x x + b_u. Ours has 166,090: W_m
and b_o can take over the encoder's scale and offset (see `SequenceClassifier`), and without those
the memory's last state is the same in each epoch and is computed once.

`best` is ours: a memory of order 784, which keeps the whole sequence, and two layers of 512 units
after it, trained against an adversary (see `Recipe.adversarial_distance`) with a learning rate
that falls to zero. It was chosen on the validation images of seed 0, and is trained on all 60,000.

The unit of 2019 and an LSTM of about its size have to run step by step: an epoch takes eight and
eleven minutes on two cores. On the quick budget they see 5,000 images an epoch.

A memory that keeps the whole sequence is an invertible map of the 784 pixels, so that the layers
after it read the whole image. The plain baselines are therefore perceptrons and logistic regression
on all pixels at once, of the same sizes, with the same recipes.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from lmu.experiments.data import Dataset, permuted_mnist
from lmu.experiments.experiment import (
    PARALLELIZING,
    Budget,
    Experiment,
    Folder,
    Model,
    Provenance,
    PublishedResult,
    TrainingSetup,
    most_likely,
)
from lmu.experiments.models import (
    DeepClassifier,
    LayerClassifier,
    Network,
    Pixels,
    SequenceClassifier,
)
from lmu.experiments.training import ACCURACY, Recipe
from lmu.initializers import PSMNIST_2019
from lmu.layers import LMU, LSTM


def load_images(seed: int, folder: Folder, budget: Budget) -> Dataset:
    """Return all images, for every budget."""
    return permuted_mnist(seed, folder)


def parallel_lmu(data: Dataset) -> SequenceClassifier:
    """Build the network of 166,090 parameters."""
    return SequenceClassifier(
        classes=10, hidden_size=346, order=468, theta=784.0, memory_dropout=0.5
    )


RECIPE = Recipe(
    loss=torch.nn.functional.cross_entropy,
    metric=ACCURACY,
    optimizer=partial(torch.optim.Adam, lr=1e-3, fused=True),
    batch_size=100,
    epochs=100,
)


def deep_lmu(data: Dataset) -> DeepClassifier:
    """Build a network of 670,218 parameters."""
    return DeepClassifier(classes=10, hidden_sizes=(512, 512), order=784, theta=784.0, dropout=0.2)


def cosine_decay(done: float) -> float:
    """Let the learning rate fall to zero along half a cosine."""
    return 0.5 * (1.0 + math.cos(math.pi * done))


# Chosen while the validation images were held out.
BEST = replace(
    RECIPE, epochs=40, schedule=cosine_decay, adversarial_distance=2.0, with_validation=True
)


def lmu_2019(data: Dataset) -> LayerClassifier:
    """Build the unit of 2019, read at the last step: 102,027 parameters."""
    unit = LMU.original(1, 212, order=256, theta=784.0, initializers=PSMNIST_2019)
    return LayerClassifier(unit, classes=10)


def lstm(data: Dataset) -> LayerClassifier:
    """Build an LSTM, read at the last step: 183,602 parameters."""
    return LayerClassifier(LSTM(1, 212), classes=10)


def perceptron(data: Dataset) -> Pixels:
    """Build a perceptron on all pixels at once, of the size of `lmu`: 165,370 parameters."""
    return Pixels(784, (208,), classes=10, dropout=0.5)


def best_perceptron(data: Dataset) -> Pixels:
    """Build a perceptron of the size of `best`: 669,706 parameters."""
    return Pixels(784, (512, 512), classes=10, dropout=0.2)


def logistic_regression(data: Dataset) -> Pixels:
    """Build a linear layer on all pixels at once: 7,850 parameters."""
    return Pixels(784, (), classes=10)


def both(network: Callable[[Dataset], Network], recipe: Recipe, quick: int) -> Model:
    """Return the settings of the two budgets, which differ only in their epochs."""
    return {
        Budget.FULL: TrainingSetup(network, recipe),
        Budget.QUICK: TrainingSetup(network, recipe.with_epochs(quick)),
    }


RECIPE_2019 = replace(RECIPE, epochs=10)
QUICK_2019 = replace(RECIPE_2019, epochs=4, examples=5_000)


PSMNIST = Experiment(
    name="psmnist",
    title="permuted sequential MNIST",
    paper=PARALLELIZING,
    table="psMNIST, test accuracy in percent",
    target=PublishedResult("parallel LMU (the paper)", 98.49, Provenance.CONFIRMED, 166_092),
    baselines=(
        PublishedResult("HiPPO-LegS", 98.3, Provenance.CONFIRMED),
        PublishedResult("LMU (2019)", 97.15, Provenance.CONFIRMED, 102_027),
        PublishedResult("NRU", 95.38, Provenance.UNCONFIRMED),
        PublishedResult("LSTM", 89.86, Provenance.CONFIRMED),
    ),
    data=load_images,
    models={
        "lmu": both(parallel_lmu, RECIPE, 10),
        "best": both(deep_lmu, BEST, 5),
        "lmu-2019": {
            Budget.FULL: TrainingSetup(lmu_2019, RECIPE_2019),
            Budget.QUICK: TrainingSetup(lmu_2019, QUICK_2019),
        },
        "lstm": {
            Budget.FULL: TrainingSetup(lstm, RECIPE_2019),
            Budget.QUICK: TrainingSetup(lstm, QUICK_2019),
        },
        "perceptron": both(perceptron, RECIPE, 10),
        "best-perceptron": both(best_perceptron, BEST, 5),
        "logistic": both(logistic_regression, RECIPE, 10),
    },
    decide=most_likely,
)
