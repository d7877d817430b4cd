"""The memory and the layer: parallel, last step only, and one step at a time are one function."""

# Wrong arguments are passed on purpose, and matrices known to be there are used as such.
# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false, reportOptionalMemberAccess=false, reportOptionalOperand=false

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import linrec
import lmu
from linrec.testing import error_bound, exact_reference

VARIANTS = {
    "as in the paper": {},
    "no skip": {"input_skip": False},
    "no bias": {"bias": False},
    "no projection": {"input_projection": False},
    "tanh": {"activation": torch.tanh, "input_activation": torch.tanh},
    "euler": {"method": "euler"},
    "trained window": {"trainable_theta": True},
    "by fft": {"executor": linrec.FFTConvolution()},
}


def layer(variant: str) -> lmu.ParallelLMU:
    torch.manual_seed(0)
    made = lmu.ParallelLMU(2, 5, 2, 4, 30.0, **VARIANTS[variant]).double()
    nn.init.normal_(made.memory_to_hidden.weight)
    return made


def inputs(*batch: int, steps: int = 40) -> Tensor:
    return torch.randn(*batch, steps, 2, generator=torch.Generator().manual_seed(1)).double()


def tolerance(made: lmu.ParallelLMU, x: Tensor) -> float:
    """The memory's bound, carried through W_m (the activations do not stretch)."""
    u = made.encode(x).detach()
    bound = error_bound(made.memory.recurrence, u, linrec.FFTConvolution()).outputs.max()
    gain = made.memory_to_hidden.weight.abs().sum(-1).max()
    return float(2 * gain.detach() * bound + 64 * torch.finfo(torch.float64).eps)


@pytest.mark.parametrize("variant", VARIANTS)
def test_three_forms_agree(variant: str) -> None:
    made, x = layer(variant), inputs(3)
    limit = tolerance(made, x)
    start = torch.randn(3, 8, dtype=torch.float64)
    for state in (None, start):
        outputs, final_state = made(x, state)
        last = made.final(x, state)
        assert (last.outputs - outputs[:, -1]).abs().max() <= limit
        assert (last.final_state - final_state).abs().max() <= limit
        running = state
        for step in range(x.shape[1]):
            output, running = made.step(x[:, step], running)
            assert (output - outputs[:, step]).abs().max() <= limit
        assert (running - final_state).abs().max() <= limit


@pytest.mark.parametrize("variant", VARIANTS)
def test_equations(variant: str) -> None:
    """u = f₁(U_x x + b_u), m from the reference, o = f₂(W_m m + W_x x + b_o)."""
    made, x = layer(variant), inputs(2)
    weights = dict(made.named_parameters())
    u = x
    if "encoder.weight" in weights:
        u = x @ weights["encoder.weight"].T + weights.get("encoder.bias", 0)
    u = torch.tanh(u) if variant == "tanh" else u
    m = exact_reference(made.memory.recurrence, u.detach()).outputs
    o = m @ weights["memory_to_hidden.weight"].T + weights.get("memory_to_hidden.bias", 0)
    if "input_to_hidden.weight" in weights:
        o = o + x @ weights["input_to_hidden.weight"].T
    o = torch.tanh(o) if variant == "tanh" else torch.relu(o)
    assert (made(x).outputs - o).abs().max() <= tolerance(made, x)


@pytest.mark.parametrize("variant", VARIANTS)
def test_padded_sequences(variant: str) -> None:
    made, x = layer(variant), inputs(4)
    lengths = torch.tensor([40, 7, 0, 1])
    past = torch.arange(40) >= lengths[:, None]
    spoiled = torch.where(past[..., None], float("nan"), x).requires_grad_()
    outputs, state = made(spoiled, lengths=lengths)
    last = made.final(spoiled, lengths=lengths)
    assert not outputs[past].any()
    limit = tolerance(made, x)
    for row, length in enumerate(lengths.tolist()):
        if length == 0:
            assert not state[row].any() and not last.outputs[row].any()
            continue
        expected = made(x[row, :length])
        assert (outputs[row, :length] - expected.outputs).abs().max() <= limit
        assert (state[row] - expected.final_state).abs().max() <= limit
        assert (last.outputs[row] - expected.outputs[-1]).abs().max() <= limit
    total = outputs.square().sum() + state.square().sum() + last.outputs.square().sum()
    gradients = torch.autograd.grad(total, [spoiled, *made.parameters()])
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert not gradients[0][past].any()


def test_channels_are_remembered_by_themselves_channel_by_channel() -> None:
    memory = lmu.LegendreMemory(3, 4, 20.0).double()
    u = torch.randn(2, 30, 3, dtype=torch.float64)
    both = memory(u).outputs.unflatten(-1, (3, 4))
    single = lmu.LegendreMemory(1, 4, 20.0).double()
    for channel in range(3):
        alone = single(u[..., channel : channel + 1]).outputs
        torch.testing.assert_close(both[..., channel, :], alone, rtol=1e-12, atol=1e-12)


def test_any_batch_axes_and_lengths_of_time() -> None:
    made = layer("as in the paper")
    for batch in ((), (1,), (2, 3), (0,)):
        for steps in (1, 2, 31):
            x = inputs(*batch, steps=steps)
            outputs, state = made(x)
            assert outputs.shape == (*batch, steps, 5) and state.shape == (*batch, 8)
            assert made.final(x).outputs.shape == (*batch, 5)
    assert not made.final(inputs(2, steps=0)).outputs.any()
    assert made(inputs(2, steps=0)).outputs.shape == (2, 0, 5)
    assert made(inputs(2), lengths=[3, 40]).outputs.equal(
        made(inputs(2), lengths=torch.tensor([3, 40])).outputs
    )


def test_a_trained_window_is_trained() -> None:
    memory = lmu.LegendreMemory(1, 6, 20.0, trainable_theta=True)
    target = lmu.LegendreMemory(1, 6, 30.0)
    u = torch.randn(4, 60, 1)
    optimizer = torch.optim.Adam(memory.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        (memory(u).outputs - target(u).outputs).square().mean().backward()
        optimizer.step()
    assert abs(float(torch.as_tensor(memory.theta).detach()) - 30) < 0.5
    assert "theta=" in repr(memory) and "trainable_theta=True" in repr(memory)


def test_a_frozen_window_has_no_parameters_and_a_state_dict() -> None:
    memory = lmu.LegendreMemory(2, 6, 20.0)
    assert not list(memory.parameters())
    other = lmu.LegendreMemory(2, 6, 50.0)
    other.load_state_dict(memory.state_dict())
    u = torch.randn(3, 15, 2)
    assert other(u).outputs.equal(memory(u).outputs)
    assert other.theta == 50.0 and "theta=50" in repr(other)  # of which the state dict has nothing


def held(implicit: float) -> tuple[Tensor, Tensor]:
    """Step (I - αA) m_t = (I + (1-α) A) m_{t-1} + B u_t."""
    A, B, eye = *DELAY, torch.eye(6).double()
    both = torch.cat([eye + (1 - implicit) * A, B], -1)
    stepped = torch.linalg.solve(eye - implicit * A, both)
    return stepped[:, :-1], stepped[:, -1:]


def integral(weight: Callable[[Tensor], Tensor]) -> Tensor:
    """Compute ∫₀¹ exp(A (1-s)) B weight(s) ds by Gauss's rule, exact to the last digits here."""
    points, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(12))
    s, (A, B) = (points + 1) / 2, DELAY
    responses = torch.linalg.matrix_exp(A * (1 - s)[:, None, None]) @ B
    return (responses * (weights * weight(s) / 2)[:, None, None]).sum(0)


DELAY = (
    lmu.delay_system(6, 100.0).A.to_dense(),
    lmu.delay_system(6, 100.0).B,
)
PHI = torch.linalg.matrix_exp(DELAY[0])
SAMPLES: dict[str, tuple[Tensor, Tensor]] = {  # what becomes of a memory, and of a sample
    "zoh": (PHI, integral(torch.ones_like)),
    "euler": held(0.0),
    "bilinear": held(0.5),
    "backward_diff": held(1.0),
    # It has risen in the step before, and falls in its own.
    "foh": (PHI, PHI @ integral(lambda s: s) + integral(lambda s: 1 - s)),
    "impulse": (PHI, PHI @ DELAY[1]),
}


@pytest.mark.parametrize("method", SAMPLES)
def test_the_memory_is_the_state_whatever_the_method(method: str) -> None:
    """As its description has it, and by the equation m_t = Ā m_{t-1} + B̄ u_t alone."""
    memory = lmu.LegendreMemory(1, 6, 100.0, method).double()
    u = torch.randn(20, 1, generator=torch.Generator().manual_seed(1)).double()
    made, (A, B) = memory.recurrence, SAMPLES[method]
    single = 4 * torch.finfo(torch.float32).eps  # buffers are cast to the default dtype
    torch.testing.assert_close(made.A.to_dense(), A, rtol=single, atol=single)
    torch.testing.assert_close(made.B, B, rtol=single, atol=single)
    state, outputs = torch.zeros(6).double(), memory(u).outputs
    for t in range(20):
        state = made.A.to_dense() @ state + made.B @ u[t]
        torch.testing.assert_close(outputs[t], state, rtol=1e-12, atol=1e-12)


def test_parameter_counts_of_the_paper() -> None:
    """psMNIST: 166,092 in all; 165,734 without encoder, skip and the head's bias."""

    def count(**options: bool) -> int:
        made = lmu.ParallelLMU(1, 346, 1, 468, 784.0, **options)
        head = nn.Linear(346, 10)
        return sum(p.numel() for p in [*made.parameters(), *head.parameters()])

    assert count() == 166_092
    assert count(input_skip=False, input_projection=False) == 165_734 + 10  # the head's bias


def test_eulers_method_warns_where_it_is_unstable() -> None:
    with pytest.warns(UserWarning, match="theta > 40 to be stable. Pass method='zoh'"):
        lmu.LegendreMemory(1, 10, 20.0, method="euler")


def test_compiles_and_maps() -> None:
    torch._dynamo.reset()
    made = layer("as in the paper")
    x = inputs(3)
    compiled = torch.compile(made, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x).outputs, made(x).outputs)
    mapped = torch.vmap(lambda row: made(row).outputs)(x)
    torch.testing.assert_close(mapped, made(x).outputs)


def test_dropout_only_in_training() -> None:
    made = lmu.ParallelLMU(2, 5, 2, 4, 30.0, memory_dropout=0.5)
    x = torch.randn(2, 10, 2)
    assert not made(x).outputs.equal(made(x).outputs)
    made.eval()
    assert made(x).outputs.equal(made(x).outputs)
