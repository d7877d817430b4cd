"""Layers and networks as streams: blocks and steps are the whole, and nobody's state is written."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import linrec
import lmu
from linrec.testing.forms import sensitivity, whole
from lmu.experiments.models import (
    DeepClassifier,
    DelayReader,
    LayerClassifier,
    LayerPredictor,
    SampleNetwork,
    SequenceClassifier,
    SeriesPredictor,
)
from lmu.layers import LSTM, Encoder, FeedForward, Highway, Residual, Stack, window_blocks
from tests.lmu.text_networks import blocks, language_model

UNIT = {"order": 4, "theta": 9.0}

MODULES: dict[str, Callable[[], nn.Module]] = {
    "memory": lambda: lmu.LegendreMemory(2, **UNIT),
    "trained window": lambda: lmu.LegendreMemory(2, **UNIT, trainable_theta=True),
    "parallel": lambda: lmu.ParallelLMU(2, 5, 3, **UNIT, memory_dropout=0.5),
    "parallel, trained window": lambda: lmu.ParallelLMU(2, 5, 3, **UNIT, trainable_theta=True),
    "unit of 2019": lambda: lmu.LMU.original(2, 5, **UNIT),
    "unit with an LSTM cell": lambda: lmu.LMU(2, 2, **UNIT, hidden=nn.LSTMCell(8, 5)),
    "unit without": lambda: lmu.LMU(2, 2, **UNIT, memory_to_memory=True, input_dropout=0.5),
    "lstm": lambda: LSTM(2, 3, depth=2, dropout=0.5),
    "stack": lambda: Stack([Encoder(2, 4), Highway(lmu.ParallelLMU(4, 4, 1, **UNIT)), LSTM(4, 3)]),
    "residual": lambda: Residual(FeedForward(2, 7), dropout=0.5),
    "deep": lambda: lmu.layers.ScalarMix(window_blocks(2, 2, dropout=0.5)),
    "recurrence": lambda: linrec.nn.Recurrence(
        linrec.LinearRecurrence([[0.9, -0.2], [0.2, 0.9]], C=[[0.0, 1.0]]), trainable=["A"]
    ),
    "predictor of layers": lambda: LayerPredictor(Stack([LSTM(2, 4), LSTM(4, 3)]), 2, 6),
    "classifier of layers": lambda: LayerClassifier(lmu.LMU.original(2, 5, **UNIT), 3),
    "series": lambda: SeriesPredictor(hidden_size=5, dense_size=4, **UNIT),
    "classifier": lambda: SequenceClassifier(classes=3, hidden_size=5, **UNIT, memory_dropout=0.5),
    "deep classifier": lambda: DeepClassifier(classes=3, hidden_sizes=(6,), **UNIT, dropout=0.5),
    "delays": lambda: DelayReader(**UNIT, delays=[0, 5]),
}


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    return MODULES[name]().train()


def input_size(module: nn.Module) -> int:
    if isinstance(module, lmu.LegendreMemory):
        return module.channels
    size = getattr(module, "input_size", 2)
    assert isinstance(size, int)
    return size


class Run(nn.Module):
    """A network as a module that gives outputs and state of all steps."""

    def __init__(self, network: SampleNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor, state: Tensor | None = None) -> linrec.Result:
        return self.network.run(inputs, state)


def reference(module: nn.Module) -> nn.Module:
    """The module in evaluation mode, as one that gives outputs and state of all steps."""
    return (Run(module) if isinstance(module, SampleNetwork) else module).eval()


@pytest.mark.parametrize("name", MODULES)
def test_blocks_and_steps_are_the_whole(name: str) -> None:
    stream = linrec.Stream(made(name), streams=3)
    module = reference(made(name))
    inputs = torch.randn(3, 16, input_size(made(name)))
    expected, end = whole(module, inputs)
    allowed = 2 * sensitivity(module, inputs)

    @settings(max_examples=8)
    @given(st.lists(st.integers(0, 16), max_size=5).map(sorted), st.booleans())
    def check(places: list[int], singly: bool) -> None:
        stream.reset()
        parts, start = [], 0
        for stop in (*places, 16):
            block = inputs[:, start:stop]
            if singly and stop - start == 1:
                parts.append(stream.push(block.squeeze(1)).unsqueeze(1))
            else:
                parts.append(stream.push(block))
            start = stop
        assert (torch.cat(parts, 1) - expected).abs().max() <= allowed
        assert stream.state.numel() == 0 or (stream.state - end).abs().max() <= allowed

    check()


@pytest.mark.parametrize("name", MODULES)
def test_padding_and_absent_streams(name: str) -> None:
    module, stream = made(name), linrec.Stream(made(name), streams=3)
    alone = [linrec.Stream(module) for _ in range(3)]
    block = torch.randn(3, 6, input_size(module))
    first = stream.push(block)
    for each, own in zip(alone, block, strict=True):
        each.push(own)
    assert first.shape[:2] == (3, 6)
    spoiled = block.clone()
    spoiled[1, 2:] = spoiled[2] = torch.nan
    outputs = stream.push(spoiled, torch.tensor([6, 2, 0]))
    tolerance = 2 * sensitivity(reference(made(name)), torch.cat([block, block], 1))
    for row, length in enumerate((6, 2, 0)):
        expected = alone[row].push(block[row, :length])
        assert outputs[row, length:].eq(0).all()
        torch.testing.assert_close(outputs[row, :length], expected, atol=tolerance, rtol=0)
        torch.testing.assert_close(stream.state[row], alone[row].state, atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", MODULES)
def test_nothing_that_was_handed_out_is_written_into(name: str) -> None:
    """Neither by a later step, nor the stream by what its user writes into outputs and inputs."""
    module = made(name)
    quiet, disturbed = linrec.Stream(module, streams=2), linrec.Stream(module, streams=2)
    m = input_size(module)
    for samples in (torch.ones(2, m), torch.ones(2, 1, m), torch.ones(2, 3, m), torch.ones(2, m)):
        given = samples.clone()
        expected, got, state = quiet.push(samples), disturbed.push(given), disturbed.state
        assert torch.equal(given, samples)
        assert torch.equal(got, expected)
        kept = [got.clone(), state.clone()]
        disturbed.push(torch.zeros(2, 0, m))
        assert torch.equal(got, kept[0]) and torch.equal(state, kept[1])
        for each in (given, got, state):
            each.fill_(torch.nan)
    assert torch.equal(quiet.state, disturbed.state)


@pytest.mark.parametrize("name", MODULES)
def test_states_of_the_modules_themselves_are_nobody_elses(name: str) -> None:
    """A state that a module returned is not changed by later calls, nor by writes into outputs."""
    module = made(name).eval()
    m, ways = input_size(module), [getattr(module, "step")]  # noqa: B009  # no Tensor
    blocks = [getattr(module, "run", module), *([module.final] if hasattr(module, "final") else [])]
    for way in (*ways, *blocks):
        sample = torch.ones(2, m) if way in ways else torch.ones(2, 3, m)
        with torch.no_grad():
            outputs, state = way(sample)
            again, kept = way(sample, state), state.clone()
            states = [state, again[1]]
            after = [each.clone() for each in states]
            for each in (outputs, again[0], sample):
                each.fill_(torch.nan)
        assert torch.equal(state, kept)
        assert all(map(torch.equal, states, after))


def test_a_module_goes_on_from_its_file_and_another_refuses_it(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    path = tmp_path / "state.safetensors"
    first = linrec.Stream(made("parallel"), streams=2)
    first.push(torch.ones(2, 5, 2))
    first.save(path)
    second = linrec.Stream(made("parallel"), streams=2)
    second.load(path)
    assert torch.equal(first.push(torch.ones(2, 2)), second.push(torch.ones(2, 2)))
    torch.manual_seed(1)
    other = linrec.Stream(lmu.ParallelLMU(2, 5, 3, **UNIT), streams=2)
    with pytest.raises(ValueError, match="other numbers"):
        other.load(path)
    with pytest.raises(ValueError, match="another system: it is of classes"):
        linrec.Stream(made("unit of 2019"), streams=2).load(path)


def test_a_cell_is_stepped_through_blocks() -> None:
    cell = lmu.LMUCell.original(2, 5, **UNIT)
    layer = lmu.LMU.original(2, 5, **UNIT)
    layer.load_state_dict(cell.state_dict())
    inputs = torch.randn(3, 7, 2)
    for streams, samples in ((3, inputs), (1, inputs[:1]), (None, inputs[0])):
        stream = linrec.Stream(cell, streams=streams)
        torch.testing.assert_close(stream.push(samples), layer(samples).outputs)
        assert stream.push(samples[..., :0, :]).shape == (*samples.shape[:-2], 0, 5)


def test_training_goes_on_beside_a_stream() -> None:
    module = lmu.ParallelLMU(2, 5, 3, **UNIT, trainable_theta=True)
    stream, before = linrec.Stream(module), module(torch.ones(4, 2)).outputs.detach()
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    module(torch.ones(4, 2)).outputs.sum().backward()
    optimizer.step()
    assert module.training and all(p.requires_grad for p in module.parameters())
    torch.testing.assert_close(stream.push(torch.ones(4, 2)), before)
    assert not torch.allclose(module(torch.ones(4, 2)).outputs, before)


def test_what_cannot_be_stepped_is_refused() -> None:
    both = lmu.Bidirectional(LSTM(2, 3), LSTM(2, 3))
    with pytest.raises(TypeError, match="has no `step`"):
        linrec.Stream(both)
    with pytest.raises(TypeError, match="does not say its input_size"):
        linrec.Stream(language_model(blocks(1)))
    with pytest.raises(ValueError, match="has executors of its own"):
        linrec.Stream(made("parallel"), executor=linrec.Auto())

    class Odd(nn.Module):
        input_size, state_size = 2, 3

        def step(self, input: Tensor, state: Tensor | None = None) -> Tensor:
            return input

    with pytest.raises(TypeError, match=r"`Odd.step` returned a Tensor: expected outputs and a"):
        linrec.Stream(Odd())
