"""Modules run segment by segment between resets: each segment is its own sequence."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import linrec
import lmu
from linrec.nn.packed import TakesPacked
from linrec.testing import Disagreement, check_case, check_module
from lmu.experiments.lost_samples import Timed
from lmu.experiments.spoken_digits import MeanOfSteps
from lmu.layers import GRU, LSTM, Layer

INPUTS, STEPS = 3, 17
LENGTHS = (STEPS, 9, 0, 12)
STARTS = ((0, 4, 5), (8, 13), (1,), ())  # of each row; some are in the padding


def recurrence() -> nn.Module:
    system = linrec.LinearRecurrence(0.2 * torch.randn(4, 4), torch.randn(4, INPUTS))
    return linrec.nn.Recurrence(system)


def sampled() -> nn.Module:
    A, B = torch.randn(4, 4) - 2 * torch.eye(4), torch.randn(4, INPUTS)
    return linrec.nn.SampledSystem(linrec.StateSpace(A, B), dt=0.1)


class OfPositiveSteps(Layer):
    """A layer whose last input is a length of time: whatever is drawn, it is not below 0.1."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer, self.input_size = layer, layer.input_size
        self.output_size, self.state_size = layer.output_size, layer.state_size

    def forward(self, inputs: Tensor, *others: Any, **named: Any) -> linrec.Result:
        return self.layer(of_positive_steps(inputs), *others, **named)

    def final(self, inputs: Tensor, *others: Any, **named: Any) -> linrec.Result:
        return self.layer.final(of_positive_steps(inputs), *others, **named)

    def step(self, input: Tensor, state: Tensor | None = None) -> linrec.Result:
        return self.layer.step(of_positive_steps(input), state)


def of_positive_steps(inputs: Tensor) -> Tensor:
    return torch.cat([inputs[..., :-1], inputs[..., -1:].abs() + 0.1], -1)


MODULES: dict[str, Callable[[], nn.Module]] = {
    "recurrence": recurrence,
    "sampled": sampled,
    "memory": lambda: lmu.LegendreMemory(INPUTS, 4, 9.0),
    "parallel": lambda: lmu.ParallelLMU(INPUTS, 6, 2, 4, 9.0),
    "unit": lambda: lmu.LMU.original(INPUTS, 5, 4, 9.0),
    "lstm": lambda: LSTM(INPUTS, 4, depth=2),
    "gru": lambda: GRU(INPUTS, 4, depth=2),
    "gates": lambda: linrec.nn.MinGRU(INPUTS, 4),
    "gates of two steps": lambda: linrec.nn.TokenShift(linrec.nn.MinGRU(INPUTS, 4)),
    "convolution": lambda: lmu.layers.CausalConvolution(INPUTS, 5, 3),
    "no convolution": lambda: lmu.layers.CausalConvolution(INPUTS, 5, 1),
    "mix": lambda: lmu.layers.ScalarMix(lmu.layers.window_blocks(INPUTS, 1)),
    "lmuformer": lambda: lmu.LMUFormer(INPUTS, 4, width=6, order=3, theta=9.0),
    "embedding": lambda: lmu.layers.PatchEmbedding(INPUTS, 6),
    "encoder": lambda: lmu.layers.Encoder(INPUTS, 4),
    "mean": lambda: MeanOfSteps(INPUTS),
    "timed": lambda: OfPositiveSteps(Timed(lmu.ParallelLMU(INPUTS - 1, 6, 2, 4, 9.0))),
    "evenly timed": lambda: Timed(lmu.ParallelLMU(INPUTS - 1, 6, 2, 4, 9.0), ignored=True),
}


def made(name: str) -> Any:
    torch.manual_seed(0)
    return MODULES[name]().double().eval()


def marks(starts: tuple[tuple[int, ...], ...] = STARTS) -> Tensor:
    resets = torch.zeros(len(starts), STEPS, dtype=torch.bool)
    for row, places in enumerate(starts):
        resets[row, list(places)] = True
    return resets


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", MODULES)
def test_each_segment_is_a_sequence(name: str) -> None:
    """With lengths and an initial state, each row cut by hand."""
    module, x = made(name), drawn(4, STEPS, INPUTS)
    whole = module(x)
    start = drawn(4, whole.final_state.shape[-1], seed=2)
    outputs, end = module(x, start, torch.tensor(LENGTHS), resets=marks())
    last = module.final(x, start, torch.tensor(LENGTHS), resets=marks())
    for row, (length, starts) in enumerate(zip(LENGTHS, STARTS, strict=True)):
        cuts = sorted({0, *(place for place in starts if place < length), length})
        state = None if 0 in starts and length else start[row]
        for first, stop in pairwise(cuts):
            alone, state = module(x[row, first:stop], state)
            close(outputs[row, first:stop], alone)
            ended, state = state, None
        ended = start[row] if length == 0 else ended
        close(end[row], ended)
        assert not outputs[row, length:].any()
    close(last.final_state, end)
    rows = [row for row, length in enumerate(LENGTHS) if length]
    close(last.outputs[rows], torch.stack([outputs[row, LENGTHS[row] - 1] for row in rows]))
    assert not last.outputs[2].any()


@pytest.mark.parametrize("name", MODULES)
def test_no_gradient_crosses_a_reset(name: str) -> None:
    module, x = made(name), drawn(1, STEPS, INPUTS).requires_grad_()
    start = drawn(1, module(x).final_state.shape[-1], seed=2).requires_grad_()
    outputs = module(x, start, resets=marks(((9,),))).outputs
    to_inputs, to_state = torch.autograd.grad(
        outputs[:, 9:].square().sum(), [x, start], materialize_grads=True
    )
    assert not to_inputs[:, :9].any() and to_inputs[:, 9:].any() and not to_state.any()


def test_every_layer_takes_resets() -> None:
    """Of all classes of both packages that run sequences, those of experiments too."""
    for package in (linrec, lmu):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.startswith(("linrec.nn", "lmu.layers", "lmu.memory", "lmu.experiments")):
                importlib.import_module(module.name)
    found = {linrec.nn.Recurrence, linrec.nn.SampledSystem, *below(Layer)}
    assert len(found) > 40
    for kind in found:
        if kind.__module__.startswith(("linrec", "lmu")):
            assert "resets" in inspect.signature(kind.forward).parameters, kind
            assert "resets" in inspect.signature(kind.final).parameters, kind
            assert issubclass(kind, TakesPacked), kind
    assert "resets" in inspect.signature(lmu.Bidirectional.forward).parameters


def below(kind: type) -> set[Any]:
    return {found for own in kind.__subclasses__() for found in (own, *below(own))}


@pytest.mark.parametrize("name", MODULES)
def test_no_steps_have_no_resets(name: str) -> None:
    module, none = made(name), torch.zeros(2, 0, dtype=torch.bool)
    state = drawn(2, module.state_size)
    outputs, end = module(drawn(2, 0, INPUTS), state, resets=none)
    assert outputs.shape[:2] == (2, 0) and torch.equal(end.double(), state)
    _, end = module(drawn(2, 0, INPUTS), state[0])  # one state for both
    assert torch.equal(end.double(), state[:1].expand(2, -1))


@pytest.mark.parametrize("name", ["memory", "parallel", "sampled"])
def test_steps_of_unequal_length_start_anew_too(name: str) -> None:
    module, x = made(name), drawn(2, STEPS, INPUTS)
    dt = 0.5 + drawn(2, STEPS, seed=3).square()
    outputs = module(x, dt=dt, resets=marks(((6,), (6,)))).outputs
    close(outputs[:, 6:], module(x[:, 6:], dt=dt[:, 6:]).outputs)


@pytest.mark.parametrize(
    "name",
    ["recurrence", "parallel", "lstm", "gru", "convolution", "mix", "lmuformer", "mean", "timed"],
)
@pytest.mark.sampled(2)
def test_the_kit_finds_nothing(name: str) -> None:
    torch.manual_seed(0)
    report = check_module(MODULES[name](), INPUTS, examples=3)
    assert sum(count for (name, _), count in report.comparisons.items() if name == "resets")


def faded(A: linrec.Structure, resets: Tensor) -> linrec.Structure:
    kept = torch.where(resets, 1e-9, 1.0)
    return A.map(lambda leaf, core: leaf * kept[(..., *[None] * core)])


def test_the_kit_finds_a_reset_that_keeps_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    decay = linrec.LinearRecurrence(linrec.Diagonal(torch.tensor([0.9, 0.5]).double()))
    inputs = drawn(1, 6, 2)
    assert check_case(decay, inputs, executor=linrec.Recurrent(), property="resets") == 0
    monkeypatch.setattr("linrec.resets.zero_where", faded)
    with pytest.raises(Disagreement, match="outputs after a reset"):
        check_case(decay, inputs, executor=linrec.Recurrent(), property="resets")


@pytest.mark.parametrize("name", MODULES)
def test_both_ways_with_states_lengths_and_resets(name: str) -> None:
    """Each segment of each row is read from both of its own ends."""
    if not isinstance(made(name), Layer):
        pytest.skip("is no layer")
    layers = made(name), made("gru")
    both = lmu.Bidirectional(*layers)
    x, start = drawn(4, STEPS, INPUTS), drawn(4, both.state_size, seed=2)
    size = both.forward_layer.state_size
    outputs, end = both(x, start, torch.tensor(LENGTHS), marks())
    for row, (length, starts) in enumerate(zip(LENGTHS, STARTS, strict=True)):
        cuts = sorted({0, *(place for place in starts if place < length), length})
        pairs = list(pairwise(cuts))
        for place, (first, stop) in enumerate(pairs):
            mine = x[row, first:stop]
            given = start[row] if place == 0 and 0 not in starts else torch.zeros(both.state_size)
            onwards, forth = layers[0](mine, given[:size].double())
            given = start[row] if place == len(pairs) - 1 else torch.zeros(both.state_size)
            turned, back = layers[1](mine.flip(0), given[size:].double())
            close(outputs[row, first:stop], torch.cat([onwards, turned.flip(0)], -1))
            if place == 0:
                close(end[row, size:], back)
            if place == len(pairs) - 1:
                close(end[row, :size], forth)
