"""Spiking neurons: a plain loop, the recurrence between spikes, the published size, streaming."""

import pytest
import torch
from hypothesis import strategies as st
from test_lmuformer import warmed

import linrec
from linrec.testing import check_module
from lmu.layers import SpikingLMUFormer, SpikingNeurons

pytest.importorskip("snntorch")


def small() -> SpikingLMUFormer:
    torch.manual_seed(0)
    return SpikingLMUFormer(input_size=5, classes=3, width=8, order=6, theta=20.0)


def test_the_published_network_has_its_size() -> None:
    network = SpikingLMUFormer(input_size=128, classes=35)
    assert sum(each.numel() for each in network.parameters()) == 1_689_894


def test_neurons_are_a_plain_loop() -> None:
    """v follows the input, fires over the threshold and is put back to zero, in any state."""
    torch.manual_seed(0)
    neurons = SpikingNeurons(4, tau=4.0, threshold=0.4).double().eval()
    inputs, state = 2 * torch.randn(50, 4, dtype=torch.float64), torch.rand(4).double() / 3
    outputs, end = neurons(inputs, state)
    drive = neurons.norm(inputs)
    for t in range(50):
        state = state + (drive[t] - state) / 4.0
        fires = state > 0.4
        assert torch.equal(fires, outputs[t] == 1)
        state = torch.where(fires, 0.0, state)
    torch.testing.assert_close(end, state, rtol=1e-13, atol=1e-13)
    assert 0 < outputs.sum() < outputs.numel()


def test_between_spikes_the_membrane_is_a_diagonal_recurrence() -> None:
    torch.manual_seed(0)
    neurons = SpikingNeurons(4, tau=4.0, threshold=1e9).double().eval()
    inputs = torch.randn(50, 4, dtype=torch.float64)
    leak = linrec.LinearRecurrence(linrec.Diagonal(torch.full((4,), 0.75).double()))
    states = linrec.run(leak, neurons.norm(inputs) / 4.0)
    torch.testing.assert_close(
        neurons(inputs).final_state, states.final_state, rtol=1e-13, atol=1e-13
    )


def test_streaming_is_all_steps() -> None:
    network = warmed(small().double())
    inputs = torch.randn(2, 30, 5, dtype=torch.float64)
    whole, state = network(inputs), None
    for t in range(30):
        outputs, state = network.step(inputs[:, t], state)
        torch.testing.assert_close(outputs, whole.outputs[:, t], rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(state, whole.final_state, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("make", [lambda: SpikingNeurons(3), small], ids=["neurons", "network"])
def test_the_kit_finds_nothing(make) -> None:
    """But that gradients through spikes are a surrogate's, and no differences of the outputs."""
    check_module(warmed(make()), examples=2, steps=st.integers(1, 4), without=["differences"])


def test_gradients_pass_through_spikes() -> None:
    network = small()
    network(torch.randn(4, 12, 5)).outputs.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert sum(p.grad.abs().sum() > 0 for p in network.parameters() if p.grad is not None) > 20


def test_neurons_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`tau` is 0\.5"):
        SpikingNeurons(3, tau=0.5)
