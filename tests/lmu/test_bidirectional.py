"""A sequence read from both ends, each from its own."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

import lmu
from lmu.layers import LSTM, Layer

INPUTS, STEPS = 3, 17

LAYERS: dict[str, Callable[[], Layer]] = {
    "parallel": lambda: lmu.ParallelLMU(INPUTS, 6, 2, 4, 9.0),
    "unit": lambda: lmu.LMU.original(INPUTS, 5, 4, 9.0),
    "lstm": lambda: LSTM(INPUTS, 4, depth=2),
}


@pytest.mark.parametrize("name", LAYERS)
def test_bidirectional(name: str) -> None:
    """Against the two layers run apart, each row turned round by hand."""
    torch.manual_seed(0)
    both = lmu.Bidirectional(LAYERS[name](), LAYERS["lstm"]()).double()
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, STEPS, INPUTS, generator=generator).double()
    start = torch.randn(4, both.state_size, generator=generator).double()
    lengths = torch.tensor([STEPS, 6, 0, 1])
    outputs, final_state = both(x, start, lengths)
    first = both.forward_layer
    assert not outputs[torch.arange(STEPS) >= lengths[:, None]].any()
    for row, length in enumerate(lengths.tolist()):
        mine = x[row, :length]
        onwards, end = first(mine, start[row, : first.state_size])
        turned, begin = both.backward_layer(mine.flip(0), start[row, first.state_size :])
        expected = torch.cat([onwards, turned.flip(0)], -1)
        torch.testing.assert_close(outputs[row, :length], expected, rtol=1e-12, atol=1e-12)
        expected = torch.cat([end, begin])
        torch.testing.assert_close(final_state[row], expected, rtol=1e-12, atol=1e-12)
    whole = both(x[:1]).outputs
    torch.testing.assert_close(whole, both(x[:1], lengths=[STEPS]).outputs, rtol=1e-12, atol=1e-12)


def twice() -> nn.Module:
    layer = LSTM(2, 3)
    return lmu.Bidirectional(layer, layer)


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "one layer twice": (lambda: twice(), "one object"),
    "a state of one layer": (
        lambda: lmu.Bidirectional(LSTM(2, 3), LSTM(2, 3))(torch.zeros(5, 2), torch.zeros(6)),
        r"`initial_state` has shape \(6,\): expected 12 numbers",
    ),
    "lengths": (
        lambda: lmu.Bidirectional(LSTM(2, 3), LSTM(2, 3))(torch.zeros(4, 5, 2), None, [1, 2]),
        r"`lengths` has shape \(2,\): expected \(4,\)",
    ),
    "two sizes": (lambda: lmu.Bidirectional(LSTM(2, 3), LSTM(3, 3)), "expected the same"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_refused(case: str) -> None:
    call, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        call()
