"""LMUFormer: the published size, and streaming equal to all steps at once."""

import pytest
import torch
from torch import nn

import lmu
from linrec.nn import Layer
from linrec.testing import check_module
from lmu.layers.convolution import StepNorm


def warmed(module: Layer) -> Layer:
    """Give normalisations statistics that are none of the first ones."""
    torch.manual_seed(1)
    for each in module.modules():
        if isinstance(each, nn.BatchNorm1d) and each.running_mean is not None:
            assert each.running_var is not None
            nn.init.normal_(each.running_mean, std=0.3)
            nn.init.uniform_(each.running_var, 0.5, 2)
    return module.eval()


def small() -> lmu.LMUFormer:
    torch.manual_seed(0)
    return lmu.LMUFormer(input_size=5, classes=3, width=8, depth=2, order=6, theta=20.0)


def test_the_published_network_has_its_size() -> None:
    network = lmu.LMUFormer(input_size=128, classes=35)
    assert sum(each.numel() for each in network.parameters()) == 1_621_796


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)], ids=str)
def test_streaming_is_all_steps(shape: tuple[int, ...]) -> None:
    """In float64 to the rounding of a few hundred operations; the last score is `final`'s."""
    network = warmed(small().double())
    inputs = torch.randn(*shape, 30, 5, dtype=torch.float64)
    whole, state = network(inputs), None
    for t in range(30):
        outputs, state = network.step(inputs[..., t, :], state)
        torch.testing.assert_close(outputs, whole.outputs[..., t, :], rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(state, whole.final_state, rtol=1e-11, atol=1e-11)
    last = network.final(inputs)
    torch.testing.assert_close(last.outputs, whole.outputs[..., -1, :], rtol=0, atol=0)
    first = network(inputs[..., :13, :])
    rest = network(inputs[..., 13:, :], first.final_state)
    torch.testing.assert_close(rest.outputs, whole.outputs[..., 13:, :], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: lmu.layers.CausalConvolution(3, 4, 3),
        lambda: lmu.layers.CausalConvolution(2, 3, 1),
        lambda: lmu.layers.PatchEmbedding(3, 6),
        lambda: lmu.layers.LMUFormerBlock(6, order=4, theta=12.0),
        small,
    ],
)
def test_the_kit_finds_nothing(layer) -> None:
    check_module(warmed(layer()), examples=3)


def test_a_convolution_is_torchs() -> None:
    layer = lmu.layers.CausalConvolution(3, 4, 3)
    inputs = torch.randn(2, 9, 3)
    padded = nn.functional.pad(inputs.mT, (2, 0))
    torch.testing.assert_close(layer(inputs).outputs, layer.convolution(padded).mT)


def test_padding_is_not_counted_in_training() -> None:
    """A batch with padding, and its own steps as one row: equal outputs and statistics."""
    norm, alone = StepNorm(4), StepNorm(4)
    inputs, lengths = torch.randn(3, 7, 4), torch.tensor([7, 2, 4])
    own = torch.arange(7) < lengths.unsqueeze(-1)
    got = norm(inputs.masked_fill(~own.unsqueeze(-1), 1e6), own)
    torch.testing.assert_close(got[own], alone(inputs[own]), rtol=1e-6, atol=1e-6)
    assert not got[~own].any()
    torch.testing.assert_close(norm.running_mean, alone.running_mean)
    torch.testing.assert_close(norm.running_var, alone.running_var)
    network = small().train()
    outputs = network(torch.randn(3, 7, 5), lengths=lengths).outputs
    assert outputs.isfinite().all() and not outputs[~own].any()
