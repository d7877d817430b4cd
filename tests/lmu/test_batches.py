"""Batches: each example once, in another order each time. A recipe of another rate."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from lmu.experiments.training import NRMSE, Recipe
from lmu.experiments.training.loop import Batches


def examples(seed: int, count: int = 40) -> tuple[Tensor, Tensor]:
    inputs = torch.randn(count, 5, generator=torch.Generator().manual_seed(seed))
    return inputs, inputs.square().sum(-1, keepdim=True)


def test_batches_hold_each_example_once_in_another_order_each_time() -> None:
    inputs = torch.arange(20)
    batches = Batches((inputs, inputs), 6, torch.Generator().manual_seed(0))
    assert len(batches) == 4
    orders = [torch.cat([batch for batch, _ in batches]) for _ in range(2)]
    assert not torch.equal(*orders)
    assert all(torch.equal(order.sort().values, inputs) for order in orders)


def test_batches_keep_inputs_and_targets_together() -> None:
    inputs, targets = examples(1)
    for some, answers in Batches((inputs, targets), 7, torch.Generator()):
        assert torch.equal(some.square().sum(-1, keepdim=True), answers)


def test_batches_of_fewer_examples_are_drawn_anew() -> None:
    inputs = torch.arange(20)
    batches = Batches((inputs, inputs), 6, torch.Generator().manual_seed(0), 10)
    assert (len(batches), batches.count) == (2, 10)
    one, other = (torch.cat([batch for batch, _ in batches]) for _ in range(2))
    assert len(one.unique()) == len(other.unique()) == 10
    assert not torch.equal(one.sort().values, other.sort().values)


def test_batches_of_alike_lengths_hold_each_example_once() -> None:
    lengths = torch.randint(1, 50, (900,), generator=torch.Generator().manual_seed(1))
    batches = Batches((lengths, lengths), 8, torch.Generator().manual_seed(0), lengths=lengths)
    one, other = list(batches), list(batches)
    assert torch.equal(torch.cat([batch for batch, _ in one]).sort().values, lengths.sort().values)
    # A hundred batches of random lengths 1 … 49, sorted: neighbours differ by one or two.
    spread = torch.tensor([float(batch.max() - batch.min()) for batch, _ in one])
    assert spread.mean() < 2
    # Neither the batches' order nor who is in them is the same again.
    assert [batch[0].item() for batch, _ in one] != [batch[0].item() for batch, _ in other]
    assert {tuple(batch.tolist()) for batch, _ in one} != {tuple(b.tolist()) for b, _ in other}


def test_the_learning_rate_can_be_another() -> None:
    optimizer = partial(torch.optim.Adam, lr=1e-2)
    recipe = Recipe(nn.functional.mse_loss, NRMSE, optimizer, batch_size=7, epochs=6)
    parameters = list(nn.Linear(1, 1).parameters())
    (group,) = recipe.with_learning_rate(0.5).optimizer(parameters).param_groups
    assert group["lr"] == 0.5
    assert recipe.with_learning_rate(None) is recipe
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="expected a positive number"):
            recipe.with_learning_rate(wrong)
