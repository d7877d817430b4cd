"""The layers of linrec.nn as streams."""

import pytest
import torch

import linrec
from linrec.testing.forms import sensitivity
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
