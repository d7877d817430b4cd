"""A curriculum: easier batches at first, and those of selective copying, which grow."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lmu.experiments import EXPERIMENTS, Budget
from lmu.experiments.data import drop_blanks, selective_copying
from lmu.experiments.selective_copy import grow_sequences
from tests.lmu.test_training import RECIPE, run

EXPERIMENT = EXPERIMENTS["selective-copy"]


def test_a_curriculum_is_given_each_batch_and_the_share_of_steps_done(tmp_path: Path) -> None:
    seen: list[tuple[int, float]] = []

    def nothing(inputs: Tensor, targets: Tensor, done: float) -> tuple[Tensor, Tensor]:
        seen.append((len(inputs), done))
        return torch.zeros_like(inputs)[:3], targets[:3]

    recipe = replace(RECIPE, curriculum=nothing, epochs=2)
    (learned, _), (taught, _) = run(tmp_path / "a"), run(tmp_path / "b", recipe=recipe)
    assert [size for size, _ in seen] == 2 * [7, 7, 7, 7, 7, 5]
    assert [done for _, done in seen] == [step / 12 for step in range(12)]
    # Weights of inputs that are all zero have no gradient.
    torch.manual_seed(0)
    before = nn.Linear(5, 16).weight
    first = [next(network.parameters()) for network in (taught, learned)]
    assert [torch.equal(weights, before) for weights in first] == [True, False]


@pytest.mark.parametrize("length", [6, 7, 25, 40])
def test_blanks_are_dropped_and_nothing_else(length: int) -> None:
    whole = selective_copying(3, length=40, train=50, scored=1, copied=6).train
    shorter = drop_blanks(whole.inputs, length, copied=6)
    assert shorter.shape == (50, length + 6) and shorter.dtype == whole.inputs.dtype
    for inputs, targets in zip(shorter, whole.targets, strict=True):
        assert inputs[inputs > 1].tolist() == targets.tolist()
        assert inputs[length:].tolist() == [1] * 6 and (inputs[:length] != 1).all()
    again = drop_blanks(whole.inputs, length, copied=6)
    # Which blanks are dropped is drawn anew; without any, or with all, there is one way.
    assert torch.equal(shorter, again) == (length in (6, 40))


def test_sequences_grow_from_the_tokens_alone_to_their_whole_length() -> None:
    whole = selective_copying(length=4_096, train=32, scored=1).train
    shapes = []
    for done in (0, 0.3, 0.3 + 0.65 / 4, 0.625, 0.95, 1):
        inputs, targets = grow_sequences(whole.inputs, whole.targets, done)
        assert torch.equal(targets, whole.targets[: len(inputs)])
        shapes.append((len(inputs), inputs.shape[-1] - 16))
    # Half of the way is the geometric mean of 16 and 4,096, and a quarter that of 16 and 256.
    assert shapes == [(32, 16), (32, 16), (32, 64), (16, 256), (4, 4_096), (4, 4_096)]
    full = EXPERIMENT.setting("min-gru", Budget.FULL).recipe
    assert full.curriculum is grow_sequences and full.describe()["curriculum"] == "grow_sequences"
    assert EXPERIMENT.setting("min-gru", Budget.QUICK).recipe.curriculum is None
