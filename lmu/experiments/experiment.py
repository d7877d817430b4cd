"""The record of an experiment: a paper's task, models and results."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum

from torch import Tensor

from lmu.experiments.data import Dataset
from lmu.experiments.models import Network
from lmu.experiments.training import Recipe

PARALLELIZING = "Chilkuri and Eliasmith 2021, Parallelizing Legendre Memory Unit Training"
LEGENDRE = "Voelker, Kajić and Eliasmith 2019, Legendre Memory Units"


class Provenance(Enum):
    """The reliability of a figure: found in a public source, or remembered."""

    CONFIRMED = "confirmed"
    UNCONFIRMED = "unconfirmed"


@dataclass(frozen=True)
class PublishedResult:
    """A published result.

    Args:
        who: the model.
        value: its score, in the experiment's metric.
        source: how reliable the figure is.
        parameters: how many numbers were trained; None if unknown.
    """

    who: str
    value: float
    source: Provenance
    parameters: int | None = None


class Budget(StrEnum):
    """The effort of a run: the paper's, or minutes on two cores."""

    FULL = "full"
    QUICK = "quick"


@dataclass(frozen=True)
class Pretraining:
    """A model of another experiment, which is trained first, with the same seed and budget.

    Args:
        experiment: the other experiment.
        hand_over: copies what its network has learned into the network that is trained next.
        model: which of the other experiment's models; None is its first.
    """

    experiment: "Experiment"
    hand_over: Callable[[Network, Network], None]
    model: str | None = None


@dataclass(frozen=True)
class TrainingSetup:
    """A network and its training recipe.

    Args:
        network: builds the network for the data, with weights drawn from torch's global generator.
        recipe: how it is trained.
        pretraining: an experiment that is trained before. None: there is none.
    """

    network: Callable[[Dataset], Network]
    recipe: Recipe
    pretraining: Pretraining | None = None


Model = Mapping[Budget, TrainingSetup]  # the setup for each budget
Folder = str | os.PathLike[str] | None  # of data; None: the default


@dataclass(frozen=True)
class Experiment:
    """One experiment of a paper.

    Args:
        name: its name on the command line.
        title: a description in a few words.
        paper: authors, year and title.
        table: the heading of its results: the task, and what is measured.
        target: the paper's own figure; None if none is known.
        baselines: other published results, for comparison.
        data: from a seed, a data folder and a budget to the examples.
        models: the paper's model, which comes first, and other models for comparison.
        decide: from outputs to decisions, so that two forms' decisions can be compared;
            None if the outputs are quantities.
        examine: from a trained network to more figures on the test examples, by name. The first is
            the one that the paper reports. None: the paper reports the metric.
        versions: the versions of the software that computes these figures, by name, for the record.
    """

    name: str
    title: str
    paper: str
    table: str
    target: PublishedResult | None
    baselines: tuple[PublishedResult, ...]
    data: Callable[[int, Folder, Budget], Dataset]
    models: Mapping[str, Model]
    decide: Callable[[Tensor], Tensor] | None = None
    examine: Callable[[Network, Dataset], Mapping[str, float]] | None = None
    versions: Callable[[], dict[str, str]] = dict[str, str]

    @property
    def published(self) -> tuple[PublishedResult, ...]:
        """The published figures, the paper's own first."""
        return (*((self.target,) if self.target else ()), *self.baselines)

    @property
    def model(self) -> str:
        """The name of the paper's model."""
        return next(iter(self.models))

    def setting(self, model: str | None = None, budget: Budget = Budget.FULL) -> TrainingSetup:
        """Return how a model is built and trained.

        Args:
            model: its name; None is the paper's model.
            budget: the effort of the run.

        Raises:
            ValueError: there is no such model.
        """
        if model is not None and model not in self.models:
            raise ValueError(
                f"`{self.name}` has no model `{model}`: expected one of {', '.join(self.models)}."
            )
        return self.models[model or self.model][budget]


def most_likely(scores: Tensor) -> Tensor:
    """Return the class with the highest score."""
    return scores.argmax(-1)


def for_or_against(scores: Tensor) -> Tensor:
    """Return the decision, for or against, from one score."""
    return scores > 0
