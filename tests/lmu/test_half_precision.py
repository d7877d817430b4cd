"""Layers in half precision: states in float32, and runs in pieces and in steps as in one."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import linrec
import lmu
from linrec.nn import Layer

LAYERS: dict[str, Callable[[], Layer]] = {
    "memory": lambda: lmu.LMU(3, 1, 32, 200.0),
    "feed-forward": lambda: lmu.LMU(3, 2, 6, 20.0, nn.Linear(12, 4)),
    "RNN": lambda: lmu.LMU(3, 1, 32, 200.0, nn.RNNCell(32, 8)),
    "LSTM": lambda: lmu.LMU(3, 1, 6, 20.0, nn.LSTMCell(6, 5)),
    "original": lambda: lmu.LMU.original(3, 8, 6, 20.0),
    "parallel": lambda: lmu.ParallelLMU(3, 8, channels=1, order=32, theta=200.0),
    "convolution": lambda: lmu.layers.CausalConvolution(3, 4, 3),
    "stack": lambda: linrec.nn.Stack(
        [lmu.layers.CausalConvolution(3, 4, 3), linrec.nn.MinGRU(4, 4)]
    ),
    "LMUFormer": lambda: lmu.LMUFormer(3, 5, width=8, order=4, theta=9.0),
}


def run_in_pieces(layer: Layer, inputs: Tensor) -> tuple[Tensor, Tensor]:
    first, state = layer(inputs[:, :7])
    rest, end = layer(inputs[:, 7:], state)
    return torch.cat([first, rest], 1), end


def run_in_steps(layer: Layer, inputs: Tensor) -> tuple[Tensor, Tensor]:
    outputs, state = [], None
    for each in inputs.unbind(1):
        output, state = layer.step(each, state)
        outputs.append(output)
    assert state is not None
    return torch.stack(outputs, 1), state


def run_as_stream(layer: Layer, inputs: Tensor) -> tuple[Tensor, Tensor]:
    stream = linrec.Stream(layer, streams=len(inputs))
    outputs = torch.stack([stream.push(each) for each in inputs.unbind(1)], 1)
    return outputs, stream.state


@pytest.mark.parametrize("run", [run_in_pieces, run_in_steps, run_as_stream])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", LAYERS)
def test_states_are_kept_in_single_precision(name: str, dtype: torch.dtype, run) -> None:
    """Each output has been rounded a handful of times; memories of 40 steps are sums in float32."""
    torch.manual_seed(0)
    layer = LAYERS[name]().to(dtype).eval()
    inputs = torch.randn(2, 40, 3).to(dtype)
    with torch.no_grad():
        whole, end = layer(inputs)
        outputs, state = run(layer, inputs)
    assert end.dtype == state.dtype == torch.float32
    assert whole.dtype == outputs.dtype == dtype
    rounding = torch.finfo(dtype).eps * whole.abs().max().item()
    torch.testing.assert_close(outputs, whole, rtol=0, atol=4 * rounding)
    torch.testing.assert_close(state, end, rtol=0, atol=4 * rounding + 1e-5)


@pytest.mark.parametrize("name", ["memory", "RNN"])
def test_a_memory_that_is_stepped_is_as_exact_as_one_at_once(name: str) -> None:
    """A memory of 1,500 steps in bfloat16 would be off by 5 percent; one rounding is 0.4."""
    torch.manual_seed(0)
    layer = LAYERS[name]().bfloat16().eval()
    inputs = torch.randn(1, 1_500, 3).bfloat16()
    with torch.no_grad():
        end = layer(inputs)[1]
        stepped = run_in_steps(layer, inputs)[1]
    memory, at_once = stepped[:, :32], end[:, :32]
    assert (memory - at_once).abs().max() < 1e-3 * at_once.abs().max()


@pytest.mark.parametrize(("dtype", "steps"), [(torch.bfloat16, 1_500), (torch.float16, 5_001)])
def test_steps_are_counted_under_autocast(dtype: torch.dtype, steps: int) -> None:
    """In bfloat16, 1,500 would be 1,504; in float16, 5,001 would be 5,000."""
    network = lmu.LMUFormer(3, 5, width=8, order=4, theta=9.0).eval()
    with torch.no_grad(), torch.autocast("cpu", dtype):
        assert network(torch.randn(1, steps, 3))[1][0, -1].item() == steps


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_highways_under_autocast(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    block, inputs = linrec.nn.Highway(linrec.nn.MinGRU(4, 4)), torch.randn(2, 9, 4)
    expected = block(inputs).outputs
    with torch.autocast("cpu", dtype):
        outputs = block(inputs).outputs
        last = block.final(inputs).outputs
        first = block.step(inputs[:, 0]).outputs
    assert outputs.dtype == torch.float32
    tolerance = 8 * torch.finfo(dtype).eps * expected.abs().max().item()
    torch.testing.assert_close(outputs, expected, rtol=0, atol=tolerance)
    torch.testing.assert_close(last, outputs[:, -1], rtol=0, atol=tolerance)
    torch.testing.assert_close(first, outputs[:, 0], rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels", [1, 2])
def test_memory_to_memory_is_as_near_in_runs_as_in_steps(dtype: torch.dtype, channels: int) -> None:
    """A + B e_m has more digits than half precision: A is 0.9995, and B 5e-4."""
    torch.manual_seed(0)
    unit = lmu.LMU(1, channels, order=1, theta=2000, memory_to_memory=True)
    nn.init.constant_(unit.memory_to_memory.weight, -0.4)  # type: ignore[union-attr]  # there is one
    nn.init.ones_(unit.input_to_memory.weight)  # type: ignore[union-attr]  # likewise
    half = unit.to(dtype).eval()
    wide = copy.deepcopy(half).double()  # the same weights
    inputs = torch.ones(1, 3000, 1, dtype=dtype)
    with torch.no_grad():
        expected = wide(inputs.double()).outputs
        outputs, last = half(inputs)
        final = half.final(inputs)
        stepped, state = run_in_steps(half, inputs)
    # The memory is summed in float32, over 3,000 steps of some four roundings; outputs are rounded.
    off = 3000 * 4 * 2.0**-24 + torch.finfo(dtype).eps / 2
    for got in (outputs, stepped):
        assert got.dtype == dtype
        torch.testing.assert_close(got.double(), expected, rtol=off, atol=off)
    torch.testing.assert_close(final.outputs, outputs[:, -1])
    for each in (last, final.final_state, state):
        torch.testing.assert_close(each.double(), expected[:, -1], rtol=off, atol=off)
