"""IMDB: film reviews labelled for or against, and more reviews without labels."""

import os
import re
from collections.abc import Iterator

import torch

from lmu.experiments.data.files import DataFile, open_file
from lmu.experiments.data.splits import Split
from lmu.experiments.data.vocabulary import Vocabulary
from lmu.files import DamagedFile, decode, tar_members

PUBLISHED = DataFile(
    "imdb/aclImdb_v1.tar.gz",
    urls=("https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",),
    largest=2**30,  # twice the size of the tar
)
LABELLED = 25_000  # reviews to train on, and as many to test
MEMBER = re.compile(r"aclImdb/(train|test)/(neg|pos|unsup)/([0-9]{1,9})_([0-9]{1,9})\.txt")

# GloVe's words: "do" and "n't", "it" and "'s", each punctuation mark by itself.
WORD = re.compile(r"\w+(?=n't)|n't|'\w+|\w+|[^\w\s]")
BREAK = re.compile(r"<br\s*/?>")

Text = list[str]


class Reviews(dict[tuple[str, str], list[Text]]):
    """Reviews as lists of words, by part ("train", "test") and label ("neg", "pos", "unsup").

    The reviews are in the order of their numbers, whatever the order in the archive.
    """

    @property
    def reduced(self) -> str:
        """A sentence on the missing labelled reviews; empty if none are missing."""
        train, test = (
            sum(len(self[part, label]) for label in ("neg", "pos")) for part in ("train", "test")
        )
        if (train, test) == (LABELLED, LABELLED):
            return ""
        return f"{train:,} and {test:,} labelled reviews of {LABELLED:,} and {LABELLED:,}."


def split_words(review: str) -> Text:
    """Split a review into lower-case words and punctuation marks.

    Example:
        >>> split_words("It's great.<br />Don't miss it!")
        ['it', "'s", 'great', '.', 'do', "n't", 'miss', 'it', '!']
    """
    return WORD.findall(BREAK.sub(" ", review.lower()))


def imdb_reviews(
    folder: str | os.PathLike[str] | None = None, *, unlabelled: bool = False
) -> Reviews:
    """Read the reviews from their archive into memory.

    Args:
        folder: the data folder, which holds `imdb/aclImdb_v1.tar.gz`; None takes `LMU_DATA` or
            downloads.
        unlabelled: whether to read the 50,000 reviews without labels as well.

    Returns:
        The reviews.

    Raises:
        FileNotFoundError: the archive is missing and cannot be downloaded.
        ValueError: the archive is damaged, or holds no reviews.

    References:
        Maas et al. 2011, Learning Word Vectors for Sentiment Analysis.
    """
    numbered = sorted(_members(folder, unlabelled))
    reviews = Reviews({(part, label): [] for part in ("train", "test") for label in ("neg", "pos")})
    for part, label, _, text in numbered:
        reviews.setdefault((part, label), []).append(split_words(text))
    if not all(reviews.values()):
        raise ValueError(
            f"`{PUBLISHED.path}` lacks reviews: expected members `aclImdb/train/pos/0_9.txt` and "
            "the like, in train and test, neg and pos. Replace it."
        )
    return reviews


def _members(
    folder: str | os.PathLike[str] | None, unlabelled: bool
) -> Iterator[tuple[str, str, int, str]]:
    """Read the part, the label, the number and the text of each review."""

    def wanted(name: str) -> bool:
        named = MEMBER.fullmatch(name)
        return named is not None and (named[2] != "unsup" or unlabelled)

    known: set[str] = set()
    with open_file(PUBLISHED, folder) as stream:
        for name, content in tar_members(stream, stream.name, wanted):
            named = MEMBER.fullmatch(name)
            assert named is not None  # since the member was wanted
            if name in known:
                raise DamagedFile(
                    f"`{stream.name}` has the member `{name}` twice: expected each review once. "
                    "Replace it."
                )
            known.add(name)
            text = decode(content, f"{stream.name}: {name}")
            yield named[1], named[2], int(named[3]), text


def shorten(text: Text, longest: int, beginning: int) -> Text:
    """Cut the middle out of a text that is too long.

    Args:
        text: the words.
        longest: how many words are kept.
        beginning: how many of these are from the beginning; the others are from the end.

    Example:
        >>> shorten(list("abcdefgh"), longest=5, beginning=2)
        ['a', 'b', 'f', 'g', 'h']
    """
    if len(text) <= longest or beginning >= longest:
        return text[:longest]
    return text[:beginning] + text[beginning - longest :]


def split_labelled(
    reviews: Reviews,
    words: Vocabulary,
    longest: int,
    validation: int,
    beginning: int | None = None,
) -> tuple[Split, Split, Split]:
    """Make splits of the labelled reviews: 0 against, 1 for.

    Args:
        reviews: the reviews.
        words: the words' numbers.
        longest: how many words of a review are kept.
        validation: how many reviews of the training set, the last of each label, are set aside.
        beginning: how many of the kept words are from the beginning; the others are from the end.
            None: all.

    Returns:
        Training, validation and test examples: inputs `(reviews, time)` and targets `(reviews)`.
    """
    first = longest if beginning is None else beginning
    parts: list[list[tuple[Text, int]]] = [[], [], []]
    for target, label in enumerate(("neg", "pos")):
        kept = max(1, len(reviews["train", label]) - validation // 2)
        train, test = reviews["train", label], reviews["test", label]
        for part, texts in zip(parts, (train[:kept], train[kept:], test), strict=True):
            part.extend((shorten(text, longest, first), target) for text in texts)
    train, aside, test = (
        Split(
            words.encode([text for text, _ in part]),
            torch.tensor([target for _, target in part]),
        )
        for part in parts
    )
    return train, aside, test
