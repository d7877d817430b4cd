"""Selective copying: tokens scattered over a long sequence, to be said again in order."""

import torch
from torch import Tensor

from lmu.experiments.data.splits import Dataset, Split

TOKENS = 16  # of the vocabulary: 14 that are copied, one that says nothing, and the sign to begin
BLANK, SIGN = 0, 1
COPIED = 16  # how many are scattered


def selective_copying(
    seed: int = 0,
    *,
    length: int,
    train: int,
    scored: int = 1_000,
    copied: int = COPIED,
    validated: int | None = None,
) -> Dataset:
    """Return the selective copying task: say the tokens in order, and nothing else.

        inputs   0 0 7 0 3 0 0 … 9 0 1 1 1     targets 7 3 9

    The tokens stand at places drawn anew for each sequence, between blanks (0); as many signs (1)
    follow as there are tokens, and at each the next token is asked for.

    Args:
        seed: seed of the sequences.
        length: steps that the tokens are scattered over.
        train: how many sequences to train on.
        scored: how many to report, and to choose by.
        copied: how many tokens a sequence has.
        validated: how many to choose by, if not as many as are reported.

    Returns:
        The task; inputs `(sequences, length + copied)` and targets `(sequences, copied)`, whole
        numbers.

    Raises:
        ValueError: fewer steps than tokens.

    References:
        Gu and Dao 2023, Mamba: Linear-Time Sequence Modeling with Selective State Spaces, section
        4.1.1.
    """
    if length < copied:
        raise ValueError(
            f"`length` is {length} and `copied` {copied}: expected a step for each token."
        )
    generator = torch.Generator().manual_seed(seed)

    def split(count: int) -> Split:
        tokens = torch.randint(2, TOKENS, (count, copied), generator=generator)
        order = torch.rand(count, length, generator=generator).argsort(-1)
        places = order[:, :copied].sort(-1).values
        scattered = torch.full((count, length), BLANK).scatter(1, places, tokens)
        signs = torch.full((count, copied), SIGN)
        return Split(torch.cat([scattered, signs], 1).to(torch.uint8), tokens)

    return Dataset(split(train), split(validated or scored), split(scored))


def drop_blanks(inputs: Tensor, length: int, copied: int = COPIED) -> Tensor:
    """Drop blanks, drawn at random, until the tokens are scattered over fewer steps.

    Args:
        inputs (sequences, time): tokens between blanks, and a sign for each token.
        length: steps that remain before the signs; no fewer than tokens.
        copied: how many tokens a sequence has.

    Returns:
        shorter (sequences, length + copied); drawn by torch's global generator.
    """
    keys = torch.rand(inputs.shape, device=inputs.device)
    keys = keys.masked_fill(inputs != BLANK, 1.0)  # more than any drawn number
    kept = keys.topk(length + copied, -1).indices.sort(-1).values
    return inputs.gather(-1, kept)
