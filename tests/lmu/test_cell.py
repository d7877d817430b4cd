"""The unit of 2019: its equations, its forms and its options."""

# Wrong arguments are passed on purpose, and what is known to be there is used as such.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOptionalMemberAccess=false
# pyright: reportIndexIssue=false

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from torch import Tensor, nn

import lmu
from lmu.hidden_module import ModuleCall, NoModule, PlainRNN

INPUTS, CHANNELS, ORDER, THETA, UNITS, STEPS = 3, 2, 4, 20.0, 5, 17
MEMORY = CHANNELS * ORDER

HIDDEN: dict[str, Callable[[int], nn.Module | None]] = {
    "none": lambda seen: None,
    "feed-forward": lambda seen: nn.Sequential(nn.Linear(seen, UNITS), nn.Tanh()),
    "rnn": lambda seen: nn.RNNCell(seen, UNITS, bias=False),
    "relu": lambda seen: nn.RNNCell(seen, UNITS, nonlinearity="relu"),
    "gru": lambda seen: nn.GRUCell(seen, UNITS),
    "lstm": lambda seen: nn.LSTMCell(seen, UNITS),
}
CONNECTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "input": {"input_to_hidden": True},
    "memory": {"memory_to_memory": True},
    "hidden": {"hidden_to_memory": True},
    "all": {"hidden_to_memory": True, "memory_to_memory": True, "input_to_hidden": True},
    "euler, bias": {"method": "euler", "bias": True},
    "trained window": {"trainable_theta": True, "memory_to_memory": True},
}
CASES = [
    (hidden, connections)
    for hidden in HIDDEN
    for connections in CONNECTIONS
    if hidden != "none" or connections not in ("hidden", "all")
]
EPS = torch.finfo(torch.float64).eps


def unit(hidden: str, connections: str, kind: type[Any] = lmu.LMU, **options: Any) -> Any:
    """Make a unit whose weights are small enough for its feedback to die out."""
    torch.manual_seed(0)
    chosen = {**CONNECTIONS[connections], **options}
    seen = MEMORY + INPUTS * chosen.get("input_to_hidden", False)
    torch.set_default_dtype(torch.float64)  # so that A and B are never rounded to float32
    try:
        made = kind(INPUTS, CHANNELS, ORDER, THETA, HIDDEN[hidden](seen), **chosen)
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "log_theta" not in name:
                parameter.normal_(0, 0.1)
    return made


def inputs(*batch: int, steps: int = STEPS) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*batch, steps, INPUTS, generator=generator, dtype=torch.float64)


def state_of(made: Any, *batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(*batch, made.state_size, generator=generator, dtype=torch.float64)


def tolerance(made: Any, steps: int = STEPS) -> float:
    """A bound for the rounding of a loop whose errors are carried on by A and by nothing more.

    Each of the T steps sums fewer than `width` products, all of a size below `scale`; Ā is not
    normal, and increases an error by `growth` at most before it dies out.
    """
    A = made.memory.recurrence.A.to_dense().detach()
    powers = [torch.linalg.matrix_power(A, k).norm(2) for k in range(steps + 1)]
    growth, width, scale = float(max(powers)), MEMORY + UNITS + INPUTS, 10.0
    return 2 * steps * width * scale * growth * EPS


def close(one: Tensor, other: Tensor, limit: float) -> bool:
    return one.shape == other.shape and bool(((one - other).abs() <= limit).all())


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def equations(made: lmu.LMU, x: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The unit written from its equations, for one sequence `(time, inputs)`, in numpy alone."""
    w = {name: p.detach().numpy() for name, p in made.named_parameters()}
    i = np.arange(ORDER)[:, None]
    j = np.arange(ORDER)[None, :]
    A = (2 * i + 1) * np.where(i < j, -1.0, (-1.0) ** (i - j + 1)) / THETA
    B = (2 * i + 1) * (-1.0) ** i / THETA
    if made.memory.method == "euler":
        A_bar, B_bar = np.eye(ORDER) + A, B
    else:
        A_bar = expm(A)
        B_bar = np.linalg.solve(A, (A_bar - np.eye(ORDER)) @ B)
    m, rest = state[:MEMORY].reshape(CHANNELS, ORDER), state[MEMORY:]
    h, c = rest[:UNITS], rest[UNITS:]
    outputs = []
    for x_t in x:
        u = w["input_to_memory.weight"] @ x_t + w.get("input_to_memory.bias", 0)
        if "hidden_to_memory.weight" in w:
            u = u + w["hidden_to_memory.weight"] @ h
        if "memory_to_memory.weight" in w:
            u = u + w["memory_to_memory.weight"] @ m.flatten()
        m = m @ A_bar.T + u[:, None] @ B_bar.T
        seen = np.concatenate([m.flatten(), x_t]) if made.input_to_hidden else m.flatten()
        h, c = hidden_step(made.hidden, w, seen, h, c)
        outputs.append(h)
    kept = [
        m.flatten(),
        h if made.hidden_states else h[:0],
        c if made.hidden_states == 2 else h[:0],
    ]
    return np.array(outputs), np.concatenate(kept)


def hidden_step(
    hidden: nn.Module | None,
    w: dict[str, np.ndarray],
    seen: np.ndarray,
    h: np.ndarray,
    c: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    if hidden is None:
        return seen, c
    if isinstance(hidden, nn.Sequential):
        return np.tanh(w["hidden.0.weight"] @ seen + w["hidden.0.bias"]), c
    below = w["hidden.weight_ih"] @ seen + w.get("hidden.bias_ih", 0)
    before = w["hidden.weight_hh"] @ h + w.get("hidden.bias_hh", 0)
    if isinstance(hidden, nn.RNNCell):
        f = np.tanh if hidden.nonlinearity == "tanh" else lambda z: np.maximum(z, 0)
        return f(below + before), c
    if isinstance(hidden, nn.GRUCell):
        (r, z, n), (r_h, z_h, n_h) = np.split(below, 3), np.split(before, 3)
        update = sigmoid(z + z_h)
        return (1 - update) * np.tanh(n + sigmoid(r + r_h) * n_h) + update * h, c
    i, f, g, o = np.split(below + before, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


@pytest.mark.parametrize(("hidden", "connections"), CASES)
def test_equations(hidden: str, connections: str) -> None:
    made, x = unit(hidden, connections), inputs()
    state = state_of(made)
    outputs, final_state = made(x, state)
    expected, expected_state = equations(made, x.numpy(), state.numpy())
    limit = tolerance(made)
    assert close(outputs.detach(), torch.from_numpy(expected), limit)
    assert close(final_state.detach(), torch.from_numpy(expected_state), limit)


@pytest.mark.parametrize(("hidden", "connections"), CASES)
def test_a_step_is_a_sequence_of_one_and_the_sequence_is_its_steps(
    hidden: str, connections: str
) -> None:
    made = unit(hidden, connections)
    cell = unit(hidden, connections, lmu.LMUCell)
    cell.load_state_dict(made.state_dict())
    x, limit = inputs(2, 3), tolerance(made)
    for start in (None, state_of(made, 2, 3)):
        outputs, final_state = made(x, start)
        running = start
        for step in range(STEPS):
            by_cell = cell(x[..., step, :], running)
            output, running = made.step(x[..., step, :], running)
            assert torch.equal(by_cell.outputs, output)
            assert close(output, outputs[..., step, :], limit)
        assert close(running, final_state, limit)
        last = made.final(x, start)
        assert close(last.outputs, outputs[..., -1, :], limit)
        assert close(last.final_state, final_state, limit)


@pytest.mark.parametrize(("hidden", "connections"), CASES)
def test_padded_sequences(hidden: str, connections: str) -> None:
    made, x = unit(hidden, connections), inputs(4)
    limit, start = tolerance(made), state_of(made, 4)
    lengths = torch.tensor([STEPS, 6, 0, 1])
    past = torch.arange(STEPS) >= lengths[:, None]
    spoiled = torch.where(past[..., None], float("nan"), x).requires_grad_()
    outputs, final_state = made(spoiled, start, lengths)
    last = made.final(spoiled, start, lengths)
    assert not outputs[past].any()
    for row, length in enumerate(lengths.tolist()):
        alone = made(x[row, :length], start[row])
        assert close(outputs[row, :length], alone.outputs, limit)
        assert close(final_state[row], alone.final_state, limit)
        assert close(last.final_state[row], alone.final_state, limit)
        expected = alone.outputs[-1] if length else torch.zeros(made.output_size).double()
        assert close(last.outputs[row], expected, limit)
    total = outputs.square().sum() + final_state.square().sum() + last.outputs.square().sum()
    gradients = torch.autograd.grad(total, [spoiled, *made.parameters()])
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert not gradients[0][past].any()


@pytest.mark.parametrize(("hidden", "connections"), CASES)
def test_gradients(hidden: str, connections: str) -> None:
    """Of inputs, initial state and all weights, against differences."""
    made, x = unit(hidden, connections), inputs(2, steps=4)
    names = [name for name, _ in made.named_parameters()]
    values = [x, state_of(made, 2), *(p.detach() for p in made.parameters())]

    def call(x: Tensor, state: Tensor, *weights: Tensor) -> Tensor:
        given = dict(zip(names, weights, strict=True))
        outputs, end = torch.func.functional_call(made, given, (x, state))
        return outputs.sum() + end.square().sum()

    leaves = [value.clone().requires_grad_() for value in values]
    assert torch.autograd.gradcheck(call, leaves, fast_mode=True)


PARALLEL = {  # memory, hidden module
    ("none", "none"): (True, True),
    ("none", "memory"): (True, True),
    ("none", "trained window"): (True, True),
    ("feed-forward", "none"): (True, True),
    ("feed-forward", "input"): (True, True),
    ("feed-forward", "memory"): (True, True),
    ("feed-forward", "hidden"): (False, False),
    ("feed-forward", "all"): (False, False),
    ("rnn", "none"): (True, False),
    ("gru", "memory"): (True, False),
    ("lstm", "hidden"): (False, False),
    ("lstm", "all"): (False, False),
}


@pytest.mark.parametrize("case", PARALLEL, ids="-".join)
def test_it_says_what_is_parallel_and_is(
    case: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = unit(*case)
    memory, hidden = PARALLEL[case]
    form = made.explain(STEPS, (2,))
    assert (form.memory_reason is None, form.hidden_reason is None) == (memory, hidden)
    assert form.parallel == (memory and hidden)
    assert (form.executors is not None) == memory
    said = str(form)
    assert said.startswith("memory: in parallel" if memory else "memory: step by step, since hid")
    assert ("hidden: in parallel" in said) == hidden

    stepped: list[str] = []

    def counted(owner: Any, name: str) -> None:
        real = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a: (stepped.append(name), real(*a))[1])

    counted(made, "next_memory")
    for kind in (NoModule, PlainRNN, ModuleCall):
        counted(kind, "step")
    made(inputs(2))
    assert stepped.count("next_memory") == (0 if memory else STEPS)
    assert stepped.count("step") == (1 if hidden else STEPS)


def test_the_last_step_alone_does_not_compute_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    made = unit("feed-forward", "input")
    expected = made(inputs(2)).outputs[:, -1]
    monkeypatch.setattr(made.memory.plans, "run", None)
    assert close(made.final(inputs(2)).outputs, expected, tolerance(made))


@pytest.mark.parametrize(("hidden", "connections"), CASES)
def test_no_steps_no_sequences(hidden: str, connections: str) -> None:
    made = unit(hidden, connections)
    start = state_of(made, 2)
    for form in (made, made.final):
        outputs, state = form(inputs(2, steps=0), start)
        assert torch.equal(state, start) and not outputs.any()
    assert made(inputs(2, steps=0)).outputs.shape == (2, 0, made.output_size)
    assert made(inputs(0)).outputs.shape == (0, STEPS, made.output_size)
    assert made(inputs()).outputs.shape == (STEPS, made.output_size)


def test_one_state_serves_a_batch() -> None:
    made, x = unit("lstm", "all"), inputs(3)
    start = state_of(made)
    assert torch.equal(made(x, start).outputs, made(x, start.expand(3, -1)).outputs)


@pytest.mark.parametrize("connections", ["none", "memory", "all"])
def test_dropout_is_one_draw_for_a_sequence_and_only_in_training(connections: str) -> None:
    made = unit("rnn", connections, input_dropout=0.5, recurrent_dropout=0.5)
    whole = unit("rnn", connections)
    x = inputs(1).expand(200, -1, -1)
    assert torch.equal(made.eval()(x).outputs, whole.eval()(x).outputs)
    torch.manual_seed(0)
    outputs = made.train()(x).outputs
    # All steps drop the same entries: 2³ outcomes of the input alone, and the same at each step.
    distinct = len(torch.unique(outputs[:, 0].round(decimals=9), dim=0))
    assert distinct == 2**INPUTS
    if connections == "none":
        assert len(torch.unique(outputs[:, -1].round(decimals=9), dim=0)) == 2**INPUTS
    else:
        assert len(torch.unique(outputs[:, -1].round(decimals=9), dim=0)) > 2**INPUTS
    reason = made.explain(STEPS).memory_reason
    assert ("recurrent_dropout" in (reason or "")) == (connections == "memory")


def test_dropout_keeps_the_mean() -> None:
    """E[u] with dropout is u without: the memory is linear in it."""
    made = unit("none", "none", input_dropout=0.5)
    x = inputs(1, steps=1)
    expected = made.eval()(x).outputs
    draws = made.train()(x.expand(20_000, -1, -1)).outputs
    spread = draws.std(0) / math.sqrt(len(draws))
    assert bool(((draws.mean(0) - expected[0]).abs() <= 5 * spread + EPS).all())


def test_a_trained_window_gets_a_gradient_in_every_form() -> None:
    for hidden, connections in (("none", "none"), ("rnn", "all")):
        made = unit(hidden, connections, trainable_theta=True)
        made(inputs(2)).outputs.square().sum().backward()
        assert made.memory.log_theta.grad.abs() > 0


@pytest.mark.parametrize("connections", ["input", "all"])
def test_compiles_and_maps(connections: str) -> None:
    torch._dynamo.reset()
    made, x = unit("feed-forward", connections), inputs(3, steps=5)
    compiled = torch.compile(made, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x).outputs, made(x).outputs)
    mapped = torch.vmap(lambda row: made(row).outputs)(x)
    torch.testing.assert_close(mapped, made(x).outputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("hidden", "connections"), [("none", "none"), ("lstm", "all")])
def test_narrow_dtypes_go_on_from_their_own_states(
    hidden: str, connections: str, dtype: torch.dtype
) -> None:
    made, x = unit(hidden, connections).to(dtype), inputs(2).to(dtype)
    _, state = made(x[:, :8])
    outputs, _ = made(x[:, 8:], state)
    whole = unit(hidden, connections)(inputs(2)).outputs
    assert outputs.dtype == dtype
    limit = tolerance(unit(hidden, connections)) / EPS * torch.finfo(dtype).eps
    assert float((outputs.double() - whole[:, 8:]).detach().abs().max()) <= limit


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "no hidden module to tell of": (
        lambda: lmu.LMU(1, 1, 4, 9.0, hidden_to_memory=True),
        "`hidden_to_memory` is True, but `hidden` is None",
    ),
    "cell of another size": (
        lambda: lmu.LMU(1, 1, 4, 9.0, nn.RNNCell(3, 2)),
        "`hidden` does not take 4 numbers",
    ),
    "layer of another size": (
        lambda: lmu.LMU(1, 1, 4, 9.0, nn.Linear(3, 2)),
        "`hidden` does not take 4 numbers",
    ),
    "channels without projection": (
        lambda: lmu.LMU(2, 1, 4, 9.0, input_projection=False),
        "without a projection",
    ),
    "inputs": (lambda: lmu.LMU(2, 1, 4, 9.0)(torch.zeros(5, 3)), "expected 2 numbers"),
    "no time": (lambda: lmu.LMU(2, 1, 4, 9.0)(torch.zeros(2)), "For one step call `step`"),
    "state": (
        lambda: lmu.LMU(2, 1, 4, 9.0)(torch.zeros(5, 2), torch.zeros(3)),
        "expected 4 numbers",
    ),
    "share": (lambda: lmu.LMU(2, 1, 4, 9.0, input_dropout=1.0), "`input_dropout` is 1.0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_refused(case: str) -> None:
    call, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_eulers_method_warns_once_for_the_unit_too() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lmu.LMU(1, 1, 10, 20.0, method="euler")
    assert ["theta > 40" in str(warning.message) for warning in caught] == [True]
