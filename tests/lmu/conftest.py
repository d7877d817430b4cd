"""What the tests of the experiments share: a task that is learned in a second."""

from functools import partial

import pytest
import torch

from lmu.experiments import Budget, Experiment, Provenance, PublishedResult, TrainingSetup
from lmu.experiments.data import Dataset, Split
from lmu.experiments.models import LayerClassifier, Network, SequenceClassifier
from lmu.experiments.training import ACCURACY, Recipe
from lmu.layers import LSTM


def slow_or_fast(seed: int, folder: object, budget: Budget) -> Dataset:
    """Tell slow waves from fast ones, in 24 noisy samples."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(120) % 2
    phases = 6.3 * torch.rand(120, 1, generator=generator)
    frequencies = torch.tensor([0.3, 0.9])[targets].unsqueeze(-1)
    waves = torch.sin(frequencies * torch.arange(24) + phases)
    inputs = (waves + 0.3 * torch.randn(120, 24, generator=generator)).unsqueeze(-1)
    parts = torch.arange(120).split([60, 30, 30])
    train, validation, test = (Split(inputs[part], targets[part]) for part in parts)
    return Dataset(train, validation, test)


def parallel_lmu(data: Dataset) -> Network:
    return SequenceClassifier(classes=2, hidden_size=12, order=8, theta=24.0, memory_dropout=0.2)


def lstm(data: Dataset) -> Network:
    return LayerClassifier(LSTM(1, 8), classes=2)


RECIPE = Recipe(
    loss=torch.nn.functional.cross_entropy,
    metric=ACCURACY,
    optimizer=partial(torch.optim.Adam, lr=1e-2),
    batch_size=8,
    epochs=6,
)

TINY = Experiment(
    name="tiny",
    title="slow or fast",
    paper="nobody 2000, nothing",
    table="waves, test accuracy in percent",
    target=PublishedResult("guessing", 50.0, Provenance.CONFIRMED),
    baselines=(PublishedResult("hoping", 51.0, Provenance.UNCONFIRMED),),
    data=slow_or_fast,
    models={
        "lmu": {
            Budget.FULL: TrainingSetup(parallel_lmu, RECIPE),
            Budget.QUICK: TrainingSetup(parallel_lmu, RECIPE.with_epochs(2)),
        },
        "lstm": {
            Budget.FULL: TrainingSetup(lstm, RECIPE),
            Budget.QUICK: TrainingSetup(lstm, RECIPE.with_epochs(2)),
        },
    },
    decide=lambda scores: scores.argmax(-1),
)


@pytest.fixture(autouse=True)
def draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no learning curves: that takes most of a second of training, and one test does it."""
    monkeypatch.setattr("lmu.experiments.training.loop.learning_curve", lambda *_: b"")


@pytest.fixture
def tiny() -> Experiment:
    """An experiment of the size of a test."""
    return TINY
