"""IMDB after pretraining a language model on reviews without labels.

A language model of highway blocks with small windows (as in the experiment `text8`, but of words)
says the next word of the unlabelled reviews. Then all its layers are read, each with a learned
share (Peters et al. 2018), a memory of order 1 sums them up to the end of the review, and one score
is read from it; everything is trained on. `scratch` is the same network without the first part.

The paper's model has 34 million parameters and was pre-trained on Amazon reviews. Sizes, learning
rates and epochs here are our choice: `quick` has vectors of 128 numbers, three blocks and the
10,000 most frequent words, reads pieces of 120 words of the unlabelled reviews and the first 128
words of the labelled ones. Its figure is not one to compare with the paper's. Three tenths of the
words are left out when the classifier is trained, at 5e-4: at 1e-3 with all words the pre-trained
one was best on validation data after the first epoch.
"""

from functools import partial
from itertools import pairwise

import torch

from lmu.experiments.data import Dataset, Split, Vocabulary, imdb_reviews
from lmu.experiments.data.imdb import Reviews, split_labelled
from lmu.experiments.data.vocabulary import BEGIN, END
from lmu.experiments.experiment import (
    PARALLELIZING,
    Budget,
    Experiment,
    Folder,
    Pretraining,
    Provenance,
    PublishedResult,
    TrainingSetup,
    for_or_against,
)
from lmu.experiments.models import LanguageModel, Network, TextClassifier, TextReader, Words
from lmu.experiments.texts import (
    binary_loss,
    mean,
    padded_loss,
    sum_nats,
    warmup_then_cosine,
)
from lmu.experiments.training import ACCURACY, Metric, Recipe
from lmu.layers import ScalarMix, Stack, window_blocks
from lmu.memory import LegendreMemory

WORDS = {Budget.QUICK: 10_000, Budget.FULL: 30_000}
LONGEST = {Budget.QUICK: 128, Budget.FULL: 400}  # words of a labelled review
PIECE = 120  # words of an unlabelled one
SIZES = {Budget.QUICK: (128, 3, 32), Budget.FULL: (512, 6, 128)}  # width, depth, channels
HELD_BACK = 2_000  # unlabelled reviews to choose by, and as many to test
ASIDE = 5_000  # labelled reviews to choose by

NATS_PER_WORD = Metric("nats per word", sum_nats, mean, higher_is_better=False, digits=3)


def build_vocabulary(reviews: Reviews, budget: Budget) -> Vocabulary:
    """Number the most frequent words of the reviews that may be learned from."""
    learned = (texts for (part, _), texts in reviews.items() if part == "train")
    return Vocabulary.of((text for texts in learned for text in texts), most=WORDS[budget])


def load_unlabelled(seed: int, folder: Folder, budget: Budget) -> Dataset:
    """Return the unlabelled reviews in pieces, each word to be said from those before."""
    reviews = imdb_reviews(folder, unlabelled=True)
    words = build_vocabulary(reviews, budget)
    texts = reviews["train", "unsup"]
    held_back = min(HELD_BACK, len(texts) // 4)
    edges = (0, held_back, 2 * held_back, len(texts))
    validation, test, train = (
        cut_into_pieces(texts[start:end], words) for start, end in pairwise(edges)
    )
    return Dataset(train, validation, test, words, reviews.reduced)


def cut_into_pieces(texts: list[list[str]], words: Vocabulary) -> Split:
    """Cut texts, with their beginning and end, into pieces of equal length, padded at the end."""
    rows = []
    for numbers in words.encode(texts).tolist():
        kept = [BEGIN, *(number for number in numbers if number), END]
        rows += [kept[start : start + PIECE + 1] for start in range(0, len(kept) - 1, PIECE)]
    padded = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(row, dtype=torch.int32) for row in rows], batch_first=True
    )
    return Split(padded[:, :-1].contiguous(), padded[:, 1:].contiguous())


def load_reviews(seed: int, folder: Folder, budget: Budget) -> Dataset:
    """Return the labelled reviews, in the words of the language model."""
    found = imdb_reviews(folder, unlabelled=True)
    words = build_vocabulary(found, budget)
    return Dataset(*split_labelled(found, words, LONGEST[budget], ASIDE), words, found.reduced)


def language_model(budget: Budget, data: Dataset) -> LanguageModel:
    """Build the language model of a budget."""
    width, depth, channels = SIZES[budget]
    blocks = window_blocks(width, depth, order=5, theta=10.0, channels=channels, dropout=0.1)
    return LanguageModel(Words(len(data.vocabulary), width), blocks, dropout=0.1)


def classifier(budget: Budget, data: Dataset) -> TextClassifier:
    """Build the network that reads all layers of such a model, by learned shares."""
    return read_all_layers(language_model(budget, data), float(LONGEST[budget]))


def read_all_layers(model: LanguageModel, theta: float) -> TextClassifier:
    """Build a classifier that shares the words and the layers of a language model.

    Args:
        model: the language model, of a `Stack`.
        theta: the length of the window in which the layers' sum is remembered, in words.
    """
    assert isinstance(model.layer, Stack)
    deep = ScalarMix(model.layer)
    layers = Stack([deep, LegendreMemory(deep.output_size, 1, theta)])
    reader = TextReader(model.words, layers, word_dropout=0.3)
    return TextClassifier(reader, classes=1, dropout=0.2)


def hand_over(pretrained: Network, network: Network) -> None:
    """Give the words and the layers of a language model to a classifier."""
    assert isinstance(pretrained, LanguageModel) and isinstance(network, TextClassifier)
    own = read_all_layers(pretrained, theta=1.0)
    # Of the same parts by the same names; the memory's window, the shares and the scores are not
    # learned before.
    for name in ("words", "layer.layers.0.stack"):
        learned = own.reader.get_submodule(name).state_dict()
        network.reader.get_submodule(name).load_state_dict(learned)


def language_recipe(budget: Budget) -> Recipe:
    """Train the language model."""
    quick = budget is Budget.QUICK
    return Recipe(
        loss=padded_loss,
        metric=NATS_PER_WORD,
        optimizer=partial(torch.optim.Adam, lr=2e-3),
        batch_size=16,
        epochs=4 if quick else 10,
        examples=8_000 if quick else None,
        schedule=warmup_then_cosine,
        max_gradient_norm=1.0,
    )


def classifier_recipe(budget: Budget) -> Recipe:
    """Train the classifier."""
    quick = budget is Budget.QUICK
    return Recipe(
        loss=binary_loss,
        metric=ACCURACY,
        optimizer=partial(torch.optim.Adam, lr=5e-4),
        batch_size=32,
        epochs=3 if quick else 5,
        schedule=warmup_then_cosine,
        max_gradient_norm=1.0,
    )


IMDB_LANGUAGE = Experiment(
    name="imdb-language",
    title="the next word of film reviews",
    paper=PARALLELIZING,
    table="IMDB's unlabelled reviews, nats per word",
    target=None,
    baselines=(),
    data=load_unlabelled,
    models={
        "lmu": {b: TrainingSetup(partial(language_model, b), language_recipe(b)) for b in Budget},
    },
)

IMDB_PRETRAINED = Experiment(
    name="imdb-pretrained",
    title="film reviews, after a language model of film reviews",
    paper=PARALLELIZING,
    table="IMDB after pre-training, test accuracy in percent",
    target=PublishedResult("parallel LMU (the paper)", 93.20, Provenance.CONFIRMED, 34_000_000),
    baselines=(
        PublishedResult("LSTM", 92.88, Provenance.UNCONFIRMED, 75_000_000),
        PublishedResult("DistilBERT", 92.82, Provenance.UNCONFIRMED, 66_000_000),
    ),
    data=load_reviews,
    models={
        "lmu": {
            b: TrainingSetup(
                partial(classifier, b), classifier_recipe(b), Pretraining(IMDB_LANGUAGE, hand_over)
            )
            for b in Budget
        },
        "scratch": {b: TrainingSetup(partial(classifier, b), classifier_recipe(b)) for b in Budget},
    },
    decide=for_or_against,
)
