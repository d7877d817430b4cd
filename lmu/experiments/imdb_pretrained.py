"""IMDB after pretraining a language model on reviews without labels.

A language model with small windows (as in the experiment `text8`, but of words) predicts the next
word of the unlabelled reviews. Then all its layers are mixed with learned weights (Peters et al.
2018), a memory of order 1 sums them up to the end of the review, and one score is read from it;
everything is trained further. `lstm` has LSTMs in place of the layers with windows, and is
pretrained in the same way. `scratch` is the network with windows, without pretraining, and
`bag-of-words` is naive Bayes on the same words of the same reviews, trained further as a logistic
regression.

The paper's model has 34 million parameters and was pretrained on Amazon reviews. Sizes, learning
rates and epochs here are our choice. The score depends most on how much of a review is read: the
last words say more than the first, and all of them more than either. So a long review keeps its
beginning and its end. The unlabelled reviews are put one after the other and cut into pieces of 120
words, without padding between them. Only the most frequent words are predicted: as targets all
others are one unknown word, while as inputs they remain words of their own. `ngrams` counts which
word follows which.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from lmu.experiments.data import Dataset, Split, Vocabulary, imdb_reviews
from lmu.experiments.data.imdb import Reviews, split_labelled
from lmu.experiments.data.vocabulary import BEGIN, END, PADDING, UNKNOWN
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
from lmu.experiments.models import (
    BagOfWords,
    LanguageModel,
    Network,
    NGrams,
    TextClassifier,
    TextReader,
    Words,
)
from lmu.experiments.texts import (
    binary_loss,
    binary_recipe,
    mean,
    padded_loss,
    sum_nats,
    warmup_then_cosine,
)
from lmu.experiments.training import ACCURACY, Metric, Recipe
from lmu.layers import LSTM, Residual, ScalarMix, Stack, memory_blocks
from lmu.memory import LegendreMemory

WORDS = {Budget.QUICK: 30_000, Budget.FULL: 30_000}  # words that can be read
SAID = {Budget.QUICK: 2_000, Budget.FULL: 8_000}  # words that can be predicted
LONGEST = {Budget.QUICK: 600, Budget.FULL: 1024}  # words of a labelled review
BEGINNING = 100  # words from the beginning of a longer one
PIECE = 120  # words in a piece of the unlabelled ones
SIZES = {  # width, windows, channels
    Budget.QUICK: (64, (5.0, 10.0), 16),
    Budget.FULL: (256, (5.0, 10.0, 10.0, 20.0), 64),
}
HELD_BACK = 2_000  # unlabelled reviews to choose by, and as many to test
ASIDE = 5_000  # labelled reviews to choose by

NATS_PER_WORD = Metric("nats per word", sum_nats, mean, higher_is_better=False, digits=3)


def build_vocabulary(reviews: Reviews, budget: Budget) -> Vocabulary:
    """Number the most frequent words of the training reviews."""
    learned = (texts for (part, _), texts in reviews.items() if part == "train")
    return Vocabulary.of((text for texts in learned for text in texts), most=WORDS[budget])


def load_unlabelled(seed: int, folder: Folder, budget: Budget) -> Dataset:
    """Return the unlabelled reviews in pieces, each word to be predicted from the words before."""
    reviews = imdb_reviews(folder, unlabelled=True)
    words = build_vocabulary(reviews, budget)
    texts = reviews["train", "unsup"]
    held_back = min(HELD_BACK, len(texts) // 4)
    edges = (0, held_back, 2 * held_back, len(texts))
    validation, test, train = (
        cut_into_pieces(texts[start:end], words, SAID[budget]) for start, end in pairwise(edges)
    )
    return Dataset(train, validation, test, words, reviews.reduced)


def cut_into_pieces(texts: list[list[str]], words: Vocabulary, said: int | None = None) -> Split:
    """Cut texts, one after the other, into pieces of equal length; only the last is padded.

    Args:
        texts: lists of words; a beginning and an end are put around each.
        words: the words' numbers.
        said: targets with this number or a higher one are replaced by the unknown word. None: none
            are.
    """
    numbers = words.numbers
    encoded = (
        torch.tensor([BEGIN, *(numbers.get(word, UNKNOWN) for word in text), END]) for text in texts
    )
    running = torch.cat([text.int() for text in encoded])
    pieces = -(-(len(running) - 1) // PIECE)
    missing = pieces * PIECE + 1 - len(running)
    running = torch.nn.functional.pad(running, (0, missing), value=PADDING)
    targets = running[1:]
    if said is not None:
        targets = torch.where(targets < said, targets, UNKNOWN)
    return Split(running[:-1].view(-1, PIECE), targets.view(-1, PIECE))


def load_reviews(seed: int, folder: Folder, budget: Budget) -> Dataset:
    """Return the labelled reviews, in the language model's words, short ones first."""
    found = imdb_reviews(folder, unlabelled=True)
    words = build_vocabulary(found, budget)
    train, validation, test = (
        short_first(split)
        for split in split_labelled(found, words, LONGEST[budget], ASIDE, BEGINNING)
    )
    return Dataset(train, validation, test, words, found.reduced)


def count_words(texts: Tensor) -> Tensor:
    """Count the words of each of `texts (texts, time)`."""
    return (texts != PADDING).sum(-1)


def short_first(split: Split) -> Split:
    """Order texts by their lengths, so that batches have little padding in scoring."""
    order = count_words(split.inputs).argsort(stable=True)
    return Split(split.inputs[order], split.targets[order])


def language_model(budget: Budget, data: Dataset) -> LanguageModel:
    """Build the language model of a budget."""
    width, thetas, channels = SIZES[budget]
    blocks = memory_blocks(width, thetas, order=5, channels=channels, dropout=0.1)
    return LanguageModel(Words(len(data.vocabulary), width), blocks, dropout=0.1, said=SAID[budget])


def lstm_language_model(budget: Budget, data: Dataset) -> LanguageModel:
    """Build the language model of a budget with LSTMs, one for each of the other's layers."""
    width, thetas, _ = SIZES[budget]
    blocks = Stack(Residual(LSTM(width, width), dropout=0.1) for _ in thetas)
    return LanguageModel(Words(len(data.vocabulary), width), blocks, dropout=0.1, said=SAID[budget])


def count_pairs(budget: Budget, data: Dataset) -> NGrams:
    """Count how often each word that can be predicted follows each word that can be read."""
    return NGrams(len(data.vocabulary), 2, *data.train, said=SAID[budget])


def classifier(
    model: Callable[[Budget, Dataset], LanguageModel], budget: Budget, data: Dataset
) -> TextClassifier:
    """Build the network that mixes all layers of a language model, with learned weights."""
    return read_all_layers(model(budget, data), float(LONGEST[budget]))


def bag(data: Dataset) -> BagOfWords:
    """Build naive Bayes on the words, to be trained further: a number for each word."""
    return BagOfWords(len(data.vocabulary), 1).count(*data.train)


def read_all_layers(model: LanguageModel, theta: float) -> TextClassifier:
    """Build a classifier that shares the words and the layers of a language model.

    Args:
        model: the language model; its layer is a `Stack`.
        theta: the length of the window of the memory that reads the layers' mixture, in words.
    """
    assert isinstance(model.layer, Stack)
    deep = ScalarMix(model.layer)
    layers = Stack([deep, LegendreMemory(deep.output_size, 1, theta)])
    reader = TextReader(model.words, layers, word_dropout=0.3)
    return TextClassifier(reader, classes=1, dropout=0.2)


def hand_over(pretrained: Network, network: Network) -> None:
    """Copy the words and the layers of a language model into a classifier."""
    assert isinstance(pretrained, LanguageModel) and isinstance(network, TextClassifier)
    own = read_all_layers(pretrained, theta=1.0)
    # The same parts have the same names. The memory's window, the mixture's weights and the scores
    # are not pretrained.
    for name in ("words", "layer.layers.0.stack"):
        learned = own.reader.get_submodule(name).state_dict()
        network.reader.get_submodule(name).load_state_dict(learned)


def language_recipe(budget: Budget) -> Recipe:
    """Train the language model."""
    quick = budget is Budget.QUICK
    return Recipe(
        loss=padded_loss,
        metric=NATS_PER_WORD,
        optimizer=partial(torch.optim.Adam, lr=8e-3 if quick else 2e-3, fused=True),
        batch_size=32 if quick else 64,
        epochs=1 if quick else 3,
        schedule=warmup_then_cosine,
        max_gradient_norm=1.0,
    )


def without_training(budget: Budget) -> Recipe:
    """Score the counts as they are, without training."""
    return replace(language_recipe(budget), epochs=0)


def classifier_recipe(budget: Budget, quick_rate: float) -> Recipe:
    """Train the classifier."""
    quick = budget is Budget.QUICK
    return Recipe(
        loss=binary_loss,
        metric=ACCURACY,
        optimizer=partial(torch.optim.Adam, lr=quick_rate if quick else 1e-3, fused=True),
        batch_size=32,
        bucket_by=count_words,
        epochs=3 if quick else 4,
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
        "lstm": {
            b: TrainingSetup(partial(lstm_language_model, b), language_recipe(b)) for b in Budget
        },
        "ngrams": {b: TrainingSetup(partial(count_pairs, b), without_training(b)) for b in Budget},
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
        name: {
            b: TrainingSetup(
                partial(classifier, model, b),
                classifier_recipe(b, rate),
                Pretraining(IMDB_LANGUAGE, hand_over, name),
            )
            for b in Budget
        }
        for name, model, rate in (
            ("lmu", language_model, 2e-3),
            ("lstm", lstm_language_model, 4e-3),
        )
    }
    | {
        "scratch": {
            b: TrainingSetup(partial(classifier, language_model, b), classifier_recipe(b, 2e-3))
            for b in Budget
        },
        "bag-of-words": dict.fromkeys(Budget, TrainingSetup(bag, binary_recipe(0.003, 4))),
    },
    decide=for_or_against,
)
