"""text8 at four sizes: how the loss falls with the number of parameters.

The blocks with memories, LSTM and minGRU of `text8`, each at about 25, 100, 400 and 1,600 thousand
parameters. All read the same 5.4 million letters in the same order, in batches of 8 windows, at one
learning rate that was tuned for none. The largest would go on to learn from more letters.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from lmu.experiments.data import Dataset
from lmu.experiments.experiment import PARALLELIZING, Budget, Experiment, TrainingSetup, most_likely
from lmu.experiments.models import LanguageModel
from lmu.experiments.text8 import load_windows, lstm, min_gru, recipe, rectified_blocks

RATE = 3e-3  # of learning
THETAS = (5.0, 10.0, 30.0)

# The widths of each, from the smallest on.
NETWORKS: dict[str, tuple[Callable[[int, Dataset], LanguageModel], tuple[int, ...]]] = {
    "blocks": (lambda width, data: rectified_blocks(width, THETAS, data), (40, 80, 160, 320)),
    "lstm": (lstm, (54, 110, 224, 444)),
    "min-gru": (lambda width, data: min_gru(width, 3, data), (38, 76, 152, 306)),
}
SIZES = ("25k", "100k", "400k", "1600k")


def setups(network: Callable[[Dataset], LanguageModel]) -> dict[Budget, TrainingSetup]:
    """Train on as many letters on either budget: `full` repeats six times as many."""
    quick = recipe(RATE, Budget.QUICK, 8)
    return {
        Budget.FULL: TrainingSetup(network, replace(quick, epochs=36)),
        Budget.QUICK: TrainingSetup(network, quick),
    }


SCALING = Experiment(
    name="scaling",
    title="the next letter of running text, at four sizes",
    paper=PARALLELIZING,
    table="none: text8 at four sizes, bits per character of the test text",
    target=None,
    baselines=(),
    data=load_windows,
    models={
        f"{name}-{size}": setups(partial(network, width))
        for name, (network, widths) in NETWORKS.items()
        for size, width in zip(SIZES, widths, strict=True)
    },
    decide=most_likely,
)
