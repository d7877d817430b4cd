"""Pairs of sentences: questions that ask the same (QQP), sentences that follow others (SNLI)."""

import os
from collections.abc import Callable
from typing import NamedTuple

import torch

from lmu.experiments.data.files import DataFile, read_lines
from lmu.experiments.data.glove import glove_vocabulary
from lmu.experiments.data.splits import Dataset, Split
from lmu.experiments.data.vocabulary import Vocabulary
from lmu.files import DamagedFile, parse_json

RELATIONS = ("entailment", "neutral", "contradiction")


class Pair(NamedTuple):
    """Two sentences, as lists of words, and their relation."""

    one: list[str]
    other: list[str]
    label: int


class PairFiles(NamedTuple):
    """The three files of a data set of pairs, with a parser of lines and the published numbers.

    Args:
        train: to learn from.
        validation: to choose by.
        test: to report.
        parse: from a line to a pair, or to None if the line has none. It raises a `ValueError` for
            a line of another form.
        published: how many pairs the published training and validation files have.
    """

    train: DataFile
    validation: DataFile
    test: DataFile
    parse: Callable[[str], Pair | None]
    published: tuple[int, int]


def question_pair(line: str) -> Pair:
    """Read a line of the Quora question pairs: label, two questions, number, between tabs."""
    fields = line.split("\t")
    if len(fields) != 4:
        raise ValueError(f"{len(fields)} fields between tabs, and not 4")
    label, one, other, _ = fields
    if label not in ("0", "1"):
        raise ValueError(f"label {label!r}")
    return Pair(one.lower().split(), other.lower().split(), int(label))


def sentence_pair(line: str) -> Pair | None:
    """Read a line of SNLI, a JSON object; None for a pair without an agreed label."""
    record = parse_json(line)
    names = ("gold_label", "sentence1", "sentence2")
    texts = [record.get(name) if isinstance(record, dict) else None for name in names]
    for name, text in zip(names, texts, strict=True):
        if not isinstance(text, str):
            raise ValueError(f"'{name}' is no text there")
    label, *sentences = map(str, texts)
    if label == "-":
        return None
    if label not in RELATIONS:
        raise ValueError(f"label {label!r}")
    one, other = (sentence.lower().replace(".", " . ").split() for sentence in sentences)
    return Pair(one, other, RELATIONS.index(label))


QUORA_SOURCE = (
    "It is the partition of Wang, Hamza and Florian 2017 (Quora_question_pair_partition.zip), "
    "whose address is in that paper's repository, BiMPM."
)
SNLI_SOURCE = "It is in snli_1.0.zip, at https://nlp.stanford.edu/projects/snli/snli_1.0.zip."


def _snli(part: str) -> DataFile:
    return DataFile(f"snli/snli_1.0_{part}.jsonl", source=SNLI_SOURCE)


QUORA = PairFiles(
    *(DataFile(f"quora/{part}.tsv", source=QUORA_SOURCE) for part in ("train", "dev", "test")),
    parse=question_pair,
    published=(384_348, 10_000),
)
SNLI = PairFiles(
    *(_snli(part) for part in ("train", "dev", "test")),
    parse=sentence_pair,
    published=(549_367, 9_842),
)


def sentence_pairs(
    files: PairFiles, folder: str | os.PathLike[str] | None = None, *, longest: int = 60
) -> Dataset:
    """Return a task of pairs of sentences, whose words have GloVe's vectors.

    Args:
        files: the data set, `QUORA` or `SNLI`.
        folder: the data folder; None takes `LMU_DATA`.
        longest: how many words of a sentence are kept, the first ones.

    Returns:
        The task: inputs `(pairs, 2, time)`, padded on the right, and targets `(pairs)`: 1 for
        questions that ask the same, or the place in entailment, neutral, contradiction.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a line has another form.

    References:
        Wang, Hamza and Florian 2017 (Quora question pairs, as partitioned there). Bowman et al.
        2015, A large annotated corpus for learning natural language inference (SNLI).
    """
    parts = [_pairs(file, files.parse, folder) for file in files[:3]]
    texts = [text for pairs in parts for pair in pairs for text in (pair.one, pair.other)]
    words = glove_vocabulary(texts, folder)
    train, validation, test = (_split(pairs, words, longest) for pairs in parts)
    counts = len(train.targets), len(validation.targets)
    reduced = ""
    if counts != files.published:
        expected = " and ".join(f"{count:,}" for count in files.published)
        reduced = (
            f"{counts[0]:,} and {counts[1]:,} pairs to train on and to choose by, of {expected}; "
            f"{len(test.targets):,} to test."
        )
    return Dataset(train, validation, test, words, reduced)


def _pairs(
    file: DataFile, parse: Callable[[str], Pair | None], folder: str | os.PathLike[str] | None
) -> list[Pair]:
    pairs = []
    for number, line in enumerate(read_lines(file, folder), 1):
        if not line:
            continue
        try:
            pair = parse(line)
        except ValueError as error:
            raise DamagedFile(
                f"Line {number} of `{file.path}` is not a pair of sentences ({error}): got "
                f"{line[:60]!r}, expected the form of the published file. Replace it."
            ) from None
        if pair is not None:
            pairs.append(pair)
    if not any(pair.one or pair.other for pair in pairs):
        raise DamagedFile(
            f"`{file.path}` has no pair of sentences with words: expected those of the published "
            "file. Replace it."
        )
    return pairs


def _split(pairs: list[Pair], words: Vocabulary, longest: int) -> Split:
    both = words.encode([text for pair in pairs for text in pair[:2]], longest)
    labels = torch.tensor([pair.label for pair in pairs])
    return Split(both.view(len(pairs), 2, -1), labels)
