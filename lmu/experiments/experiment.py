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
    """How far a figure can be relied on: found in a public source, or remembered."""

    CONFIRMED = "confirmed"
    UNCONFIRMED = "unconfirmed"


@dataclass(frozen=True)
class PublishedResult:
    """A published result.

    Args:
        who: the model.
        value: what it reached, in the experiment's metric.
        source: how far the figure can be relied on.
        parameters: how many numbers were trained; None where it is not known.
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
    """Another experiment, whose model is trained first, with the same seed and budget.

    Args:
        experiment: which.
        hand_over: gives what its network has learned to the network that is trained next.
    """

    experiment: "Experiment"
    hand_over: Callable[[Network, Network], None]


@dataclass(frozen=True)
class TrainingSetup:
    """A network and its training recipe.

    Args:
        network: builds the network for the data, its weights drawn from torch's global generator.
        recipe: how it is trained.
        pretraining: what is trained before, and handed over. None: nothing.
    """

    network: Callable[[Dataset], Network]
    recipe: Recipe
    pretraining: Pretraining | None = None


Model = Mapping[Budget, TrainingSetup]  # what each budget pays for
Folder = str | os.PathLike[str] | None  # of data; None: the default


@dataclass(frozen=True)
class Experiment:
    """One experiment of a paper.

    Args:
        name: what it is called on the command line.
        title: what it is, in a few words.
        paper: authors, year and title.
        table: where the paper reports it.
        target: the paper's own figure; None where none is known.
        baselines: what it is compared with.
        data: from a seed, a data folder and a budget to the examples.
        models: the paper's model, which comes first, and those that we train to compare it with.
        decide: from outputs to decisions, so that two forms' decisions can be compared;
            None where the outputs are quantities.
        examine: further figures of a trained network on the test examples, by their names. The
            first is the one that the paper reports. None: the metric's is.
        versions: of what these figures are computed by, by name, for the record.
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
            model: which; None is the paper's.
            budget: how much is spent.

        Raises:
            ValueError: there is no such model.
        """
        if model is not None and model not in self.models:
            raise ValueError(
                f"`{self.name}` has no model `{model}`: expected one of {', '.join(self.models)}."
            )
        return self.models[model or self.model][budget]


def most_likely(scores: Tensor) -> Tensor:
    """Return the class of the highest score."""
    return scores.argmax(-1)


def for_or_against(scores: Tensor) -> Tensor:
    """Return the decision of one score."""
    return scores > 0
