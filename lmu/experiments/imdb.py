"""IMDB: is a film review for or against the film?

The paper's network has three parts: frozen vectors of the words; a memory of order d = 1 whose
window θ is the longest text, so that it is a fading sum over the words; and one score read from
the memory's last state. With vectors of 300 numbers it has 301 parameters. It is here as
`lmu-mean`.

The vectors that a package provides have only 50 numbers, and a linear score gets less out of them:
its 51 parameters end near 74 percent. So `lmu` first encodes each word as in equation 18, but
twice: into 16 numbers, and these into 8, which are remembered in place of the vector. In training
half of the words are left out, others each time. That is 961 parameters.

`vectors` trains vectors of 16 numbers itself, with the same memory and score, and with half of the
words left out: 1.2 million parameters.

All three add up one number per word, which fades with the distance from the end; an encoder or a
vector only changes how that number is computed. They are weighted bags of words.

The paper's learning rates, epochs and lengths were not found. Ours were chosen on validation data,
on one seed, in twelve trials for `lmu` and twelve for `lstm`. Tried for `lmu`: one to three layers
of 8 to 64 numbers; three tenths, half or seven tenths of the words left out; rates of 0.02 to 0.1;
20 and 40 epochs. (Earlier trials were not counted: layers of up to 256 numbers, rectified units,
SiLUs and tanh, rates of 0.01 to 0.3, up to 80 epochs, windows from 200 words on.) Tried for `lstm`:
32, 64 and 128 units; no words left out, a fifth, three tenths; rates of 0.002 to 0.02; four to
eight epochs. `lmu-mean` was tried at one rate. Reviews are cut after 400 words (`quick`) or 1,024.

`lstm-vectors` is an LSTM of 64 units that trains vectors of 16 numbers. Tried on one seed: rates of
0.003 and 0.01 with half of the words left out, in six epochs; 0.01 with three tenths left out; and
none left out, in four epochs.

Tried for `vectors`, on one seed: rates of 0.003, 0.01 and 0.03; no words left out, three tenths,
half; four epochs and six.

`bag-of-words` is the plain baseline: naive Bayes on the same words, trained further as a logistic
regression; five rates from 0.0003 to 0.03 were tried.
"""

from collections.abc import Sequence
from functools import partial

from lmu.experiments.data import Dataset, glove_vocabulary, imdb_reviews
from lmu.experiments.data.imdb import split_labelled
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
)
from lmu.experiments.models import BagOfWords, TextClassifier, TextReader, Words
from lmu.experiments.texts import binary_recipe, build_words, fading_mean
from lmu.layers import LSTM

LONGEST = {Budget.QUICK: 400, Budget.FULL: 1024}  # words
ASIDE = 5_000  # reviews to choose by


def load_reviews(seed: int, folder: Folder, budget: Budget) -> Dataset:
    """Return the labelled reviews, the same for every seed, cut to the budget's length."""
    found = imdb_reviews(folder)
    words = glove_vocabulary((text for texts in found.values() for text in texts), folder)
    splits = split_labelled(found, words, LONGEST[budget], ASIDE)
    return Dataset(*splits, words, found.reduced)


def parallel_lmu(
    theta: int, encoded: Sequence[int], word_dropout: float, data: Dataset
) -> TextClassifier:
    """Build a memory of words, or of encoded words, and the score that is read from it."""
    words = build_words(data, encoded)
    return TextClassifier(fading_mean(words, float(theta), word_dropout), classes=1)


def trained_vectors(theta: int, data: Dataset) -> TextClassifier:
    """Build a memory of trained vectors of 16 numbers."""
    words = Words(len(data.vocabulary), 16)
    return TextClassifier(fading_mean(words, float(theta), 0.5), classes=1)


def lstm(data: Dataset) -> TextClassifier:
    """Build an LSTM of 128 units; in training a fifth of the words are left out."""
    words = build_words(data)
    reader = TextReader(words, LSTM(words.width, 128), word_dropout=0.2)
    return TextClassifier(reader, classes=1)


def lstm_vectors(data: Dataset) -> TextClassifier:
    """Build an LSTM of 64 units that reads trained vectors of 16 numbers."""
    words = Words(len(data.vocabulary), 16)
    return TextClassifier(TextReader(words, LSTM(words.width, 64)), classes=1)


def bag(data: Dataset) -> BagOfWords:
    """Build naive Bayes on the words, to be trained further: a number for each word."""
    return BagOfWords(len(data.vocabulary), 1).count(*data.train)


def memory(
    learning_rate: float, epochs: int, encoded: Sequence[int] = (), word_dropout: float = 0.0
) -> Model:
    """Return the settings of a memory whose window is the budget's longest text."""
    recipe = binary_recipe(learning_rate, epochs)
    return {
        budget: TrainingSetup(partial(parallel_lmu, theta, encoded, word_dropout), recipe)
        for budget, theta in LONGEST.items()
    }


IMDB = Experiment(
    name="imdb",
    title="film reviews, for or against",
    paper=PARALLELIZING,
    table="IMDB, test accuracy in percent",
    target=PublishedResult("parallel LMU (the paper)", 89.10, Provenance.UNCONFIRMED, 301),
    baselines=(PublishedResult("LSTM", 87.29, Provenance.UNCONFIRMED, 50_000),),
    data=load_reviews,
    models={
        "lmu-mean": memory(0.1, epochs=20),
        "lmu": memory(0.05, epochs=40, encoded=[16, 8], word_dropout=0.5),
        "vectors": {
            budget: TrainingSetup(partial(trained_vectors, theta), binary_recipe(0.01, 6))
            for budget, theta in LONGEST.items()
        },
        "lstm": dict.fromkeys(Budget, TrainingSetup(lstm, binary_recipe(0.005, 6, batch_size=50))),
        "lstm-vectors": dict.fromkeys(
            Budget, TrainingSetup(lstm_vectors, binary_recipe(0.01, 4, batch_size=50))
        ),
        "bag-of-words": dict.fromkeys(Budget, TrainingSetup(bag, binary_recipe(0.003, 4))),
    },
    decide=for_or_against,
)
