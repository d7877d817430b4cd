"""Selective copying: what is asked, what is scored, and that its networks are made as they are."""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lmu.experiments import EXPERIMENTS, Budget, Run, TrainingSetup
from lmu.experiments.data import selective_copying
from lmu.experiments.models import BagOfPlaces
from lmu.experiments.selective_copy import ACCURACY, loss

EXPERIMENT = EXPERIMENTS["selective-copy"]


def test_the_targets_are_the_tokens_in_order() -> None:
    data = selective_copying(3, length=40, train=20, scored=5, copied=6)
    assert [len(split.inputs) for split in data.splits] == [20, 5, 5]
    fewer = selective_copying(3, length=40, train=20, scored=5, copied=6, validated=2)
    assert [len(split.inputs) for split in fewer.splits] == [20, 2, 5]
    for inputs, targets in zip(*data.train, strict=True):
        assert inputs[inputs > 1].tolist() == targets.tolist()
        assert inputs[40:].tolist() == [1] * 6 and (inputs[:40] != 1).all()
    assert not torch.equal(data.train.inputs[:5], data.test.inputs)
    assert data.digest() == selective_copying(3, length=40, train=20, scored=5, copied=6).digest()
    with pytest.raises(ValueError, match="`length` is 5 and `copied` 6"):
        selective_copying(length=5, train=1, copied=6)


def test_only_the_answers_are_scored() -> None:
    targets = torch.randint(14, (3, 6))
    logits = torch.randn(3, 46, 16)
    logits[:, -6:] = 100.0 * torch.nn.functional.one_hot(targets, 16)
    assert ACCURACY.score([(logits, targets)]) == 100.0
    assert loss(logits, targets) < 1e-6


@pytest.mark.parametrize("model", EXPERIMENT.models)
def test_streaming_gives_what_the_parallel_form_gives(model: str) -> None:
    torch.manual_seed(0)
    data = selective_copying(length=20, train=2, scored=1, copied=4)
    network = EXPERIMENT.setting(model, Budget.QUICK).network(data).eval()
    logits = network(data.train.inputs)
    assert logits.shape == (2, 24, 16)
    torch.testing.assert_close(network.stream(data.train.inputs), logits, atol=1e-4, rtol=1e-4)


def test_chances_of_places_are_those_of_all_ways_to_scatter() -> None:
    """Three tokens over six steps, counted: of ten ways with one at step t, how many make it i."""
    counts = torch.zeros(3, 6)
    for ways in itertools.combinations(range(6), 3):
        counts[range(3), ways] += 1
    found = BagOfPlaces(4, 3, others=2).chances(6)
    torch.testing.assert_close(found, counts / math.comb(5, 2))


def test_places_are_scored_as_whole_numbers_would_score_them(tmp_path: Path) -> None:
    """The ways to scatter the others, counted by Python, of every token that is asked for."""
    record, _ = Run(EXPERIMENT, tmp_path, budget=Budget.QUICK, model="places").train()
    assert record.epochs == 0
    test = EXPERIMENT.data(0, None, Budget.QUICK).test
    length, copied = 512, test.targets.shape[1]
    choose = [[math.comb(n, k) for k in range(copied)] for n in range(length)]
    right = 0
    for inputs, targets in zip(test.inputs[:, :length], test.targets.tolist(), strict=True):
        places = inputs.nonzero().squeeze(-1).tolist()
        for i, target in enumerate(targets):
            ways = dict.fromkeys(range(2, 16), 0)
            for t in places:
                ways[int(inputs[t])] += choose[t][i] * choose[length - 1 - t][copied - 1 - i]
            right += max(ways, key=lambda token, ways=ways: ways[token]) == target
    # (Two tokens of nearly as many ways may change places by rounding: one in a thousand.)
    assert record.score == pytest.approx(100 * right / test.targets.numel(), abs=0.1)


def test_a_short_one_is_learned(tmp_path: Path) -> None:
    """Of 10 steps and 2 tokens, in seconds; chance is 7 %."""
    setting = EXPERIMENT.setting("min-gru", Budget.QUICK)
    small = replace(
        EXPERIMENT,
        data=lambda seed, folder, budget: selective_copying(
            seed, length=10, train=320, scored=100, copied=2
        ),
        models={"min-gru": {Budget.QUICK: TrainingSetup(setting.network, setting.recipe)}},
    )
    record, _ = Run(small, tmp_path, budget=Budget.QUICK, epochs=5).train()
    assert record.score > 25.0
