"""Streams of layers, of modules derived from ours, and of banks."""

from typing import Any

import pytest
import torch
from torch import Tensor

import linrec
from linrec.testing.forms import sensitivity
from tests.cases import normal
from tests.linrec.layers import LAYERS


@pytest.mark.parametrize("name", LAYERS)
def test_blocks_and_steps_of_a_layer_are_the_whole(name: str) -> None:
    torch.manual_seed(0)
    layer = LAYERS[name][0]()
    inputs = torch.randn(2, 11, layer.input_size)
    stream = linrec.Stream(layer, streams=2)
    with torch.no_grad():
        expected, end = layer(inputs)
    parts = [stream.push(inputs[:, :5]), stream.push(inputs[:, 5])[:, None]]
    parts += [stream.push(inputs[:, 6:6]), stream.push(inputs[:, 6:])]
    allowed = 2 * sensitivity(layer, inputs)
    assert (torch.cat(parts, 1) - expected).abs().max() <= allowed
    assert (stream.state - end).abs().max() <= allowed


class Scaled(linrec.nn.Recurrence):
    """A recurrence of twice its inputs."""

    def forward(self, inputs: Tensor, *given: Any, **named: Any) -> linrec.Result:  # type: ignore[override]  # shorter
        return super().forward(2 * inputs, *given, **named)

    def step(self, input: Tensor, state: Tensor | None = None) -> linrec.Result:
        return super().step(2 * input, state)


def hooked(recurrence: linrec.LinearRecurrence) -> linrec.nn.Recurrence:
    module = linrec.nn.Recurrence(recurrence)
    module.register_forward_pre_hook(lambda module, given: (given[0] * 2, *given[1:]))
    return module


@pytest.mark.parametrize("make", [Scaled, hooked, linrec.nn.Recurrence])
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "inside a stack"])
def test_streams_run_what_a_subclass_or_a_hook_changes(make, inside: bool) -> None:
    recurrence = linrec.LinearRecurrence(torch.eye(2) / 2, torch.ones(2, 1))
    part = make(recurrence)
    module = linrec.nn.Stack([part, linrec.nn.MinGRU(2, 2)]) if inside else part
    inputs = torch.randn(6, 1)
    torch.testing.assert_close(linrec.Stream(module).push(inputs), module(inputs).outputs)
    if make is not hooked:  # (hooks are of calls, and a step is none)
        stream = linrec.Stream(module)
        samples = torch.stack([stream.push(each) for each in inputs])
        torch.testing.assert_close(samples, module(inputs).outputs)


BATCHES = {
    "C": lambda: linrec.LinearRecurrence(normal(3, 3) / 3, normal(3, 1), normal(4, 2, 3)),
    "C, two inputs": lambda: linrec.LinearRecurrence(
        normal(3, 3) / 3, normal(3, 2), normal(4, 2, 3)
    ),
    "D": lambda: linrec.LinearRecurrence(
        normal(3, 3) / 3, normal(3, 2), normal(2, 3), normal(4, 2, 2)
    ),
    "no B": lambda: linrec.LinearRecurrence(normal(3, 3) / 3, None, normal(4, 2, 3)),
    "A": lambda: linrec.LinearRecurrence(normal(4, 3, 3) / 3, normal(3, 1), normal(2, 3)),
}


@pytest.mark.parametrize("name", BATCHES)
def test_banks_in_one_stream(name: str) -> None:
    """One stream of samples is read by each system of a bank."""
    recurrence = BATCHES[name]()
    inputs = normal(5, recurrence.input_size)
    right = linrec.run(recurrence, inputs, executor=linrec.Recurrent()).outputs
    stream = linrec.Stream(recurrence)
    torch.testing.assert_close(stream.push(inputs), right)
    stream.reset()
    torch.testing.assert_close(torch.stack([stream.push(each) for each in inputs], -2), right)
