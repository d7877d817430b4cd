"""Words as vectors, trained or given, with or without an encoder."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from linrec.nn import Pretrained

PADDING = 0  # the word that fills the place after the end of a text


def without_common_padding(words: Tensor) -> Tensor:
    """Cut off the common padding at the end of `words (*batch, time)`, but keep at least one word.

    This saves work and changes no result. In a graph of `torch.compile` nothing is cut off.
    """
    if torch.compiler.is_compiling():
        return words
    longest = int((words != PADDING).sum(-1).amax().clamp(min=1)) if words.numel() else 0
    return words[..., :longest]


class Words(Pretrained, nn.Module):
    """A vector for each word of a vocabulary.

    Args:
        count: how many words; they are whole numbers from 0.
        width: numbers in a vector.
        trained: whether the vectors are trained. Untrained ones are meant to be set by
            `set_vectors`, and are in the state dict too.
        padded: whether word 0 is padding on the right. Its vector is zero.

    Vectors begin normally distributed, with length 1 on average.

    Attributes:
        remembered: the number of previous words that a word's vector depends on.

    Example:
        >>> import torch
        >>> words = Words(count=100, width=8)
        >>> texts = torch.tensor([[5, 17, 9], [4, 0, 0]])
        >>> words(texts).shape, words.lengths(texts)
        (torch.Size([2, 3, 8]), tensor([3, 1]))
    """

    remembered = 0

    def __init__(
        self, count: int, width: int, *, trained: bool = True, padded: bool = True
    ) -> None:
        super().__init__()
        self.count, self.width, self.padded = count, width, padded
        self.embedding = nn.Embedding(count, width, PADDING if padded else None)
        with torch.no_grad():
            self.embedding.weight.mul_(width**-0.5)
        self.embedding.weight.requires_grad_(trained)

    def set_vectors(self, vectors: Tensor) -> None:
        """Set the words' vectors to `vectors (count, width)`, such as GloVe's."""
        if vectors.shape != self.embedding.weight.shape:
            raise ValueError(
                f"`vectors` has shape {tuple(vectors.shape)}: expected "
                f"{tuple(self.embedding.weight.shape)}, a row for each word."
            )
        with torch.no_grad():
            self.embedding.weight.copy_(vectors)

    def forward(self, words: Tensor) -> Tensor:
        """Look up the vectors `(*batch, width)` of `words (*batch)`."""
        return self.embedding(words if words.dtype == torch.int32 else words.long())

    def in_context(self, words: Tensor, before: Tensor | None) -> Tensor:
        """Look up the vectors `(*batch, time, width)` of a piece of a text.

        Args:
            words (*batch, time): the piece.
            before (*batch, remembered): the words before the piece. None: there are none.
        """
        return self(words)

    def lengths(self, words: Tensor) -> Tensor | None:
        """Count the words of each text of `(*batch, time)`; None if there is no padding."""
        return (words != PADDING).sum(-1) if self.padded else None


class PairedWords(Words):
    """Words whose vectors depend on previous words too: a vector for each word and each pair.

        e_t = v[w_t] + p₁[w_{t-1}, w_t] + … + p_reach[w_{t-reach}, w_t]

    Looking up a vector takes the same time however many there are, so that pairs cost memory and
    next to no time. There are reach · count² of them, which is feasible for letters, not for the
    words of a language. Word 0 comes before the first.

    Args:
        count: how many words; they are whole numbers from 0.
        width: numbers in a vector.
        reach: how many previous words are paired with each word.

    Example:
        >>> import torch
        >>> letters = PairedWords(count=27, width=8, reach=2)
        >>> letters(torch.tensor([[5, 17, 9]])).shape
        torch.Size([1, 3, 8])
    """

    def __init__(self, count: int, width: int, reach: int = 1) -> None:
        super().__init__(count, width, padded=False)
        self.remembered = reach
        self.pairs = nn.Embedding(reach * count**2, width)
        with torch.no_grad():
            self.pairs.weight.mul_(width**-0.5)

    def in_context(self, words: Tensor, before: Tensor | None) -> Tensor:
        """Look up the vectors of `words (*batch, time)` after `before (*batch, reach)`."""
        words = words.long()
        if before is None:
            before = words.new_zeros(*words.shape[:-1], self.remembered)
        vectors, earlier = self.embedding(words), torch.cat([before.long(), words], -1)
        for table in range(self.remembered):  # pairs of a word and the one `table + 1` before it
            paired = earlier[..., self.remembered - table - 1 : earlier.shape[-1] - table - 1]
            vectors = vectors + self.pairs((table * self.count + paired) * self.count + words)
        return vectors

    def forward(self, words: Tensor) -> Tensor:
        """Look up the vectors `(*batch, time, width)` of texts `(*batch, time)` from the start."""
        return self.in_context(words, None)


class EncodedWords(Words):
    """Words whose vectors x are encoded by trained layers.

        u = gelu(U_k … gelu(U_1 x + b_1) … + b_k)      gelu(z) = z P(N(0, 1) ≤ z)

    The encoding of a word depends on nothing else, so that each different word is encoded once.

    Args:
        count: how many words.
        width: numbers in a vector x.
        sizes: the output size of each layer; the last is the `width` of the encoded words.
        trained: whether the vectors are trained; the encoder always is.

    Raises:
        ValueError: no sizes.

    Example:
        >>> import torch
        >>> EncodedWords(100, 8, sizes=[6, 3])(torch.tensor([[5, 17, 9], [4, 0, 0]])).shape
        torch.Size([2, 3, 3])

    References:
        Chilkuri and Eliasmith 2021, eq. 18 (one layer). Hendrycks and Gimpel 2016, Gaussian Error
        Linear Units. Iyyer et al. 2015, Deep Unordered Composition Rivals Syntactic Methods for
        Text Classification (several, after the sum).
    """

    def __init__(
        self, count: int, width: int, sizes: Sequence[int], *, trained: bool = False
    ) -> None:
        super().__init__(count, width, trained=trained)
        if not sizes:
            raise ValueError("`sizes` is empty: expected a size for each layer. Take `Words`.")
        self.encoder = nn.Sequential()
        for before, after in pairwise([width, *sizes]):
            self.encoder.extend([nn.Linear(before, after), nn.GELU()])
        self.width = sizes[-1]

    def forward(self, words: Tensor) -> Tensor:
        """Encode `words (*batch)` into `(*batch, width)`."""
        found, places = torch.unique(words, return_inverse=True)
        return nn.functional.embedding(places, self.encoder(super().forward(found)))
