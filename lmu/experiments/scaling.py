"""text8 at four sizes and three lengths: how the loss falls with parameters and with letters.

The networks are gated blocks with memories, LSTM and minGRU as in `text8`, without vectors of
pairs, each at about 25, 100, 400 and 1,600 thousand parameters. All read the same 5.4 million
letters in the same order, in batches of 8 windows. At 400 thousand parameters they are also trained
on half and on a sixth of these letters, with the learning rate falling to zero each time.

Each network has one learning rate: the best of those tried for `text8`, or one next to it. The
largest networks would still improve with more letters.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from lmu.experiments.data import Dataset
from lmu.experiments.experiment import PARALLELIZING, Budget, Experiment, TrainingSetup, most_likely
from lmu.experiments.models import LanguageModel
from lmu.experiments.text8 import gated_blocks, load_windows, lstm, min_gru, recipe

SIZES = ("25k", "100k", "400k", "1600k")
SHARES = {"": 6, "-half": 3, "-sixth": 1}  # of the letters, in epochs
THETAS = (5.0, 25.0)


@dataclass(frozen=True)
class Family:
    """A network at all sizes.

    Args:
        build: from a width and the data to the network.
        widths: the widths, the smallest first.
        rate: the learning rate.
    """

    build: Callable[[int, Dataset], LanguageModel]
    widths: tuple[int, ...]
    rate: float

    def setups(self, width: int, epochs: int) -> dict[Budget, TrainingSetup]:
        """Return a width's settings: `epochs` on the quick budget, six times that on `full`."""
        quick = recipe(self.rate, Budget.QUICK)
        network = partial(self.build, width)
        return {
            Budget.FULL: TrainingSetup(network, replace(quick, epochs=6 * epochs)),
            Budget.QUICK: TrainingSetup(network, replace(quick, epochs=epochs)),
        }


FAMILIES = {
    "blocks": Family(
        lambda width, data: gated_blocks(width, THETAS, width // 10, data), (40, 83, 166, 334), 4e-3
    ),
    "lstm": Family(lstm, (54, 110, 224, 444), 8e-3),
    "min-gru": Family(lambda width, data: min_gru(width, 3, data), (38, 76, 152, 306), 8e-3),
}


SCALING = Experiment(
    name="scaling",
    title="the next letter of running text, at four sizes",
    paper=PARALLELIZING,
    table="text8 at four sizes, bits per character of the test text",
    target=None,
    baselines=(),
    data=load_windows,
    models={
        f"{name}-{size}{share}": family.setups(width, epochs)
        for name, family in FAMILIES.items()
        for size, width in zip(SIZES, family.widths, strict=True)
        for share, epochs in SHARES.items()
        if size == "400k" or not share
    },
    decide=most_likely,
)
