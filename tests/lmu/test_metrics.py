"""Metrics: known values, whatever the batches."""

import math

import pytest
import torch

from lmu.experiments.training import ACCURACY, NRMSE, Metric


@pytest.mark.parametrize("metric", [ACCURACY, NRMSE], ids=lambda metric: metric.name)
def test_a_score_does_not_depend_on_its_batches(metric: Metric) -> None:
    outputs = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    targets = outputs.argmax(-1).roll(1) if metric is ACCURACY else outputs.roll(1, 0)
    whole = metric.score([(outputs, targets)])
    parts = zip(outputs.split(7), targets.split(7), strict=True)
    assert metric.score(parts) == pytest.approx(whole, rel=1e-12)


def test_accuracy_is_a_percentage() -> None:
    scores = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    assert ACCURACY.score([(scores, torch.tensor([1, 0, 0]))]) == pytest.approx(200 / 3)
    assert ACCURACY.show(98.4949) == "98.49"


def test_nrmse_is_one_for_zero_and_grows_with_the_error() -> None:
    targets = torch.tensor([[3.0], [-4.0]])
    assert NRMSE.score([(torch.zeros(2, 1), targets)]) == pytest.approx(1.0)
    assert NRMSE.score([(targets, targets)]) == 0.0
    assert NRMSE.score([(targets + 1.0, targets)]) == pytest.approx(1.0 / math.sqrt(12.5))
    assert NRMSE.show(0.04449) == "0.0445"
