"""Counts of short sequences: a prediction of the next letter without a network."""

import torch
from torch import Tensor, nn

from linrec import Result
from lmu.experiments.models.network import StreamingNetwork

MOST = 2**62  # the largest number for a context


class NGrams(StreamingNetwork):
    """Interpolated n-grams: the share of times that a letter followed the last letters.

        P(c | h) = (N(h c) + s D(h) P(c | h')) / (N(h) + s D(h))        P = 1 / letters beneath all

    h are the last letters, and h' is h without its first letter. N(h c) counts how often c followed
    h, N(h) how often any letter did, and D(h) how many different letters did. The counts are made
    at construction. s is 1, as in Witten and Bell, and the only number that could be trained. The
    place before a window's first letter counts as a letter of its own.

    Args:
        letters: how many letters there are.
        order: n: h has n - 1 letters at most.
        windows (windows, time): letters to count.
        following (windows, time): the letter after each.
        said: how many letters, those with the lowest numbers, may follow. None: all.

    Inputs are letters `(windows, time)`, outputs log P `(windows, time, said)`.

    Raises:
        ValueError: n below 1, or too many possible contexts to be numbered.

    Example:
        >>> import torch
        >>> text = torch.tensor([[0, 1, 0, 1, 0, 1, 0, 1]])
        >>> model = NGrams(3, 2, text[:, :-1], text[:, 1:])
        >>> model(text[:, :2]).detach().exp()[0, 1]  # P(0 | 1) = (3 + (3 + 2/3) / 9) / (3 + 1)
        tensor([0.8519, 0.1296, 0.0185])

    References:
        Bell, Cleary and Witten 1990, Text Compression (method C). Chen and Goodman 1999, An
        Empirical Study of Smoothing Techniques for Language Modeling, section 2.4.
    """

    time_axis = -1

    def __init__(
        self,
        letters: int,
        order: int,
        windows: Tensor,
        following: Tensor,
        said: int | None = None,
    ) -> None:
        super().__init__()
        if order < 1:
            raise ValueError(f"`order` is {order}: expected 1 or more.")
        if (letters + 1) ** order > MOST:
            raise ValueError(
                f"`order` is {order} and there are {letters} letters: expected contexts that a "
                "whole number of 62 bits can tell apart. Lower `order`."
            )
        self.letters, self.order = letters, order
        self.said = letters if said is None else said
        contexts, following = self.contexts(windows), following.reshape(-1).long()
        for length in range(order):
            codes = self.encode(contexts, length).reshape(-1) * self.said + following
            seen, counts = codes.unique(return_counts=True)
            self.register_buffer(f"seen{length}", seen)
            self.register_buffer(f"counts{length}", counts.int())
            self.fitted += len(seen)
        self.scale = nn.Parameter(torch.ones(()))

    def contexts(self, windows: Tensor) -> Tensor:
        """Return the last n - 1 letters at each step, counted from 1, `(…, time, n - 1)`."""
        if self.order == 1:
            return windows.new_zeros(*windows.shape, 0, dtype=torch.long)
        numbers = nn.functional.pad(windows.long() + 1, (self.order - 2, 0))
        return numbers.unfold(-1, self.order - 1, 1)

    def encode(self, contexts: Tensor, length: int) -> Tensor:
        """Number the last `length` letters of `contexts (…, n - 1)`, `(…)`."""
        code = contexts.new_zeros(contexts.shape[:-1])
        for letter in contexts[..., contexts.shape[-1] - length :].unbind(-1):
            code = code * (self.letters + 1) + letter
        return code

    def predict(self, contexts: Tensor) -> Tensor:
        """Compute log P `(…, said)` after `contexts (…, n - 1)`."""
        chances = torch.full((self.said,), 1 / self.said, device=contexts.device)
        for length in range(self.order):
            found = self.look_up(self.encode(contexts, length), length)
            different = (found > 0).sum(-1, keepdim=True) * self.scale
            total = found.sum(-1, keepdim=True) + different
            mixed = (found + different * chances) / total.clamp(min=1.0)
            chances = torch.where(total > 0, mixed, chances)
        return chances.log()

    def look_up(self, codes: Tensor, length: int) -> Tensor:
        """Find N(h c) of each letter that may follow, `(…, said)`, after contexts `codes (…)`."""
        seen, counts = self.get_buffer(f"seen{length}"), self.get_buffer(f"counts{length}")
        flat = codes.flatten() * self.said
        # The letters after one context are in one piece, from `first` on.
        first, end = (torch.searchsorted(seen, edge) for edge in (flat, flat + self.said))
        followers = end - first
        rows = torch.arange(len(flat), device=codes.device).repeat_interleave(followers)
        shift = first - (followers.cumsum(0) - followers)
        places = torch.arange(len(rows), device=codes.device) + shift[rows]
        found = torch.zeros(len(flat), self.said, device=codes.device)
        found[rows, seen[places] % self.said] = counts[places].float()
        return found.unflatten(0, codes.shape)

    def features(self, inputs: Tensor) -> Tensor:
        """Return the letters."""
        return inputs

    def head(self, features: Tensor) -> Tensor:
        """Compute log P `(*batch, time, said)` after each of `features (*batch, time)`."""
        return self.predict(self.contexts(features))

    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Read one letter of each text `(*batch)`; the state is the last n - 1 letters."""
        if state is None:
            state = input.new_zeros(*input.shape, self.order - 1, dtype=torch.long)
        state = torch.cat([state, input.long().unsqueeze(-1) + 1], -1)[..., 1:]
        return Result(self.predict(state), state)

    def stream(self, inputs: Tensor) -> Tensor:
        """Compute log P after every letter, reading one at a time."""
        return torch.stack(list(self.steps(inputs)), dim=-2)
