"""Outputs alone, for callers that expect a single tensor."""

import pytest
import torch
from torch import nn

import linrec
import lmu


def test_outputs_alone_fit_into_a_sequence_of_modules() -> None:
    torch.manual_seed(0)
    first, second = linrec.nn.MinGRU(3, 4), lmu.ParallelLMU(4, 5, 2, 6, theta=20)
    stacked = nn.Sequential(linrec.nn.Outputs(first), nn.GELU(), linrec.nn.Outputs(second))
    inputs = torch.randn(2, 7, 3)
    expected = second(nn.functional.gelu(first(inputs).outputs)).outputs
    assert torch.equal(stacked(inputs), expected)
    stacked(inputs).sum().backward()
    assert all(parameter.grad is not None for parameter in stacked.parameters())


def test_outputs_alone_take_lengths() -> None:
    layer = linrec.nn.MinGRU(3, 4)
    inputs, lengths = torch.randn(2, 7, 3), torch.tensor([7, 2])
    outputs = linrec.nn.Outputs(layer)(inputs, lengths)
    assert torch.equal(outputs, layer(inputs, lengths=lengths).outputs)
    assert not outputs[1, 2:].any()
    resets = torch.arange(7) == 3
    outputs = linrec.nn.Outputs(layer)(inputs, resets=resets)
    assert torch.equal(outputs, layer(inputs, resets=resets).outputs)


def test_only_modules_have_outputs() -> None:
    with pytest.raises(TypeError, match=r"linrec.nn.Recurrence\(recurrence\)"):
        linrec.nn.Outputs(linrec.LinearRecurrence([[0.5]]))  # type: ignore[arg-type]
