"""Every layer keeps the one interface: all steps, the last step, one step; states and lengths."""

# Wrong arguments are passed on purpose.
# pyright: reportArgumentType=false

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import lmu
from linrec.nn import MinGRU
from lmu.layers import (
    LSTM,
    FeedForward,
    Gated,
    Highway,
    Layer,
    Residual,
    ScalarMix,
    Stack,
    TokenShift,
    memory_blocks,
    window_blocks,
)

WIDTH, STEPS = 6, 23

LAYERS: dict[str, Callable[[], Layer]] = {
    "parallel": lambda: lmu.ParallelLMU(WIDTH, 5, 2, 4, 9.0),
    "unit": lambda: lmu.LMU.original(WIDTH, 5, 4, 9.0),
    "memory": lambda: lmu.LMU(WIDTH, WIDTH, 2, 9.0, input_projection=False),
    "lstm": lambda: LSTM(WIDTH, 5),
    "deep lstm": lambda: LSTM(WIDTH, 5, depth=3),
    "feed-forward": lambda: FeedForward(WIDTH, 9),
    "residual": lambda: Residual(lmu.ParallelLMU(WIDTH, WIDTH, 2, 4, 9.0)),
    "residual lstm": lambda: Residual(LSTM(WIDTH, WIDTH)),
    "highway": lambda: Highway(lmu.ParallelLMU(WIDTH, WIDTH, 2, 4, 9.0)),
    "gated": lambda: Gated(MinGRU(WIDTH, 9)),
    "gated memory": lambda: Residual(Gated(lmu.ParallelLMU(WIDTH, 9, 2, 4, 9.0))),
    "token shift": lambda: TokenShift(MinGRU(WIDTH, 9)),
    "token shift of a stack": lambda: TokenShift(Stack([LSTM(WIDTH, 3), FeedForward(3, 9)])),
    "gated token shift": lambda: Residual(Gated(TokenShift(MinGRU(WIDTH, 9)))),
    "highway feed-forward": lambda: Highway(FeedForward(WIDTH, 9)),
    "stack": lambda: Stack([LSTM(WIDTH, 3), lmu.ParallelLMU(3, 4, 1, 4, 9.0), LSTM(4, 2)]),
    "blocks": lambda: window_blocks(WIDTH, 2),
    "memory blocks": lambda: memory_blocks(WIDTH, [5.0, 9.0], channels=2),
    "gated blocks": lambda: memory_blocks(WIDTH, [5.0, 9.0], channels=2, gated=True),
    "gated blocks, in place": lambda: memory_blocks(
        WIDTH, [5.0], channels=2, activation=nn.ReLU(inplace=True), gated=True
    ),
    "residual blocks": lambda: window_blocks(WIDTH, 2, expansion=0, block=Residual),
    "deep": lambda: ScalarMix(window_blocks(WIDTH, 2)),
}


def layer(name: str) -> Layer:
    """Make a layer of weights that are neither zero nor one anywhere."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    try:
        made = LAYERS[name]()
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def inputs(*batch: int, steps: int = STEPS) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*batch, steps, WIDTH, generator=generator, dtype=torch.float64)


def state_of(made: Layer, *batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(*batch, made.state_size, generator=generator, dtype=torch.float64)


def assert_close(one: Tensor, other: Tensor) -> None:
    """Two orders of summation of the same few hundred numbers, through at most six layers."""
    torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", LAYERS)
def test_sizes(name: str) -> None:
    made = layer(name)
    for batch in ((), (2,), (2, 3), (0,)):
        for steps in (0, 1, 3):
            x = inputs(*batch, steps=steps)
            outputs, state = made(x)
            assert outputs.shape == (*batch, steps, made.output_size)
            assert state.shape == (*batch, made.state_size)
            assert made.final(x).outputs.shape == (*batch, made.output_size)


@pytest.mark.parametrize("name", LAYERS)
def test_steps_pieces_and_the_whole(name: str) -> None:
    made, x = layer(name), inputs(2, 3)
    for start in (None, state_of(made, 2, 3)):
        outputs, end = made(x, start)
        running = start
        for step in range(STEPS):
            output, running = made.step(x[..., step, :], running)
            assert_close(output, outputs[..., step, :])
        assert running is not None
        assert_close(running, end)
        first, middle = made(x[..., :9, :], start)
        second, last = made(x[..., 9:, :], middle)
        assert_close(torch.cat([first, second], -2), outputs)
        assert_close(last, end)
        final = made.final(x, start)
        assert_close(final.outputs, outputs[..., -1, :])
        assert_close(final.final_state, end)


@pytest.mark.parametrize("name", LAYERS)
def test_padded_sequences(name: str) -> None:
    made, x = layer(name), inputs(4)
    start = state_of(made, 4)
    lengths = torch.tensor([STEPS, 6, 0, 1])
    past = torch.arange(STEPS) >= lengths[:, None]
    spoiled = torch.where(past[..., None], float("nan"), x).requires_grad_()
    outputs, end = made(spoiled, start, lengths)
    final = made.final(spoiled, start, lengths)
    assert not outputs[past].any()
    for row, length in enumerate(lengths.tolist()):
        alone = made(x[row, :length], start[row])
        assert_close(outputs[row, :length], alone.outputs)
        assert_close(end[row], alone.final_state)
        assert_close(final.final_state[row], alone.final_state)
        expected = alone.outputs[-1] if length else torch.zeros(made.output_size).double()
        assert_close(final.outputs[row], expected)
    total = outputs.square().sum() + end.square().sum() + final.outputs.square().sum()
    trained = [parameter for parameter in made.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(total, [spoiled, *trained], materialize_grads=True)
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert not gradients[0][past].any()


@pytest.mark.parametrize("name", LAYERS)
def test_no_later_step_is_seen(name: str) -> None:
    made, x = layer(name), inputs(1).requires_grad_()
    made(x).outputs[:, 7].sum().backward()
    assert x.grad is not None
    assert not x.grad[:, 8:].any() and x.grad[:, 7].any()
    reaches_back = "feed-forward" not in name
    assert bool(x.grad[:, :7].any()) == reaches_back


@pytest.mark.parametrize("name", LAYERS)
def test_the_initial_state_is_differentiable(name: str) -> None:
    made = layer(name)
    if not made.state_size:
        return
    start = state_of(made, 2).requires_grad_()
    made(inputs(2), start).final_state.sum().backward()
    assert start.grad is not None and start.grad.any()


def test_lstm_is_torchs() -> None:
    made = layer("deep lstm")
    assert isinstance(made, LSTM)
    theirs, (h, c) = made.lstm(inputs(3))
    outputs, end = made(inputs(3))
    assert torch.equal(outputs, theirs)
    assert torch.equal(end, torch.cat([*h, *c], -1))
    assert not any(p.any() for n, p in made.lstm.named_parameters() if n.startswith("bias_hh"))


def test_lengths_of_an_lstm_are_those_of_packed_sequences() -> None:
    made = layer("deep lstm")
    assert isinstance(made, LSTM)
    x, lengths = inputs(7), torch.tensor([5, STEPS, 1, 5, 9, 9, 2])
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    theirs, (h, c) = made.lstm(packed)
    outputs, end = made(x, lengths=lengths)
    assert_close(outputs, pad_packed_sequence(theirs, batch_first=True)[0])
    assert_close(end, torch.cat([*h, *c], -1))


def test_residual_and_highway() -> None:
    """y = x + f(norm x) and y = g f(norm x) + (1 - g) x."""
    x = inputs(2)
    for kind in (Residual, Highway):
        made = kind(layer("feed-forward")).double()
        inner = made.layer(made.norm(x)).outputs
        expected = x + inner
        if isinstance(made, Highway):
            gate = torch.sigmoid(made.gate(made.norm(x)))
            expected = gate * inner + (1 - gate) * x
        assert_close(made(x).outputs, expected)


def test_gate_around_a_layer() -> None:
    """y = W (silu(G x + g) ∘ f(x)) + b."""
    made, x = layer("gated"), inputs(2)
    assert isinstance(made, Gated)
    gate = x @ made.gate.weight.T + made.gate.bias
    inner = gate / (1 + torch.exp(-gate)) * made.layer(x).outputs
    assert_close(made(x).outputs, inner @ made.outer.weight.T + made.outer.bias)


def test_token_shift() -> None:
    """y = f(z), z_t = (1 - s) x_t + s x_{t-1}; the state is the last x and that of f."""
    made, x = layer("token shift"), inputs(2)
    assert isinstance(made, TokenShift)
    before = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)
    outputs, end = made.layer((1 - made.share) * x + made.share * before)
    assert_close(made(x).outputs, outputs)
    assert_close(made(x).final_state, torch.cat([x[:, -1], end], -1))


def test_token_shift_of_states_with_other_batch_axes() -> None:
    """A state with fewer or more batch axes than the inputs is broadcast, or refused by name."""
    made, x = layer("token shift"), inputs(2)
    one, more = state_of(made), state_of(made, 5, 2)
    assert_close(made(x, one).outputs, made(x, one.expand(2, -1)).outputs)
    expected = made(x.expand(5, *x.shape), more)
    for form in (made, made.final):
        assert_close(form(x, more).final_state, expected.final_state)
    assert_close(made(x, more).outputs, expected.outputs)
    assert_close(
        made.step(x[:, 0], more).final_state, made.step(x[:, 0].expand(5, -1, -1), more).final_state
    )
    for form, given in ((made, x), (made.final, x), (made.step, x[:, 0])):
        with pytest.raises(ValueError, match="state"):
            form(given, state_of(made, 3))


def test_deep_representation() -> None:
    made = layer("deep")
    assert isinstance(made, ScalarMix)
    x = inputs(2)
    expected, below = torch.zeros_like(x), x
    shares = torch.exp(made.weights) / torch.exp(made.weights).sum()
    for share, upper in zip(shares, [None, *made.stack], strict=True):
        below = below if upper is None else upper(below).outputs
        expected = expected + made.scale * share * below
    assert_close(made(x).outputs, expected)
    assert_close(made.shares.sum(), torch.ones(()).double())


def test_small_windows_forget() -> None:
    """With θ = 10 a block knows next to nothing of 200 steps ago, and something of 5 steps ago."""
    made = window_blocks(WIDTH, 1).double()
    x = inputs(1, steps=201).requires_grad_()
    made(x).outputs[:, -1].sum().backward()
    assert x.grad is not None
    sizes = x.grad[0].norm(dim=-1)
    assert sizes[0] < 1e-8 * sizes[-6]


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "no layers": (lambda: Stack([]), "`layers` is empty"),
    "sizes of layers": (
        lambda: Stack([LSTM(2, 3), LSTM(4, 3)]),
        "Layer 0 gives 3 numbers, and layer 1 takes 4",
    ),
    "no way around": (lambda: Residual(LSTM(2, 3)), "takes 2 numbers and gives 3"),
    "no way around by a gate": (lambda: Highway(LSTM(2, 3)), "takes 2 numbers and gives 3"),
    "different outputs": (
        lambda: ScalarMix(Stack([LSTM(2, 3), LSTM(3, 2)])),
        r"outputs of sizes \[3, 2\] and inputs of 2",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_refused(case: str) -> None:
    call, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", LAYERS)
def test_wrong_lengths_are_refused(name: str) -> None:
    made = layer(name)
    for lengths in ([3, STEPS + 1], [-1, 3]):
        with pytest.raises(ValueError, match=f"expected 0 to {STEPS}"):
            made(inputs(2), lengths=torch.tensor(lengths))
    with pytest.raises(TypeError, match="expected whole numbers"):
        made(inputs(2), lengths=torch.tensor([3.0, 4.0]))
    for form in (made, made.final):
        for lengths in ([3, 4, 5], [[3, 4], [5, 6]]):
            with pytest.raises(ValueError, match=r"`lengths` has shape .*: expected \(2,\)"):
                form(inputs(2), lengths=torch.tensor(lengths))


@pytest.mark.parametrize("name", LAYERS)
def test_wrong_inputs_are_refused(name: str) -> None:
    made, x = layer(name), inputs(2)
    for form, given in ((made, x), (made.final, x), (made.step, x[:, 0])):
        with pytest.raises(ValueError, match=rf"expected {WIDTH} numbers on the last axis"):
            form(given[..., 1:])
        with pytest.raises(TypeError, match=r"`inputs?` has dtype torch.int64: expected .*Pass"):
            form(given.long())
        if list(made.parameters()):  # what has no weights takes any dtype, as `linrec` does
            message = r"`inputs?` has dtype torch.float32: expected torch.float64, that of the"
            with pytest.raises(TypeError, match=message):
                form(given.float())
        if form != made.step:
            with pytest.raises(ValueError, match=r"expected \(\*batch, time, 6\). For one step"):
                form(x[0, 0])


@pytest.mark.parametrize("name", LAYERS)
def test_wrong_states_are_refused(name: str) -> None:
    made, x = layer(name), inputs(2)
    if not made.state_size:
        return
    for form, given in ((made, x), (made.final, x), (made.step, x[:, 0])):
        with pytest.raises(ValueError, match=rf"state` has shape .*expected .*{made.state_size}"):
            form(given, torch.zeros(2, made.state_size + 1).double())


def test_autocast_takes_other_dtypes() -> None:
    made = LAYERS["blocks"]()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = made(inputs(2).bfloat16()).outputs
    assert outputs.isfinite().all()


def test_dropout_only_in_training() -> None:
    for block in (Residual, Highway):
        made = window_blocks(WIDTH, 2, dropout=0.5, block=block)
        x = inputs(2).float()
        assert not torch.equal(made(x).outputs, made(x).outputs)
        made.eval()
        assert torch.equal(made(x).outputs, made(x).outputs)


def test_a_stack_is_a_module() -> None:
    made = layer("stack")
    other = LAYERS["stack"]().double()
    other.load_state_dict(made.state_dict())
    assert torch.equal(other(inputs(2)).outputs, made(inputs(2)).outputs)
    assert isinstance(made, nn.Module) and len(list(made.parameters())) == 4 + 5 + 4
