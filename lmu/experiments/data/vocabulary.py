"""Words and their numbers."""

from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

PADDING, UNKNOWN, BEGIN, END = 0, 1, 2, 3  # reserved numbers, never those of a word
SPECIAL = ("<padding>", "<unknown>", "<begin>", "<end>")


def pad(rows: Sequence[Sequence[int]], length: int) -> Tensor:
    """Put rows of numbers into one tensor `(rows, length)`, int32, cut or padded on the right."""
    numbers = torch.full((len(rows), length), PADDING, dtype=torch.int32)
    for place, row in zip(numbers, rows, strict=True):
        kept = torch.tensor(row[:length], dtype=torch.int32)
        place[: len(kept)] = kept
    return numbers


class Vocabulary:
    """A number for each word; 0 … 3 are padding, an unknown word, the beginning and the end.

    Args:
        words: the words, in the order of their numbers, from 4 on.
        vectors (len(words), width): a vector for each word. None: there are none.

    Attributes:
        vectors (4 + len(words), width): the vectors of all numbers, zero for the first four; None
            if none were given.

    Raises:
        ValueError: a word that occurs twice, or a number of vectors other than that of the words.

    Example:
        >>> words = Vocabulary(["a", "cat", "sat"])
        >>> words.encode([["the", "cat", "sat"], ["a", "cat"]])
        tensor([[1, 5, 6],
                [4, 5, 0]], dtype=torch.int32)
        >>> words.decode([4, 5, 3, 0])
        ['a', 'cat']
    """

    def __init__(self, words: Iterable[str], vectors: Tensor | None = None) -> None:
        self.words = (*SPECIAL, *words)
        self.numbers = {word: number for number, word in enumerate(self.words)}
        if len(self.numbers) != len(self.words):
            twice = next(word for word, count in Counter(self.words).items() if count > 1)
            raise ValueError(f"The word {twice!r} is there twice: expected each word once.")
        self.vectors: Tensor | None = None
        if vectors is not None:
            if len(vectors) != len(self.words) - len(SPECIAL):
                raise ValueError(
                    f"`vectors` has {len(vectors)} rows and there are "
                    f"{len(self.words) - len(SPECIAL)} words: expected a row for each word."
                )
            self.vectors = torch.cat([vectors.new_zeros(len(SPECIAL), vectors.shape[1]), vectors])

    def __len__(self) -> int:
        return len(self.words)

    @staticmethod
    def of(texts: Iterable[Sequence[str]], *, most: int | None = None) -> "Vocabulary":
        """Number the words of texts, the most frequent first.

        Args:
            texts: lists of words.
            most: how many numbers there may be, including the first four; None: any number.
        """
        counts = Counter(word for text in texts for word in text)
        # Equally frequent words are in alphabetical order, wherever they were met.
        ordered = sorted(counts, key=lambda word: (-counts[word], word))
        return Vocabulary(ordered if most is None else ordered[: most - len(SPECIAL)])

    def encode(self, texts: Sequence[Sequence[str]], longest: int | None = None) -> Tensor:
        """Encode texts as numbers, padded on the right to the length of the longest.

        Args:
            texts: lists of words.
            longest: how many words of a text are kept, the first ones; None: all.

        Returns:
            numbers (texts, time), int32.
        """
        known = [[self.numbers.get(word, UNKNOWN) for word in text[:longest]] for text in texts]
        return pad(known, max(map(len, known), default=0))

    def decode(self, numbers: Iterable[int]) -> list[str]:
        """Decode numbers as words, up to the end or the padding."""
        words = []
        for number in numbers:
            if number in (END, PADDING):
                break
            words.append(self.words[number])
        return words
