"""Translation word by word: translations of each word, counted in pairs of sentences."""

import torch
from torch import Tensor, nn

from lmu.experiments.models.beam_search import BeamSearch
from lmu.experiments.models.translator import BEGIN, END, SentenceTranslator
from lmu.experiments.models.words import PADDING, without_common_padding

# Pairs of sentences whose links are counted at a time.
COUNTED = 128


class WordTranslation(SentenceTranslator):
    """The first of IBM's translation models: each target word comes from some source word.

        P(f | source) = 1/(l+1) Σ_{i=0…l} t(f | e_i)
        t(f | e) = (N(e f) + s P(f)) / (N(e) + s)

    e_1 … e_l are the words of the source. e_0 is a word before every sentence, from which words
    come that no other word produces. N(e f) counts how often f comes from e; since the source word
    of f is not known, the count is an expectation under the t of the previous round. P(f) are the
    frequencies of the words (each counted once more than it is found). s is 1, the only number that
    could be trained. The order of the words is ignored.

    The model is fitted at construction, and translates each word by the likeliest one, in the order
    of the source.

    Args:
        read: how many words the source language has.
        written: how many words the target language has.
        pairs (pairs, 2, time): the source, and the target one step later; 0 is padding.
        answers (pairs, time): the words of the targets, up to their ends.
        rounds: how often the expected counts are computed.

    Inputs are words `(pairs, 2, time)`, outputs log P `(pairs, time, written)`, the same at every
    step.

    Example:
        >>> import torch
        >>> house, book, the, a = 4, 5, 6, 7
        >>> read = torch.tensor([[the, house], [the, book], [a, book]])
        >>> said = torch.tensor([[2, 4], [2, 4], [2, 6]])
        >>> answers = torch.tensor([[4, 5], [4, 7], [6, 7]])
        >>> model = WordTranslation(8, 8, torch.stack([read, said], 1), answers, rounds=20)
        >>> model.translate(torch.tensor([[a, house]]))[0, :3]
        tensor([6, 5, 3])

    References:
        Brown et al. 1993, The mathematics of statistical machine translation, model 1.
    """

    def __init__(
        self, read: int, written: int, pairs: Tensor, answers: Tensor, rounds: int = 5
    ) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        said = answers[answers != PADDING].long()
        frequencies = 1.0 + torch.bincount(said, minlength=written)
        self.frequencies = nn.Buffer(frequencies / frequencies.sum())
        # At first any word may come from any other, and the counts are of pairs in the same
        # sentences.
        counts = torch.zeros(read, written)
        for _ in range(rounds):
            counts = self.expect(counts, pairs, answers)
        self.counts = nn.Buffer(counts)
        self.fitted = int((counts > 0).sum())

    @torch.no_grad()
    def expect(self, counts: Tensor, pairs: Tensor, answers: Tensor) -> Tensor:
        """Compute how often words are expected to come from each other, given earlier counts."""
        chances = self.chances(counts)
        flat = torch.zeros(counts.numel())
        for source, target in zip(pairs[:, 0].split(COUNTED), answers.split(COUNTED), strict=True):
            source, target = add_null(source), without_common_padding(target).long()
            links = source.unsqueeze(-1) * counts.shape[1] + target.unsqueeze(-2)
            real = (source != PADDING).unsqueeze(-1) & (target != PADDING).unsqueeze(-2)
            shares = torch.where(real, chances.view(-1)[links], 0)
            shares = shares / shares.sum(-2, keepdim=True).clamp(min=torch.finfo().tiny)
            flat.index_add_(0, links.flatten(), shares.flatten())
        return flat.view_as(counts)

    def chances(self, counts: Tensor) -> Tensor:
        """Compute t(f | e) `(*batch, written)` from counts `(*batch, written)`."""
        smoothed = counts + self.scale * self.frequencies
        return smoothed / smoothed.sum(-1, keepdim=True)

    def features(self, inputs: Tensor) -> Tensor:
        """Return the words."""
        return inputs

    def head(self, features: Tensor) -> Tensor:
        """Compute log P `(*batch, time, written)` of words `(*batch, 2, time)`."""
        source, said = features.unbind(-2)
        chances = self.chances(self.counts)
        source = add_null(source)
        real = (source != PADDING).to(chances.dtype)
        found = nn.functional.embedding_bag(
            source.flatten(0, -2), chances, per_sample_weights=real.flatten(0, -2), mode="sum"
        )
        found = found.unflatten(0, source.shape[:-1]) / real.sum(-1, keepdim=True)
        steps = without_common_padding(said).shape[-1]
        return found.log().unsqueeze(-2).expand(*found.shape[:-1], steps, -1)

    def stream(self, inputs: Tensor) -> Tensor:
        """Compute log P; reading the target one word at a time changes nothing."""
        return self.head(inputs)

    @torch.no_grad()
    def translate(self, sentences: Tensor, search: BeamSearch | None = None) -> Tensor:
        """Translate each word by itself, whatever the search.

        Args:
            sentences (batch, time): words, padded with 0 on the right.
            search: its `longest` limits the translation. None: the default search.
        """
        longest = (search or BeamSearch()).longest
        sentences = without_common_padding(sentences)[:, : longest - 1].long()
        said = self.chances(self.counts)[sentences]
        said[..., : END + 1] = 0  # the end comes where the source ends
        written = torch.where(sentences == PADDING, PADDING, said.argmax(-1))
        written = nn.functional.pad(written, (0, longest - written.shape[-1]))
        ends = (sentences != PADDING).sum(-1, keepdim=True)
        return written.scatter(-1, ends, END)


def add_null(source: Tensor) -> Tensor:
    """Put the word e_0 before `source (*batch, time)`."""
    return nn.functional.pad(without_common_padding(source).long(), (1, 0), value=BEGIN)
