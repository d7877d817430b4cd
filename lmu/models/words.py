"""Words as vectors, trained or given."""

import torch
from torch import Tensor, nn

PADDING = 0  # the word that stands past the end of a text


def without_common_padding(words: Tensor) -> Tensor:
    """Cut off the end of `words (*batch, time)` that is padding in all of them, but one word."""
    longest = int((words != PADDING).sum(-1).amax().clamp(min=1)) if words.numel() else 0
    return words[..., :longest]


class Words(nn.Module):
    """A vector for each word of a vocabulary.

    Args:
        count: how many words; they are whole numbers from 0.
        width: numbers in a vector.
        trained: whether the vectors are trained. Those that are not are meant to be given by
            `set_vectors`; they are in the state dict all the same.
        padded: whether word 0 is padding on the right. Its vector is zero.

    Vectors begin normally distributed, of length 1 on average.

    Example:
        >>> import torch
        >>> words = Words(count=100, width=8)
        >>> texts = torch.tensor([[5, 17, 9], [4, 0, 0]])
        >>> words(texts).shape, words.lengths(texts)
        (torch.Size([2, 3, 8]), tensor([3, 1]))
    """

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
        """Take `vectors (count, width)` for the words, such as GloVe's."""
        if vectors.shape != self.embedding.weight.shape:
            raise ValueError(
                f"`vectors` has shape {tuple(vectors.shape)}: expected {(self.count, self.width)}, "
                "a row for each word."
            )
        with torch.no_grad():
            self.embedding.weight.copy_(vectors)

    def forward(self, words: Tensor) -> Tensor:
        """Look up the vectors `(*batch, width)` of `words (*batch)`."""
        return self.embedding(words if words.dtype == torch.int32 else words.long())

    def lengths(self, words: Tensor) -> Tensor | None:
        """Count the words of each text of `(*batch, time)`; None if there is no padding."""
        return (words != PADDING).sum(-1) if self.padded else None
