"""Layers of `linrec.nn`, against their papers' equations and torch's layers, in both forms."""

import copy
import itertools
import os
import pickle
from collections.abc import Callable, Mapping

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.func import functional_call

import linrec
from linrec import nn
from linrec.testing import check_module
from linrec.testing.forms import movement, sensitivity, size_of
from tests.linrec.layers import LAYERS

Outputs = Callable[[Mapping[str, Tensor], Tensor], Tensor]


def layer_of(name: str) -> nn.RecurrentLayer:
    torch.manual_seed(0)
    return LAYERS[name][0]()


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.sampled(2)
def test_all_steps_are_single_steps(name: str) -> None:
    check_module(layer_of(name), examples=3)


def values_and_gradients(outputs: Outputs, own: Mapping[str, Tensor], inputs: Tensor):
    """What a layer gives, and the gradients of a drawn sum of it."""
    leaves = {key: tensor.detach().requires_grad_() for key, tensor in own.items()}
    inputs = inputs.detach().requires_grad_()
    y = outputs(leaves, inputs)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    return [y.detach(), *torch.autograd.grad((weights * y).sum(), [inputs, *leaves.values()])]


@pytest.mark.parametrize("steps", [1, 40])
@pytest.mark.parametrize("name", LAYERS)
def test_values_and_gradients_are_those_of_the_papers_equations(name: str, steps: int) -> None:
    """What is allowed is how far rounded parameters and inputs move each number."""
    layer, loop = layer_of(name).double(), LAYERS[name][1]
    own, inputs = dict(layer.named_parameters()), torch.randn(2, steps, layer.input_size).double()

    def mine(own: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        return functional_call(layer, dict(own), (inputs,)).outputs

    limits = movement(lambda own, x: values_and_gradients(mine, own, x), layer, inputs)
    got, wanted = (values_and_gradients(way, own, inputs) for way in (mine, loop))
    for limit, one, other in zip(limits, got, wanted, strict=True):
        assert size_of(one - other) <= limit


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
@pytest.mark.parametrize("name", LAYERS)
def test_any_batch_axes_states_lengths_and_the_last_step(name: str, batch: tuple[int, ...]) -> None:
    layer = layer_of(name).double()
    inputs = torch.randn(*batch, 9, layer.input_size, dtype=torch.float64)
    state = torch.randn(*batch, layer.state_size, dtype=torch.float64)
    lengths = torch.randint(0, 10, batch)
    outputs, end = layer(inputs, state, lengths)
    assert outputs.shape == (*batch, 9, layer.output_size) and end.shape == state.shape
    for place in itertools.product(*map(range, batch)):
        own = int(lengths[place])
        alone = layer(inputs[place][:own], state[place])
        torch.testing.assert_close(outputs[place][:own], alone.outputs)
        assert not outputs[place][own:].any()
        torch.testing.assert_close(end[place], alone.final_state)
    last, end_again = layer.final(inputs, state, lengths)
    torch.testing.assert_close(end_again, end)
    index = (lengths - 1).clamp(min=0)[..., None, None].expand(*batch, 1, layer.output_size)
    torch.testing.assert_close(last, outputs.gather(-2, index).squeeze(-2))


@pytest.mark.parametrize("name", LAYERS)
def test_one_state_for_all_sequences(name: str) -> None:
    layer = layer_of(name).double()
    inputs = torch.randn(2, 3, 5, layer.input_size, dtype=torch.float64)
    for axes in ((), (3,), (2, 1)):
        state = torch.randn(*axes, layer.state_size, dtype=torch.float64)
        each = state.expand(2, 3, -1)
        torch.testing.assert_close(layer(inputs, state), layer(inputs, each))
        torch.testing.assert_close(layer.final(inputs, state), layer.final(inputs, each))
        first = inputs[..., 0, :]
        torch.testing.assert_close(layer.step(first, state), layer.step(first, each))
    with pytest.raises(ValueError, match="initial_state"):
        layer(inputs, state.new_zeros(4, layer.state_size))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["MinGRU", "MinLSTM, no bias"])
@pytest.mark.sampled(2)
def test_long_sequences_are_single_steps(name: str, dtype: torch.dtype) -> None:
    """In 65,536 steps, each from where the one before it ended, errors stay within their bound.

    Of the scan that is (2t + 2)·ε times the states of |a| and |b| (`linrec.linear_scan`), here the
    states themselves, g being positive. A step from the state before, which is off by as much, may
    be off by that and 2 ε more. Half-precision layers keep their states in float32.
    """
    layer = layer_of(name).to(dtype)
    inputs = torch.randn(65_536, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    with torch.no_grad():
        outputs, end = layer(inputs)
        recurrence, drive = layer.recurrence(inputs)
        states = linrec.run(recurrence, drive).outputs
        assert states.dtype == end.dtype == torch.float32
        assert outputs.equal(states.to(dtype)) and end.equal(states[-1])
        gates = recurrence.A.as_diagonal()
        assert gates is not None
        exact, h = [], torch.zeros(4, dtype=torch.float64)
        for a, b in zip(gates.double(), drive.double(), strict=True):
            h = a * h + b
            exact.append(h)
        exact = torch.stack(exact)
        t = torch.arange(65_536, dtype=torch.float64).unsqueeze(-1)
        bound = (2 * t + 2) * torch.finfo(torch.float32).eps * exact
        assert bool(((states - exact).abs() <= bound).all())
        single = layer.step(inputs[1:], states[:-1]).final_state
        assert bool(((single - states[1:]).abs() <= 2 * bound[1:]).all())


@pytest.mark.slow
@pytest.mark.skipif("LINREC_FULL" not in os.environ, reason="slow: run with LINREC_FULL=1")
def test_a_stream_of_65536_steps() -> None:
    layer = layer_of("MinGRU")
    inputs = torch.randn(65_536, 3)
    with torch.no_grad():
        expected, state = layer(inputs)[0], None
        for t, x in enumerate(inputs):
            output, state = layer.step(x, state)
            assert bool(((output - expected[t]).abs() <= (4 * t + 4) * 2**-23 * output).all())


@pytest.mark.slow
@pytest.mark.skipif("LINREC_FULL" not in os.environ, reason="slow: run with LINREC_FULL=1")
@pytest.mark.parametrize("name", LAYERS)
def test_layers_compile_in_one_piece_with_their_gradients(name: str) -> None:
    layer = layer_of(name)
    inputs = torch.randn(2, 20, layer.input_size)
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    mine, theirs = (
        values_and_gradients(lambda _, x, run=run: run(x).outputs, {}, inputs)
        for run in (compiled, layer)
    )
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_min_gru_is_torchs_gru_whose_gates_do_not_look_back() -> None:
    """Of a `torch.nn.GRU` without W_hh: z is of the old state there, and h̃ has a tanh."""
    torch.manual_seed(0)
    gru = torch.nn.GRU(3, 4, batch_first=True).double()
    layer = nn.MinGRU(3, 4, activation=torch.tanh).double()
    with torch.no_grad():
        own = dict(gru.named_parameters())
        own["weight_hh_l0"].zero_()
        own["bias_hh_l0"].zero_()
        _, z, n = own["weight_ih_l0"].chunk(3)
        _, z_bias, n_bias = own["bias_ih_l0"].chunk(3)
        layer.projection.weight.copy_(torch.cat([-z, n]))
        layer.projection.bias.copy_(torch.cat([-z_bias, n_bias]))
    inputs = torch.randn(2, 30, 3, dtype=torch.float64)
    start = torch.randn(2, 4, dtype=torch.float64)
    theirs, end = gru(inputs, start.unsqueeze(0))
    mine = layer(inputs, start)
    limit = sensitivity(layer, inputs)
    assert size_of(mine.outputs - theirs) <= limit
    assert size_of(mine.final_state - end.squeeze(0)) <= limit


def test_gates_of_the_min_lstm_that_no_quotient_can_be_made_of() -> None:
    """f and i both underflow: f / (f + i) is 0 / 0, and f' is what it is."""
    layer = nn.MinLSTM(1, 1)
    with torch.no_grad():
        layer.projection.weight.zero_()
        layer.projection.bias.copy_(torch.tensor([-200.0, -200.0, 1.0]))
    outputs, _ = layer(torch.zeros(2, 1), torch.ones(1))
    torch.testing.assert_close(outputs, torch.tensor([[1.25], [1.375]]))


def test_a_deep_stack_is_one_function() -> None:
    torch.manual_seed(0)
    layers = [nn.MinGRU(4, 4), nn.LRU(4, 3), nn.SSD(4, 2, 3)]
    stack = nn.Stack([nn.MinLSTM(2, 4), *nn.residual_blocks(layers, expansion=2, dropout=0.5)])
    assert (len(list(stack)), stack.state_size) == (7, 4 + 4 + 6 + 12)
    # (Each layer by itself is tried on long sequences and on many above.)
    for whole in (stack, nn.Stack([nn.Highway(nn.MinGRU(2, 2))])):
        check_module(whole, steps=st.integers(1, 9), examples=2)
    with pytest.raises(ValueError, match="Layer 0 gives 4 numbers, and layer 1 takes 3"):
        nn.Stack([nn.MinGRU(2, 4), nn.LRU(3)])
    with pytest.raises(ValueError, match="takes 2 numbers and gives 3"):
        nn.residual_blocks([nn.MinGRU(2, 3)])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.MinGRU(3, 0), "`hidden_size` is 0: expected a whole number"),
        (lambda: nn.MinGRU(*[3.0, 2]), "`input_size` is 3.0: expected a whole number"),
        (lambda: nn.LRU(3, r_min=0.5, r_max=0.5), "expected 0 <= r_min < r_max <= 1"),
        (lambda: nn.MinGRU(3, 2)(torch.zeros(2, 5, 4)), "`inputs` has shape .*expected 3 numbers"),
        (lambda: nn.MinGRU(3, 2)(torch.zeros(3)), "For one step call `step`"),
        (lambda: nn.MinGRU(3, 2)(torch.zeros(5, 3), torch.zeros(3)), "`initial_state` has shape"),
        (lambda: nn.MinGRU(3, 2).step(torch.zeros(3), torch.zeros(3)), "`state` has shape"),
        (lambda: nn.MinGRU(3, 2)(torch.zeros(5, 3).double()), r"Pass `inputs.to\(torch.float32\)`"),
        (
            lambda: nn.MinGRU(3, 2)(torch.zeros(2, 5, 3), lengths=torch.tensor([1, 2, 3])),
            "`lengths` has shape .*one number for each sequence",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_works_with_compile_autocast_and_copies() -> None:
    layer, inputs = nn.MinGRU(3, 4), torch.randn(2, 6, 3)
    with torch.autocast("cpu", torch.bfloat16):
        outputs, _ = layer(inputs)
    torch.testing.assert_close(outputs, layer(inputs).outputs, atol=0.02, rtol=0.02)
    again = pickle.loads(pickle.dumps(layer))
    assert again(inputs).outputs.equal(layer(inputs).outputs)
    assert copy.deepcopy(layer).step(inputs[:, 0]).outputs.shape == (2, 4)


CONSTANT = {
    "EMA": lambda: linrec.nn.EMA(3),
    "LRU": lambda: linrec.nn.LRU(3, 4),
    "S4D": lambda: linrec.nn.S4D(3, states=4),
    "LinOSS": lambda: linrec.nn.LinOSS(3, 4),
}


@pytest.mark.parametrize("name", CONSTANT)
def test_plans_are_kept_while_a_layer_is_evaluated(name: str) -> None:
    layer, inputs = CONSTANT[name](), torch.randn(2, 40, 3)
    with torch.no_grad():
        first = layer(inputs).outputs
        kept = list(layer.plans.plans.values())
        assert torch.equal(layer(inputs).outputs, first)
        assert kept and list(layer.plans.plans.values()) == kept
        for parameter in layer.parameters():
            parameter.data.mul_(0.5)
        changed = layer(inputs).outputs
        layer.executor = linrec.Recurrent()
        torch.testing.assert_close(changed, layer(inputs).outputs, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(changed, first)
    layer(inputs).outputs.sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())


def test_large_plans_of_layers_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("linrec.nn.recurrent.LARGEST_KERNEL", 3 * 40 - 1)
    layer = linrec.nn.S4D(3, states=4)
    with torch.no_grad():
        layer(torch.randn(2, 40, 3))
        assert not layer.plans.plans
        layer(torch.randn(2, 39, 3))
        assert layer.plans.plans
