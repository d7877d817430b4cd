"""Translation word by word: against the definition with fractions, one link after the other."""

from collections import Counter, defaultdict
from fractions import Fraction
from functools import partial

import pytest
import torch
from torch import Tensor

from lmu.experiments.models import BeamSearch, WordTranslation
from lmu.experiments.models import word_translation as file

READ, WRITTEN = 9, 8
NULL, END = 2, 3

# Four rounds of some thirty sums and quotients of positive numbers each, rounded to single
# precision, then a logarithm of at least log 1e-3 and its exponential.
ROUNDINGS = (4 * 30 + 7) * 2**-24
SOURCES = [[4, 5, 5], [6], [4, 6, 7, 8], [8, 5]]
ANSWERS = [[4, 5, 3], [5, 6, 7, 3], [4, 3], [7, 7, 3]]


def pad(rows: list[list[int]], longest: int = 6) -> Tensor:
    """Put zeros after rows."""
    return torch.tensor([row + [0] * (longest - len(row)) for row in rows])


def pairs() -> tuple[Tensor, Tensor]:
    """The pairs of sentences, the targets one step later, and their answers."""
    said = pad([[2, *answer[:-1]] for answer in ANSWERS])
    return torch.stack([pad(SOURCES), said], 1), pad(ANSWERS)


def define(rounds: int) -> list[list[Fraction]]:
    """Compute t(f | e) of every two words by the definition."""
    found = Counter(word for answer in ANSWERS for word in answer)
    total = sum(found.values()) + WRITTEN
    frequencies = [Fraction(1 + found[word], total) for word in range(WRITTEN)]
    counts: dict[tuple[int, int], Fraction] = {}
    for step in range(rounds + 1):
        sums = [sum(counts.get((e, f), 0) for f in range(WRITTEN)) for e in range(READ)]
        t = [
            [(counts.get((e, f), 0) + frequencies[f]) / (sums[e] + 1) for f in range(WRITTEN)]
            for e in range(READ)
        ]
        if step == rounds:
            return t
        counts = defaultdict(Fraction)
        for source, answer in zip(SOURCES, ANSWERS, strict=True):
            for f in answer:
                words = [NULL, *source]
                for e in words:
                    counts[e, f] += t[e][f] / sum(t[each][f] for each in words)
    raise AssertionError


@pytest.mark.parametrize("at_a_time", [1, 3, 128])
@pytest.mark.parametrize("rounds", [0, 1, 4])
def test_chances_are_those_of_the_definition(
    rounds: int, at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file, "COUNTED", at_a_time)
    model = WordTranslation(READ, WRITTEN, *pairs(), rounds=rounds)
    expected = define(rounds)
    close = partial(torch.testing.assert_close, rtol=ROUNDINGS, atol=0)
    wanted = torch.tensor([[float(each) for each in row] for row in expected])
    close(model.chances(model.counts), wanted)
    texts = pairs()[0]
    for outputs in (model(texts), model.stream(texts)):
        assert outputs.shape == (4, 4, WRITTEN)
        for row, source in zip(outputs.detach().exp(), SOURCES, strict=True):
            words = [NULL, *source]
            mean = [float(sum(expected[e][f] for e in words) / len(words)) for f in range(WRITTEN)]
            close(row, torch.tensor(mean).expand_as(row))


def test_each_word_is_translated_by_the_likeliest() -> None:
    model = WordTranslation(READ, WRITTEN, *pairs())
    expected = define(5)
    likeliest = [max(range(END + 1, WRITTEN), key=lambda f: row[f]) for row in expected]
    for longest in (7, 4, 2):
        written = model.translate(pad(SOURCES), BeamSearch(longest=longest))
        for row, source in zip(written.tolist(), SOURCES, strict=True):
            words = [likeliest[e] for e in source][: longest - 1]
            assert row == [*words, END] + [0] * (longest - 1 - len(words))


def test_numbers_that_were_found_are_counted() -> None:
    links = {
        (e, f) for one, other in zip(SOURCES, ANSWERS, strict=True) for e in one for f in other
    }
    model = WordTranslation(READ, WRITTEN, *pairs())
    assert model.fitted == len(links | {(NULL, f) for answer in ANSWERS for f in answer})
