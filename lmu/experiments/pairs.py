"""QQP and SNLI: do two questions ask the same? Does a sentence follow from another?

The paper's network reads each sentence with a memory of order d = 1 over frozen vectors, and
compares the two resulting vectors, v₁ and v₂, by a linear layer on [v₁, v₂, |v₁ - v₂|, v₁·v₂]:
1,201 parameters for QQP and 3,603 for SNLI, with vectors of 300 numbers. It is here as `lmu-mean`.

With the vectors of 50 numbers that a package provides, the linear layer has 201 and 603, and `lmu`
has an encoder before the memory, as in the experiment `imdb`.

Learning rates, widths and epochs were not found; ours were chosen on validation data, in as many
trials for `lmu` as for the LSTM: fifteen for QQP and eighteen for SNLI. The LSTM was tried with 32
to 256 units, at 0.002 to 0.02, with none to half of the words left out, in 8 epochs and 12; the
same recipe is the best on the validation pairs of both. `lmu` was tried with encoders of one layer
of 32 to 256 numbers and of two layers of 64, each at 0.02, 0.05 and 0.1, and for SNLI also in 12
epochs. (Earlier trials of `lmu` were not counted: GELUs, SiLUs, rectified units, the memory at
orders 1, 2 and 4, leaving words out.) `lmu-mean` was not tuned.

`bag-of-words` is the plain baseline: naive Bayes on the words that both sentences have and those
that only one has, trained further as a logistic regression; five rates from 0.0003 to 0.03 were
tried.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch

from lmu.experiments.data import Dataset, sentence_pairs
from lmu.experiments.data.pairs import QUORA, SNLI, PairFiles
from lmu.experiments.experiment import (
    PARALLELIZING,
    Budget,
    Experiment,
    Folder,
    Model,
    Provenance,
    PublishedResult,
    TrainingSetup,
    for_or_against,
    most_likely,
)
from lmu.experiments.models import BagOfWords, PairClassifier, TextReader
from lmu.experiments.texts import binary_recipe, build_words, fading_mean, linear_decay
from lmu.experiments.training import ACCURACY, Recipe
from lmu.layers import LSTM

LONGEST = 40  # words in a sentence
EPOCHS = {Budget.QUICK: 8, Budget.FULL: 20}


def load_pairs(files: PairFiles, seed: int, folder: Folder, budget: Budget) -> Dataset:
    """Return the pairs, the same for every seed."""
    return sentence_pairs(files, folder, longest=LONGEST)


def relations_recipe(learning_rate: float, epochs: int) -> Recipe:
    """Train the scores of several classes, with a learning rate that falls to zero."""
    return Recipe(
        loss=torch.nn.functional.cross_entropy,
        metric=ACCURACY,
        optimizer=partial(torch.optim.Adam, lr=learning_rate),
        batch_size=50,
        epochs=epochs,
        schedule=linear_decay,
        max_gradient_norm=1.0,
    )


def parallel_lmu(classes: int, encoded: Sequence[int], data: Dataset) -> PairClassifier:
    """Build a memory of words or encoded words, and a linear layer that compares two texts."""
    words = build_words(data, encoded)
    return PairClassifier(fading_mean(words, float(LONGEST)), classes)


def lstm(classes: int, data: Dataset) -> PairClassifier:
    """Build an LSTM of 256 units that reads both texts."""
    words = build_words(data)
    return PairClassifier(TextReader(words, LSTM(words.width, 256), word_dropout=0.2), classes)


def bag(classes: int, data: Dataset) -> BagOfWords:
    """Build naive Bayes on the words of both sentences and of each alone, to be trained further."""
    return BagOfWords(len(data.vocabulary), classes, pairs=True).count(*data.train)


def models(
    classes: int, recipe: Callable[[float, int], Recipe], encoded: Sequence[int], rate: float
) -> dict[str, Model]:
    """Return the settings of plain and encoded memory, LSTM and bag, with their rates.

    Args:
        classes: how many scores there are.
        recipe: from a learning rate and a number of epochs to a recipe.
        encoded: the sizes of the encoder of `lmu`.
        rate: the learning rate of `lmu`.
    """
    networks = {
        "lmu-mean": (partial(parallel_lmu, classes, ()), 0.1),
        "lmu": (partial(parallel_lmu, classes, encoded), rate),
        "lstm": (partial(lstm, classes), 0.005),
        "bag-of-words": (partial(bag, classes), 0.001),
    }
    return {
        name: {budget: TrainingSetup(network, recipe(rate, EPOCHS[budget])) for budget in Budget}
        for name, (network, rate) in networks.items()
    }


QQP = Experiment(
    name="qqp",
    title="do two questions ask the same?",
    paper=PARALLELIZING,
    table="QQP, test accuracy in percent",
    target=PublishedResult("parallel LMU (the paper)", 86.95, Provenance.CONFIRMED, 1_201),
    baselines=(PublishedResult("LSTM", 82.58, Provenance.UNCONFIRMED, 800_000),),
    data=partial(load_pairs, QUORA),
    models=models(1, binary_recipe, encoded=(64, 64), rate=0.05),
    decide=for_or_against,
)

SNLI_RELATIONS = Experiment(
    name="snli",
    title="does a sentence follow from another?",
    paper=PARALLELIZING,
    table="SNLI, test accuracy in percent",
    target=PublishedResult("parallel LMU (the paper)", 78.85, Provenance.CONFIRMED, 3_603),
    baselines=(PublishedResult("LSTM", 77.6, Provenance.UNCONFIRMED),),
    data=partial(load_pairs, SNLI),
    models=models(3, relations_recipe, encoded=(256,), rate=0.02),
    decide=most_likely,
)
