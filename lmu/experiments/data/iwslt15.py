"""IWSLT'15: talks in English and Vietnamese, to be translated sentence by sentence."""

import os
from collections.abc import Iterable
from itertools import compress
from typing import NamedTuple

import torch
from torch import Tensor

from lmu.experiments.data.files import DataFile, read_lines
from lmu.experiments.data.splits import Dataset, Split
from lmu.experiments.data.vocabulary import BEGIN, END, PADDING, SPECIAL, pad
from lmu.files import DamagedFile

PARTS = ("train", "tst2012", "tst2013")  # to learn from, to choose by, to report
PUBLISHED = 133_317  # pairs to learn from
# For files of talks followed by other texts, by their number of pairs: how many pairs are talks.
TALKS = {24_340: 3_545}
SOURCE = (
    "It is in Stanford's preparation of IWSLT'15 English-Vietnamese, at "
    "https://nlp.stanford.edu/projects/nmt/data/iwslt15.en-vi/."
)

Sentences = list[str]  # with spaces between the words


class Subwords:
    """A language's frequent words, and pieces that make up the other words.

    Byte-pair encoding, learned from the training sentences alone. Numbers 0 … 3 are padding, an
    unknown letter, the beginning and the end of a sentence.

    Args:
        sentences: the sentences to learn from.
        count: how many pieces there may be, including the first four.

    References:
        Sennrich, Haddow and Birch 2016, Neural Machine Translation of Rare Words with Subword
        Units.
    """

    def __init__(self, sentences: Iterable[str], count: int) -> None:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        self.pieces = Tokenizer(models.BPE(unk_token=SPECIAL[1]))
        # Words of these data are separated by spaces, and punctuation marks are words too.
        self.pieces.pre_tokenizer = pre_tokenizers.Metaspace()
        self.pieces.decoder = decoders.Metaspace()
        trainer = trainers.BpeTrainer(
            vocab_size=count, special_tokens=list(SPECIAL), show_progress=False
        )
        self.pieces.train_from_iterator(sentences, trainer)

    def __len__(self) -> int:
        return self.pieces.get_vocab_size()

    def encode(self, sentence: str) -> list[int]:
        """Write a sentence as numbers."""
        return self.pieces.encode(sentence).ids

    def decode(self, numbers: Tensor) -> str:
        """Turn the numbers `(time)` of a sentence into text, up to its end."""
        kept: list[int] = []
        for number in numbers.tolist():
            if number in (END, PADDING):
                break
            kept.append(number)
        return self.pieces.decode(kept)


class Languages(NamedTuple):
    """The word pieces of both languages, and the published sentences of tst2013.

    Args:
        read: the pieces of the source language.
        written: the pieces of the target language.
        english: the sentences to translate, with spaces between the words.
        vietnamese: their translations.
    """

    read: Subwords
    written: Subwords
    english: Sentences
    vietnamese: Sentences


def iwslt15(
    folder: str | os.PathLike[str] | None = None, *, pieces: int = 4_000, longest: int = 60
) -> Dataset:
    """Return the task: translate English into Vietnamese.

    tst2012 is for validation, tst2013 for test. If other texts replace some of the training talks,
    as in `TALKS`, the talks are repeated until they are half of the pairs.

    Args:
        folder: the data folder, which holds `iwslt15/train.en` and the like; None takes `LMU_DATA`.
        pieces: how many words and pieces of words each language has.
        longest: pieces in a sentence, at most. Longer training pairs are left out. For validation
            and test, inputs are cut, and so are the targets of the cross-entropy; translations are
            scored on whole sentences.

    Returns:
        The task: inputs `(pairs, 2, time)`, the English sentence and the Vietnamese one from its
        beginning on; targets `(pairs, time)`, the Vietnamese one up to its end. `vocabulary` has
        the pieces of both languages.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: two files of a pair have different numbers of lines.

    References:
        Cettolo et al. 2015, The IWSLT 2015 Evaluation Campaign. Luong and Manning 2015 for the
        preparation.
    """
    texts = {part: sentences(part, folder) for part in PARTS}
    read, written = (Subwords(side, pieces) for side in texts["train"])
    languages = Languages(read, written, *texts["tst2013"])
    count = len(texts["train"][0])
    talks = TALKS.get(count, 0)
    train = _split(texts["train"], languages, longest, whole=False, repeat=talks)
    validation, test = (_split(texts[part], languages, longest, whole=True) for part in PARTS[1:])
    reduced = ""
    if count != PUBLISHED:
        reduced = f"{count:,} pairs to learn from, of {PUBLISHED:,}."
    if talks:
        reduced = f"{reduced[:-1]}; but for {talks:,} they are no talks, and these are repeated."
    return Dataset(train, validation, test, languages, reduced)


def sentences(
    part: str, folder: str | os.PathLike[str] | None = None
) -> tuple[Sentences, Sentences]:
    """Read the English and the Vietnamese sentences of a part, without empty ones.

    Args:
        part: "train", "tst2012" or "tst2013".
        folder: the data folder; None takes `LMU_DATA`.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or the two have different numbers of lines.
    """
    english, vietnamese = (
        list(
            read_lines(DataFile(f"iwslt15/{part}.{language}", source=SOURCE, largest=2**28), folder)
        )
        for language in ("en", "vi")
    )
    if len(english) != len(vietnamese):
        raise DamagedFile(
            f"`iwslt15/{part}.en` has {len(english):,} lines and `{part}.vi` {len(vietnamese):,}: "
            "expected as many. One of them is damaged: replace both."
        )
    pairs = [
        (one, other)
        for one, other in zip(english, vietnamese, strict=True)
        if one.strip() and other.strip()
    ]
    if not pairs:
        raise DamagedFile(
            f"`iwslt15/{part}.en` and `{part}.vi` have no pair of sentences with words: expected "
            "the published ones. Replace both."
        )
    return [one for one, _ in pairs], [other for _, other in pairs]


def _split(
    texts: tuple[Sentences, Sentences],
    languages: Languages,
    longest: int,
    *,
    whole: bool,
    repeat: int = 0,
) -> Split:
    """Number the pieces of sentences; repeat the first `repeat` pairs to be half of all."""
    read, written = (
        [language.encode(sentence) for sentence in side]
        for language, side in zip((languages.read, languages.written), texts, strict=True)
    )
    kept = [
        whole or max(len(one), len(other) + 1) <= longest
        for one, other in zip(read, written, strict=True)
    ]
    pairs = list(compress(zip(read, written, strict=True), kept))
    first = sum(kept[:repeat])
    if first:
        pairs += pairs[:first] * ((len(pairs) - first) // first - 1)
    if not pairs:
        raise ValueError(
            f"All sentences to learn from are longer than {longest} pieces: expected shorter ones. "
            "Raise `longest`, or replace `iwslt15/train.en` and `iwslt15/train.vi`."
        )
    one = [pair[0] for pair in pairs]
    said = [[BEGIN, *pair[1]] for pair in pairs]
    answers = [[*pair[1], END] for pair in pairs]
    inputs = torch.stack([pad(one, longest), pad(said, longest)], 1)
    return Split(inputs, pad(answers, longest))
