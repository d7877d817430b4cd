"""The timed recurrences: the alternatives that they are compared with compute the same."""

from functools import partial

import pytest
import torch

from linrec.benchmark import recurrences, tables


@pytest.mark.parametrize("model", recurrences.MODELS)
def test_recurrences_are_what_their_loops_and_chunk_forms_are(model: str) -> None:
    """The authors' too, where they are installed; gradients in all that varies."""
    given = recurrences.draw(model, (3, 128, 4, 5))
    ways = [recurrences.ours, recurrences.loop, recurrences.in_chunks]
    calls = [partial(way, model) for way in ways]
    calls += [each for name, each in recurrences.authors().items() if name == model]
    expected, *others = (call(given) for call in calls)
    for found in others:
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    expected, *others = (recurrences.call(call, given, True)() for call in calls)
    for found in others:
        for mine, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)


def test_steps_of_long_recurrences_have_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurrences, "SIZES", ((2, 128, 4, 3),))
    monkeypatch.setattr(recurrences, "LONGER", (64, 128))
    monkeypatch.setattr(recurrences, "MODELS", ("GLA",))
    rows = list(recurrences.measure_recurrences(0.0))
    alone, longer = tables.of_recurrences(rows)
    assert [row[:3] for row in alone.rows] == [
        ["GLA", "2 × 128, 4 × 3", "forward"],
        ["GLA", "2 × 128, 4 × 3", "with gradient"],
    ]
    assert longer.columns == ["model", "64 steps", "128 steps"]
