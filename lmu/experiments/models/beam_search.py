"""Beam search: an approximate search for the likeliest sentence, with a few hypotheses."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from linrec import Result
from lmu.experiments.models.words import PADDING


@dataclass(frozen=True)
class BeamSearch:
    """A beam search for the likeliest sentence.

        score = log p(words) / words^length_power

    Args:
        beams: hypotheses kept for each sentence; 1 is greedy: always the likeliest next word.
        longest: words in a sentence, at most, with its end.
        length_power: how strongly long sentences, which are less likely, are favoured; 0: not.

    Example:
        >>> import torch
        >>> from linrec import Result
        >>> def step(words, state):  # writes 5, 6, 7, …, and 3 ends a sentence
        ...     logits = 9.0 * torch.nn.functional.one_hot((words + 1).clamp(max=8) % 8, 8)
        ...     return Result(logits, state)
        >>> search = BeamSearch(beams=2, longest=4)
        >>> search(step, torch.zeros(1, 2, 0), begin=4, end=7)
        tensor([[5, 6, 7, 0]])
    """

    beams: int = 1
    longest: int = 50
    length_power: float = 0.0

    @torch.no_grad()
    def __call__(
        self,
        step: Callable[[Tensor, Tensor], Result],
        state: Tensor,
        *,
        begin: int,
        end: int,
    ) -> Tensor:
        """Write a sentence for each entry of the batch.

        Args:
            step: from words `(batch, beams)` and states `(batch, beams, state_size)` to the logits
                of the next words `(batch, beams, words)` and the next states.
            state (batch, beams, state_size): the states before the first word.
            begin: the word before the start of a sentence.
            end: the word that ends a sentence.

        Returns:
            The sentences `(batch, longest)`, each with its end, and 0 after it.
        """
        batch = state.shape[0]
        words = torch.full((batch, self.beams), begin, device=state.device)
        written = words.new_zeros(batch, self.beams, 0)
        # All hypotheses are equal at first: one of them is enough.
        likelihood = state.new_full((batch, self.beams), -torch.inf)
        likelihood[:, 0] = 0
        ended = torch.zeros_like(words, dtype=torch.bool)
        for _ in range(self.longest):
            logits, state = step(words, state)
            likelihood, chosen = self.best(likelihood, logits.log_softmax(-1), written, ended)
            beam, words = chosen // logits.shape[-1], chosen % logits.shape[-1]
            state = state.gather(1, beam.unsqueeze(-1).expand_as(state))
            written = written.gather(1, beam.unsqueeze(-1).expand_as(written))
            written = torch.cat([written, words.unsqueeze(-1)], -1)
            ended = ended.gather(1, beam) | (words == end)
            if bool(ended.all()):
                break
        best = self.scores(likelihood, written).argmax(-1)
        sentences = written[torch.arange(batch, device=best.device), best]
        return torch.nn.functional.pad(sentences, (0, self.longest - sentences.shape[-1]))

    def best(
        self, likelihood: Tensor, following: Tensor, written: Tensor, ended: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Choose the best continuations of all hypotheses; ended ones stay as they are."""
        stays = torch.full_like(following[0, 0], -torch.inf)
        stays[PADDING] = 0
        # Padding is no word to write: a sentence goes on or ends.
        goes_on = following.clone()
        goes_on[..., PADDING] = -torch.inf
        following = torch.where(ended.unsqueeze(-1), stays, goes_on)
        totals = likelihood.unsqueeze(-1) + following
        lengths = (written != PADDING).sum(-1, keepdim=True) + (~ended).unsqueeze(-1)
        ranked = (totals / lengths.clamp(min=1) ** self.length_power).flatten(1)
        chosen = ranked.topk(likelihood.shape[-1], -1).indices
        return totals.flatten(1).gather(-1, chosen), chosen

    def scores(self, likelihood: Tensor, written: Tensor) -> Tensor:
        """Compute the score of each hypothesis."""
        return likelihood / (written != PADDING).sum(-1).clamp(min=1) ** self.length_power
