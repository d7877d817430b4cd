"""Vectors of words and of pairs of words."""

import pytest
import torch

from lmu.experiments.models import PairedWords

COUNT, WIDTH = 13, 6


@pytest.mark.parametrize("reach", [1, 2, 3])
def test_vectors_of_pairs_are_those_of_the_word_and_words_before(reach: int) -> None:
    words, made = torch.randint(COUNT, (5, 11)), PairedWords(COUNT, WIDTH, reach)
    found = made(words)
    tables = made.pairs.weight.unflatten(0, (reach, COUNT, COUNT))
    for t in range(words.shape[-1]):
        expected = made.embedding.weight[words[:, t]]
        for back, table in enumerate(tables, 1):
            before = words[:, t - back] if t >= back else torch.zeros_like(words[:, 0])
            expected = expected + table[before, words[:, t]]
        torch.testing.assert_close(found[:, t], expected, rtol=0, atol=0)
    assert made(words[:, :0]).shape == (5, 0, WIDTH)
