"""Words and their numbers."""

from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

PADDING, UNKNOWN, BEGIN, END = 0, 1, 2, 3  # what no word may be called
SPECIAL = ("<padding>", "<unknown>", "<begin>", "<end>")


def pad(rows: Sequence[Sequence[int]], length: int) -> Tensor:
    """Write rows of numbers as one tensor `(rows, length)`, int32, cut or padded on the right."""
    numbers = torch.full((len(rows), length), PADDING, dtype=torch.int32)
    for place, row in zip(numbers, rows, strict=True):
        kept = torch.tensor(row[:length], dtype=torch.int32)
        place[: len(kept)] = kept
    return numbers


class Vocabulary:
    """A number for each word; 0 … 3 are padding, an unknown word, the beginning and the end.

    Args:
        words: the words, in the order of their numbers, from 4 on.
        vectors (len(words), width): a vector for each of them, if there are any.

    Attributes:
        vectors (4 + len(words), width): those of all numbers, zero for the first four; None if
            none were given.

    Raises:
        ValueError: a word that is there twice, or vectors that are not as many as the words.

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
        """Take the words of texts, the most frequent first.

        Args:
            texts: each a list of words.
            most: how many numbers there may be, the first four among them; None: any number.
        """
        counts = Counter(word for text in texts for word in text)
        # Of words as frequent as each other the one that sorts first, wherever it was met.
        ordered = sorted(counts, key=lambda word: (-counts[word], word))
        return Vocabulary(ordered if most is None else ordered[: most - len(SPECIAL)])

    def encode(self, texts: Sequence[Sequence[str]], longest: int | None = None) -> Tensor:
        """Write texts as numbers, padded on the right to the length of the longest.

        Args:
            texts: each a list of words.
            longest: words of a text that are kept, the first ones; None: all.

        Returns:
            numbers (texts, time), int32.
        """
        known = [[self.numbers.get(word, UNKNOWN) for word in text[:longest]] for text in texts]
        return pad(known, max(map(len, known), default=0))

    def decode(self, numbers: Iterable[int]) -> list[str]:
        """Read numbers as words, as far as the end or the padding."""
        words = []
        for number in numbers:
            if number in (END, PADDING):
                break
            words.append(self.words[number])
        return words
