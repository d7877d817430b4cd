"""The experiments of the papers by name, one file each."""

from lmu.experiments.capacity import CAPACITY
from lmu.experiments.characters import CHARACTERS
from lmu.experiments.experiment import Budget as Budget
from lmu.experiments.experiment import Experiment as Experiment
from lmu.experiments.experiment import Pretraining as Pretraining
from lmu.experiments.experiment import Provenance as Provenance
from lmu.experiments.experiment import PublishedResult as PublishedResult
from lmu.experiments.experiment import TrainingSetup as TrainingSetup
from lmu.experiments.imdb import IMDB
from lmu.experiments.imdb_pretrained import IMDB_LANGUAGE, IMDB_PRETRAINED
from lmu.experiments.iwslt15 import IWSLT15
from lmu.experiments.lost_samples import MACKEY_GLASS_LOST, SPOKEN_DIGITS_LOST
from lmu.experiments.mackey_glass import MACKEY_GLASS
from lmu.experiments.online_regression import ONLINE_MACKEY_GLASS, ONLINE_SPEECH
from lmu.experiments.pairs import QQP, SNLI_RELATIONS
from lmu.experiments.psmnist import PSMNIST
from lmu.experiments.record import Record as Record
from lmu.experiments.running import Evaluation as Evaluation
from lmu.experiments.running import NeedsData as NeedsData
from lmu.experiments.running import Run as Run
from lmu.experiments.running import evaluate as evaluate
from lmu.experiments.running import restore as restore
from lmu.experiments.running import restore_alone as restore_alone
from lmu.experiments.scaling import SCALING
from lmu.experiments.selective_copy import SELECTIVE_COPY
from lmu.experiments.spoken_digits import SPOKEN_DIGITS
from lmu.experiments.text8 import TEXT8

__all__ = [
    "EXPERIMENTS",
    "evaluate",
    "restore",
]

EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        PSMNIST,
        MACKEY_GLASS,
        IMDB,
        QQP,
        SNLI_RELATIONS,
        IMDB_LANGUAGE,
        IMDB_PRETRAINED,
        TEXT8,
        IWSLT15,
        CAPACITY,
        SELECTIVE_COPY,
        CHARACTERS,
        SCALING,
        SPOKEN_DIGITS,
        SPOKEN_DIGITS_LOST,
        MACKEY_GLASS_LOST,
        ONLINE_MACKEY_GLASS,
        ONLINE_SPEECH,
    )
}

_RENAMED = {"Figure": PublishedResult, "Setting": TrainingSetup, "Source": Provenance}


def __getattr__(name: str) -> object:
    """Return an attribute by its earlier name."""
    if name in _RENAMED:
        return _RENAMED[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
