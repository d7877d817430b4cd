"""IWSLT'15: from English to Vietnamese, sentence by sentence.

The paper has an encoder of LMUs and a decoder that attends to it; sizes, depth and training were
not found. Here the encoder (in both directions) and the decoder are gated layers that read
memories, each with a residual connection. The decoder attends to the source after each of its two
layers, so that the upper layer sees the result of the lower one. The LSTM's translator differs only
in its layers and its dropout. Both have the same number of parameters within five percent, and the
same pieces of words, places, batches, epochs and label smoothing. Sentences are cut for training
and for the cross-entropy, and translated whole.

`quick` was chosen by trials of one epoch and of whole recipes, as many with `lstm` as with `lmu`
(listed in docs/comparisons.md); `full` is a larger version, and was not run.

Words and pieces of words are learned from the training sentences by byte-pair encoding. BLEU is
sacrebleu's, on the words of the reference as they are (`tokenize="none"`: they are already
tokenised), for the greedy translation and for a beam of five.

`word-by-word` is the plain baseline: it counts the translations of each piece, and translates each
by itself, in the order of the source.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version

import torch
from torch import Tensor

from linrec.nn import FeedForward, Residual, Stack
from lmu.experiments.data import Dataset, iwslt15
from lmu.experiments.data.iwslt15 import Languages
from lmu.experiments.experiment import (
    PARALLELIZING,
    Budget,
    Experiment,
    Folder,
    Provenance,
    PublishedResult,
    TrainingSetup,
)
from lmu.experiments.models import (
    BeamSearch,
    Network,
    SentenceTranslator,
    Translator,
    Words,
    WordTranslation,
)
from lmu.experiments.texts import mean, padded_loss, sum_nats, warmup_then_cosine
from lmu.experiments.training import Metric, Recipe, predictions
from lmu.experiments.training.recipe import count_correct, percentage
from lmu.layers import LSTM, Bidirectional, Layer, memory_blocks

LONGEST = 60  # pieces in a sentence
BATCH = 128  # sentences that are translated at a time
WRITTEN = 200  # pieces in a translation, at most
SMOOTHING = 0.1
HEADS = 4


def load_talks(seed: int, folder: Folder, budget: Budget) -> Dataset:
    """Return the pairs of sentences, the same for every seed."""
    return iwslt15(folder, pieces=4_000 if budget is Budget.QUICK else 8_000, longest=LONGEST)


def count_right(logits: Tensor, targets: Tensor) -> Tensor:
    """Count the next pieces predicted correctly, and all; arguments as of `padded_loss`."""
    targets = targets[:, : logits.shape[1]].long()
    pieces = targets != 0
    return count_correct(logits[pieces], targets[pieces])


# The best epoch is the one with the most correct pieces: nats rise again as a network becomes
# overconfident, while its translations still improve.
PIECES_RIGHT = Metric("pieces right", count_right, percentage, higher_is_better=True, digits=2)
NATS_PER_PIECE = Metric("nats per piece", sum_nats, mean, higher_is_better=False, digits=3)


def count_pieces(inputs: Tensor) -> Tensor:
    """Count the pieces of both sentences of `inputs (pairs, 2, time)`."""
    return (inputs != 0).sum((-2, -1))


def translate_sentences(
    network: SentenceTranslator, languages: Languages, english: list[str], search: BeamSearch
) -> list[str]:
    """Translate sentences.

    Args:
        network: the trained translator.
        languages: the pieces that it was trained with.
        english: the sentences, with spaces between the words.
        search: how the best translation is searched for.
    """
    numbers = [torch.tensor(languages.read.encode(sentence)) for sentence in english]
    # Sentences of similar length are translated together, and put back in order.
    order = sorted(range(len(numbers)), key=lambda place: len(numbers[place]))
    written = [""] * len(numbers)
    device = next(network.parameters()).device
    for start in range(0, len(order), BATCH):
        places = order[start : start + BATCH]
        batch = torch.nn.utils.rnn.pad_sequence([numbers[place] for place in places], True)
        for place, words in zip(places, network.translate(batch.to(device), search), strict=True):
            written[place] = languages.written.decode(words)
    return written


def compute_bleu(network: Network, data: Dataset) -> Mapping[str, float]:
    """Compute BLEU on tst2013, with a beam of five and greedily, and nats per piece."""
    import sacrebleu

    assert isinstance(network, SentenceTranslator)
    languages: Languages = data.vocabulary
    scores = {}
    for name, search in (
        ("BLEU, beam of 5", BeamSearch(beams=5, longest=WRITTEN, length_power=1.0)),
        ("BLEU, greedy", BeamSearch(longest=WRITTEN)),
    ):
        written = translate_sentences(network, languages, languages.english, search)
        whole = sacrebleu.corpus_bleu(written, [languages.vietnamese], tokenize="none", force=True)
        scores[name] = whole.score
    batches = predictions(network, network, data.test, BATCH)
    return {**scores, NATS_PER_PIECE.name: NATS_PER_PIECE.score(batches)}


def bleu_versions() -> dict[str, str]:
    """Return the versions that BLEU depends on, and sacrebleu's signature of it."""
    import sacrebleu

    bleu = sacrebleu.BLEU(tokenize="none", force=True)
    bleu.corpus_score(["a"], [["a"]])  # the signature counts the references
    return {
        "sacrebleu": version("sacrebleu"),
        "tokenizers": version("tokenizers"),
        "BLEU": str(bleu.get_signature()),
    }


def recipe(learning_rate: float, epochs: int, batch_size: int) -> Recipe:
    """Train by Adam on batches of pairs of similar length."""
    return Recipe(
        loss=partial(padded_loss, smoothing=SMOOTHING),
        metric=PIECES_RIGHT,
        optimizer=partial(torch.optim.Adam, lr=learning_rate, fused=True),
        batch_size=batch_size,
        epochs=epochs,
        bucket_by=count_pieces,
        schedule=warmup_then_cosine,
        max_gradient_norm=1.0,
    )


def translator(
    encoder: tuple[Layer, Layer], decoder: Sequence[Layer], dropout: float, data: Dataset
) -> Translator:
    """Build a translator from the encoder's forward and backward layers and the decoder's."""
    width = encoder[0].input_size
    source, target = (Words(len(pieces), width) for pieces in data.vocabulary[:2])
    block = Residual(FeedForward(width, 2 * width), dropout)
    return Translator(source, target, Bidirectional(*encoder), decoder, dropout, block, HEADS)


def parallel_lmu(
    width: int,
    channels: int,
    read: Sequence[float],
    written: Sequence[float],
    dropout: float,
    data: Dataset,
) -> Translator:
    """Build the translator of gated layers that read memories, trained in parallel over time.

    Args:
        width: the size of a step, everywhere.
        channels: how many signals each layer remembers.
        read: the windows of the encoder's layers, in each direction, in pieces.
        written: the windows of the decoder's layers.
        dropout: the share that is dropped in training.
        data: has the pieces of both languages.
    """

    def blocks(thetas: Sequence[float]) -> Stack:
        sizes = {"channels": channels, "expansion": 1.5}
        return memory_blocks(width, thetas, order=5, dropout=dropout, gated=True, **sizes)

    decoder = [blocks([theta]) for theta in written]
    return translator((blocks(read), blocks(read)), decoder, dropout, data)


def lstm(width: int, read: int, written: int, dropout: float, data: Dataset) -> Translator:
    """Build the translator of LSTMs: `read` in each direction and `written` in the decoder."""

    def blocks(depth: int) -> list[Residual]:
        return [Residual(LSTM(width, width), dropout) for _ in range(depth)]

    return translator((Stack(blocks(read)), Stack(blocks(read))), blocks(written), dropout, data)


def word_by_word(data: Dataset) -> WordTranslation:
    """Count the translations of each piece in the training pairs."""
    return WordTranslation(len(data.vocabulary.read), len(data.vocabulary.written), *data.train)


IWSLT15 = Experiment(
    name="iwslt15",
    title="talks, from English to Vietnamese",
    paper=PARALLELIZING,
    table="IWSLT'15 En-Vi, BLEU on tst2013",
    target=PublishedResult("parallel LMU (the paper)", 25.5, Provenance.UNCONFIRMED),
    baselines=(PublishedResult("LSTM", 23.3, Provenance.CONFIRMED),),
    data=load_talks,
    models={
        "lmu": {
            Budget.FULL: TrainingSetup(
                partial(parallel_lmu, 512, 128, (5.0, 20.0), (4.0, 10.0, 30.0), 0.3),
                recipe(5e-4, 15, 64),
            ),
            Budget.QUICK: TrainingSetup(
                partial(parallel_lmu, 128, 32, (8.0,), (4.0, 20.0), 0.1), recipe(2e-3, 5, 16)
            ),
        },
        "lstm": {
            Budget.FULL: TrainingSetup(partial(lstm, 512, 2, 3, 0.3), recipe(5e-4, 15, 64)),
            Budget.QUICK: TrainingSetup(partial(lstm, 128, 1, 2, 0.2), recipe(2e-3, 5, 16)),
        },
        "word-by-word": dict.fromkeys(Budget, TrainingSetup(word_by_word, recipe(1e-3, 0, 64))),
    },
    examine=compute_bleu,
    versions=bleu_versions,
)
