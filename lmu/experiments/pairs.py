"""QQP and SNLI: do two questions ask the same? Does a sentence follow from another?

The paper's network reads each sentence with a memory of order d = 1 over frozen vectors, and
compares what is left of the two, v₁ and v₂, by a line on [v₁, v₂, |v₁ - v₂|, v₁·v₂]: 1,201
parameters for QQP and 3,603 for SNLI, with vectors of 300 numbers. It is here as `lmu-mean`.

With the vectors of 50 numbers that a package brings the line has 201 and 603, and `lmu` has an
encoder before the memory, as in the experiment `imdb`.

Learning rates, widths and epochs were not found. For `lmu` an encoder of 64 numbers at 0.02 was the
better on SNLI's validation data; 16 numbers at 0.05, and 64 with dropout, were tried beside it, and
test scores were printed. QQP has the same settings, untried. `lmu-mean` and the LSTM are not tuned.
"""

from collections.abc import Callable
from functools import partial

import torch

from lmu.data import Dataset, sentence_pairs
from lmu.data.pairs import QUORA, SNLI, PairFiles
from lmu.experiments.experiment import (
    PARALLELIZING,
    Budget,
    Experiment,
    Figure,
    Folder,
    Model,
    Setting,
    Source,
    for_or_against,
    most_likely,
)
from lmu.experiments.texts import (
    binary_recipe,
    falling,
    with_vectors,
)
from lmu.models import lstm_pair_classifier, memory_pair_classifier
from lmu.training import ACCURACY, Recipe

LONGEST = 40  # words of a sentence
EPOCHS = {Budget.QUICK: 8, Budget.FULL: 20}


def pairs(files: PairFiles, seed: int, folder: Folder, budget: Budget) -> Dataset:
    """Return the pairs, the same for every seed."""
    return sentence_pairs(files, folder, longest=LONGEST)


def relations_recipe(learning_rate: float, epochs: int) -> Recipe:
    """Train the scores of several classes, at a learning rate that falls to zero."""
    return Recipe(
        loss=torch.nn.functional.cross_entropy,
        metric=ACCURACY,
        optimizer=partial(torch.optim.Adam, lr=learning_rate),
        batch_size=50,
        epochs=epochs,
        schedule=falling,
        largest_gradient=1.0,
    )


def models(classes: int, recipe: Callable[[float, int], Recipe]) -> dict[str, Model]:
    """Return the settings of the encoded memory, the plain one, and the LSTM."""
    theta = float(LONGEST)
    networks = {
        "lmu": (
            with_vectors(memory_pair_classifier, classes=classes, theta=theta, encoded=[64]),
            0.02,
        ),
        "lmu-mean": (with_vectors(memory_pair_classifier, classes=classes, theta=theta), 0.1),
        "lstm": (with_vectors(lstm_pair_classifier, classes=classes, hidden_size=64), 0.003),
    }
    return {
        name: {budget: Setting(network, recipe(rate, EPOCHS[budget])) for budget in Budget}
        for name, (network, rate) in networks.items()
    }


QQP = Experiment(
    name="qqp",
    title="do two questions ask the same?",
    paper=PARALLELIZING,
    table="QQP, test accuracy in percent",
    target=Figure("parallel LMU (the paper)", 86.95, Source.CONFIRMED, 1_201),
    baselines=(Figure("LSTM", 82.58, Source.UNCONFIRMED, 800_000),),
    data=partial(pairs, QUORA),
    models=models(1, binary_recipe),
    decide=for_or_against,
)

SNLI_RELATIONS = Experiment(
    name="snli",
    title="does a sentence follow from another?",
    paper=PARALLELIZING,
    table="SNLI, test accuracy in percent",
    target=Figure("parallel LMU (the paper)", 78.85, Source.CONFIRMED, 3_603),
    baselines=(Figure("LSTM", 77.6, Source.UNCONFIRMED),),
    data=partial(pairs, SNLI),
    models=models(3, relations_recipe),
    decide=most_likely,
)
