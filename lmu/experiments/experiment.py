"""What an experiment is: a record of what a paper did, and of what it found."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from torch import Tensor

from lmu.data import Dataset
from lmu.models import Network
from lmu.training import Recipe

PARALLELIZING = "Chilkuri and Eliasmith 2021, Parallelizing Legendre Memory Unit Training"


class Source(Enum):
    """How far a figure can be relied on: found in a public source, or remembered."""

    CONFIRMED = "confirmed"
    UNCONFIRMED = "unconfirmed"


@dataclass(frozen=True)
class Figure:
    """A published result.

    Args:
        who: the model.
        value: what it reached, in the experiment's metric.
        source: how far the figure can be relied on.
    """

    who: str
    value: float
    source: Source


@dataclass(frozen=True)
class Experiment:
    """One experiment of a paper.

    Args:
        name: what it is called on the command line.
        title: what it is, in a few words.
        paper: authors, year and title.
        table: where the paper reports it.
        target: the paper's own figure.
        baselines: what it is compared with.
        data: from a seed and a data folder (None: the default) to the examples.
        network: builds the network, its weights drawn from torch's global generator.
        recipe: how it is trained.
        decide: from outputs to decisions, so that two forms' decisions can be compared;
            None where the outputs are quantities.
    """

    name: str
    title: str
    paper: str
    table: str
    target: Figure
    baselines: tuple[Figure, ...]
    data: Callable[[int, str | os.PathLike[str] | None], Dataset]
    network: Callable[[], Network]
    recipe: Recipe
    decide: Callable[[Tensor], Tensor] | None = None
