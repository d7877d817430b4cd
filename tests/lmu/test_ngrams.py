"""Interpolated n-grams: against the definition with fractions, and one letter at a time."""

from collections import Counter
from fractions import Fraction

import pytest
import torch

from lmu.experiments.characters import LAYERS, network
from lmu.experiments.data import Dataset
from lmu.experiments.experiment import Budget
from lmu.experiments.models import NGrams
from lmu.experiments.running import count_parameters

LETTERS = 3


def defined(
    text: list[list[int]], following: list[list[int]], said: int, order: int, window: list[int]
) -> list[list[Fraction]]:
    """P of each letter after each step of a window, by recursion over counts in a dictionary."""
    counts: Counter[tuple[tuple[int, ...], int]] = Counter()
    for row, after in zip(text, following, strict=True):
        for place, letter in enumerate(after):
            padded = (-1,) * order + tuple(row[: place + 1])
            for length in range(order):
                counts[padded[len(padded) - length :], letter] += 1

    def chance(context: tuple[int, ...], letter: int) -> Fraction:
        seen = [counts[context, each] for each in range(said)]
        below = chance(context[1:], letter) if context else Fraction(1, said)
        if not sum(seen):
            return below
        different = sum(count > 0 for count in seen)
        return (seen[letter] + different * below) / (sum(seen) + different)

    rows = []
    for place in range(len(window)):
        padded = (-1,) * order + tuple(window[: place + 1])
        context = padded[len(padded) - (order - 1) :]
        rows.append([chance(context, letter) for letter in range(said)])
    return rows


@pytest.mark.parametrize("said", [LETTERS, 2])
@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_the_definition(order: int, said: int) -> None:
    generator = torch.Generator().manual_seed(order)
    text = torch.randint(LETTERS, (4, 12), generator=generator)
    text[:, ::3] = 1  # so that some contexts are never seen
    text, following = text[:, :-1], text[:, 1:] % said
    model = NGrams(LETTERS, order, text, following, None if said == LETTERS else said)
    windows = torch.randint(LETTERS, (3, 9), generator=generator).to(torch.uint8)
    with torch.no_grad():
        got, streamed = model(windows), model.stream(windows)
    assert torch.equal(got, streamed)
    torch.testing.assert_close(got.exp().sum(-1), torch.ones(3, 9))
    for row, window in enumerate(windows.tolist()):
        expected = torch.tensor(
            [
                [float(p) for p in each]
                for each in defined(text.tolist(), following.tolist(), said, order, window)
            ]
        )
        # A few float32 roundings for each order.
        torch.testing.assert_close(got[row].exp(), expected, rtol=8e-7 * order, atol=0)


def test_what_cannot_be_counted_is_refused() -> None:
    text = torch.zeros(1, 3, dtype=torch.long)
    with pytest.raises(ValueError, match="`order` is 0"):
        NGrams(LETTERS, 0, text, text)
    with pytest.raises(ValueError, match="Lower `order`"):
        NGrams(27, 14, text, text)


def test_networks_around_different_layers_are_equally_large() -> None:
    for budget in Budget:
        sizes = [
            count_parameters(network(make, budget, Dataset.empty())) for make, _ in LAYERS.values()
        ]
        assert max(sizes) <= 1.01 * min(sizes)
