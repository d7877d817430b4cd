"""Gradients computed forward in time equal those of backpropagation."""

from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

import linrec
from linrec.nn import OnlineLayer, OnlineState, RecurrentLayer

LAYERS = {
    "EMA": lambda: linrec.nn.EMA(3),
    "LRU": lambda: linrec.nn.LRU(3, 5, r_min=0.5, r_max=0.99),
    "S5": lambda: linrec.nn.S5(3, 4),
    "MinGRU": lambda: linrec.nn.MinGRU(3, 5),
    "MinLSTM": lambda: linrec.nn.MinLSTM(3, 5),
}
SHAPES = [(), (2,), (2, 2)]


@pytest.fixture
def doubles():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def gradients(layer: nn.Module) -> dict[str, Tensor]:
    found = {name: each.grad for name, each in layer.named_parameters()}
    layer.zero_grad()
    return {name: cast(Tensor, each) for name, each in found.items()}


def step(layer: OnlineLayer, x: Tensor, state: OnlineState | None) -> tuple[Tensor, OnlineState]:
    return cast(tuple[Tensor, OnlineState], layer.step(x, state))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_are_those_of_backpropagation(name: str, shape, doubles: None) -> None:
    """Of a loss at every step, each learnt from at once; in float64 to its rounding."""
    layer, steps = LAYERS[name](), 30
    inputs, wanted = torch.randn(*shape, steps, 3), torch.randn(*shape, steps, layer.output_size)
    outputs = layer(inputs).outputs
    (outputs - wanted).square().sum().backward()
    expected, online, state = gradients(layer), OnlineLayer(layer), None
    for t in range(steps):
        now, state = step(online, inputs[..., t, :], state)
        torch.testing.assert_close(now, outputs[..., t, :], rtol=1e-11, atol=1e-11)
        (now - wanted[..., t, :]).square().sum().backward()
        assert not state.states.requires_grad  # no step keeps the graph of another
    got = gradients(layer)
    assert all(each.abs().sum() > 0 for each in expected.values())
    for each, value in expected.items():
        torch.testing.assert_close(got[each], value, rtol=1e-9, atol=1e-9)
    for each, trace in cast(OnlineState, state).traces.items():
        assert trace.shape == (*shape, *layer.get_parameter(each).shape)


def test_the_last_loss_alone_reaches_the_first_step(doubles: None) -> None:
    """What truncated backpropagation loses: only the last step of a delay has a loss."""
    layer = linrec.nn.LRU(1, 4, r_min=0.9, r_max=0.999)
    inputs = torch.zeros(40, 1)
    inputs[0] = 1
    layer(inputs).outputs[-1].sum().backward()
    expected, online, state = gradients(layer), OnlineLayer(layer), None
    with torch.no_grad():  # nothing is recorded on the way
        for x in inputs[:-1]:
            _, state = step(online, x, state)
    step(online, inputs[-1], state)[0].sum().backward()
    for name, got in gradients(layer).items():
        torch.testing.assert_close(got, expected[name], rtol=1e-9, atol=1e-12)


def test_the_input_of_the_step_has_its_own_gradient(doubles: None) -> None:
    online = OnlineLayer(linrec.nn.MinGRU(3, 5))
    _, state = step(online, torch.randn(2, 3), None)
    x = torch.randn(2, 3, requires_grad=True)
    step(online, x, state)[0].sum().backward()
    again = x.detach().clone().requires_grad_()
    online.layer.step(again, state.states).outputs.sum().backward()
    torch.testing.assert_close(x.grad, again.grad, rtol=1e-12, atol=1e-12)


def test_what_cannot_be_learned_so_is_named() -> None:
    class Mixed(RecurrentLayer):
        """One parameter that moves all states."""

        def __init__(self) -> None:
            super().__init__(2, 2, 2)
            self.rate = nn.Parameter(torch.tensor(0.5))

        def recurrence(self, inputs: Tensor):
            A = linrec.Diagonal(torch.sigmoid(self.rate).expand(2))
            return linrec.LinearRecurrence(A), inputs

    with pytest.raises(ValueError, match="`rate` of Mixed moves several states"):
        OnlineLayer(Mixed())
    with pytest.raises(ValueError, match="`log_dt` of S4D moves several states"):
        OnlineLayer(linrec.nn.S4D(3, 4))
    with pytest.raises(ValueError, match="expected a diagonal A"):
        OnlineLayer(linrec.nn.DeltaNet(4, heads=1))
    with pytest.raises(TypeError, match="RecurrentLayer"):
        OnlineLayer(cast(Any, nn.LSTM(1, 1)))
    online = OnlineLayer(linrec.nn.MinGRU(1, 2))
    _, state = step(online, torch.randn(3, 1), None)
    with pytest.raises(ValueError, match=r"of \(3,\) series and `input` of \(2,\)"):
        online.step(torch.randn(2, 1), state)
