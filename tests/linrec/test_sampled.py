"""Steps of unequal length: equal ones share an exponential, and modules accept them."""

import copy
import importlib
import math
from typing import Any, cast

import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence

import linrec
import lmu
from linrec.discretization import methods
from linrec.nn import SampledSystem
from linrec.testing import check_module
from lmu.experiments.lost_samples import Timed

module_of_discretize = importlib.import_module("linrec.discretization.discretize")
METHODS = ("zoh", "foh", "bilinear", "euler", "backward_diff", "impulse")
OSCILLATOR = linrec.StateSpace(
    A=torch.tensor([[-0.3, 2.0], [-2.0, -0.3]], dtype=torch.float64),
    B=torch.tensor([[1.0], [0.5]], dtype=torch.float64),
    C=torch.tensor([[1.0, -1.0]], dtype=torch.float64),
)


def drawn_steps(*shape: int, different: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    few = 0.2 + torch.rand(different, dtype=torch.float64, generator=generator)
    return few[torch.randint(different, shape, generator=generator)]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(30,), (3, 30), (2, 1, 30)])
@pytest.mark.parametrize("different", [1, 3])
@pytest.mark.parametrize("diagonal", [False, True])
def test_repeated_steps_are_those_steps(method, shape, different, diagonal, monkeypatch) -> None:
    system = linrec.memories.legendre(6, 10.0).to(torch.float64)
    if diagonal:
        system = linrec.StateSpace(linrec.Diagonal(-torch.arange(1.0, 5.0)), torch.ones(4, 1))
    dt = drawn_steps(*shape, different=different)
    dt[..., -2:] = torch.nan
    got = linrec.discretize(system, dt, method, dt_per="step")
    monkeypatch.setattr(module_of_discretize, "repeated_steps", lambda *_: None)
    expected = linrec.discretize(system, dt, method, dt_per="step")
    assert (got.batch_shape, got.steps) == (expected.batch_shape, expected.steps)
    for name, leaf in expected.leaves().items():
        torch.testing.assert_close(
            got.leaves()[name].expand_as(leaf), leaf, rtol=1e-13, atol=1e-13, equal_nan=True
        )


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 5)])
@pytest.mark.parametrize("method", METHODS)
def test_no_steps(method: str, shape: tuple[int, ...]) -> None:
    dt = torch.zeros(shape, dtype=torch.float64)
    recurrence = linrec.discretize(OSCILLATOR, dt, method, dt_per="step")
    assert recurrence.time_varying and recurrence.A.to_dense().shape == (*shape, 2, 2)
    outputs, last = linrec.run(recurrence, torch.zeros(*shape, 1, dtype=torch.float64))
    assert outputs.shape == (*shape, 1) and last.shape == (*shape[:-1], 2)
    assert SampledSystem(OSCILLATOR, method=method)(outputs, dt=dt).outputs.shape == (*shape, 1)


def test_each_different_step_costs_one_exponential(monkeypatch) -> None:
    """Counted, and the gradient of the system is that of all steps."""
    taken = []
    plain = methods.exponential

    def counted(matrix: Tensor, *rest):
        taken.append(matrix.shape[:-2].numel())
        return plain(matrix, *rest)

    monkeypatch.setattr(methods, "exponential", counted)
    dt = drawn_steps(200, different=4)
    A = OSCILLATOR.A.to_dense().clone().requires_grad_()
    system = linrec.StateSpace(A, OSCILLATOR.B, OSCILLATOR.C)
    weights = torch.randn(200, 2, 2, dtype=torch.float64)
    (linrec.discretize(system, dt, dt_per="step").A.to_dense() * weights).sum().backward()
    assert sum(taken) == 4
    trained = dt.clone().requires_grad_()  # each step has a gradient of its own
    each = torch.autograd.functional.jacobian(
        lambda a: (torch.matrix_exp(a * dt[:, None, None]) * weights).sum(), A.detach()
    )
    torch.testing.assert_close(A.grad, each, rtol=1e-12, atol=1e-12)
    linrec.discretize(system, trained, dt_per="step")
    assert sum(taken) == 204


def test_samples_any_time_apart_are_the_differential_equation() -> None:
    """Against scipy's integrator, holding each sample over its step."""
    dt = drawn_steps(12, different=12).clamp(max=1)
    inputs = torch.randn(12, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    module = SampledSystem(OSCILLATOR)
    got = module(inputs, dt=dt)
    A, B = OSCILLATOR.A.to_dense().numpy(), OSCILLATOR.B.numpy()[:, 0]
    state = [0.0, 0.0]
    for t in range(12):
        solved = solve_ivp(
            lambda _, x, u=float(inputs[t]): A @ x + B * u,
            (0, float(dt[t])),
            state,
            rtol=1e-10,
            atol=1e-12,
            method="DOP853",
        )
        state = solved.y[:, -1]
        assert abs(float(got.outputs[t]) - (state[0] - state[1])) < 1e-8
    torch.testing.assert_close(got.final_state, torch.tensor(state), rtol=0, atol=1e-8)


@pytest.mark.parametrize("shape", [(9,), (3, 9), (2, 3, 9)])
def test_steps_are_all_steps(shape: tuple[int, ...]) -> None:
    """One by one, the last alone, with lengths, and as a module of the kit."""
    module = SampledSystem(OSCILLATOR, dt=0.5)
    dt = drawn_steps(*shape, different=3)
    inputs = torch.randn(*shape, 1, dtype=torch.float64)
    whole, state = module(inputs, dt=dt), None
    for t in range(shape[-1]):
        outputs, state = module.step(inputs[..., t, :], state, dt=dt[..., t])
        torch.testing.assert_close(outputs, whole.outputs[..., t, :], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state, whole.final_state, rtol=1e-12, atol=1e-12)
    last = module.final(inputs, dt=dt)
    torch.testing.assert_close(last.outputs, whole.outputs[..., -1, :], rtol=1e-12, atol=1e-12)
    lengths = torch.full(shape[:-1], 5)
    past = dt.clone()
    past[..., 5:] = torch.nan
    padded = module(inputs, lengths=lengths, dt=past)
    torch.testing.assert_close(padded.outputs[..., :5, :], whole.outputs[..., :5, :])
    assert not padded.outputs[..., 5:, :].any()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("padding", [math.nan, 0.0, -1.0, math.inf, 1e9])
@pytest.mark.parametrize("shared", [False, True])
def test_padding_has_no_steps(method: str, padding: float, shared: bool) -> None:
    """Whatever stands past the end of a sequence, outputs and gradients are those without it."""
    unstable = linrec.StateSpace([[0.8, 0.3], [0.0, -2.0]], torch.ones(2, 1)).to(torch.float64)
    lengths = torch.tensor([4, 0, 2])
    dt = drawn_steps(6, different=4) if shared else drawn_steps(3, 6, different=12)
    ended = torch.arange(6) >= (lengths.amax() if shared else lengths[:, None])
    padded = torch.where(ended, padding, dt).requires_grad_()
    inputs = torch.randn(3, 6, 1, dtype=torch.float64)
    module = SampledSystem(unstable, method=method, trainable=["A", "B"])
    together = module(inputs, lengths=lengths, dt=padded)
    last = module.final(inputs, lengths=lengths, dt=padded)
    (together.outputs.square().sum() + together.final_state.sum()).backward()
    gradients = [each.grad for each in module.parameters()]

    module.zero_grad()
    alone = dt.clone().requires_grad_()
    loss = torch.zeros((), dtype=torch.float64)
    for row, length in enumerate(lengths.tolist()):
        own = alone[:length] if shared else alone[row, :length]
        outputs, state = module(inputs[row, :length], dt=own)
        loss = loss + outputs.square().sum() + state.sum()
        torch.testing.assert_close(together.outputs[row, :length], outputs)
        torch.testing.assert_close(last.final_state[row], state)
    loss.backward()
    torch.testing.assert_close(padded.grad, alone.grad)
    torch.testing.assert_close(gradients, [each.grad for each in module.parameters()])


def test_sequences_without_steps_have_no_gradient() -> None:
    module, none = SampledSystem(OSCILLATOR, trainable=["A"]), torch.tensor([0, 0])
    dt = torch.full((2, 5), torch.nan, dtype=torch.float64, requires_grad=True)
    outputs, state = module(torch.ones(2, 5, 1, dtype=torch.float64), lengths=none, dt=dt)
    (outputs.sum() + state.sum()).backward()
    for each in (dt, *module.parameters()):
        assert each.grad is not None and not each.grad.any()


def test_the_gradient_in_each_step() -> None:
    module = SampledSystem(OSCILLATOR, trainable=["A", "B"])
    dt = drawn_steps(5, different=2).requires_grad_()
    inputs = torch.randn(5, 1, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda each: module(inputs, dt=each).outputs, dt)
    module(inputs, dt=dt).outputs.sum().backward()
    gradients = {name: each.grad for name, each in module.named_parameters()}
    assert gradients.keys() == {"A", "B"}
    assert all(each is not None and each.abs().sum() > 0 for each in gradients.values())


def test_a_module_of_equal_steps(tmp_path) -> None:
    module = SampledSystem(OSCILLATOR, dt=0.25)
    assert check_module(module, examples=6)
    recurrence = module.recurrence()
    assert module.recurrence() is recurrence
    module.get_buffer("A").data.mul_(0.5)  # a change that no version says
    assert not torch.equal(module.recurrence().A.to_dense(), recurrence.A.to_dense())
    pytest.importorskip("huggingface_hub")
    module.save_pretrained(tmp_path / "oscillator")
    again = SampledSystem.from_pretrained(tmp_path / "oscillator")
    inputs = torch.randn(2, 7, 1, dtype=torch.float64)
    torch.testing.assert_close(again(inputs).outputs, module(inputs).outputs, rtol=0, atol=0)


def test_a_recurrence_in_continuous_time_is_one() -> None:
    """Made by `Recurrence`, with either way of passing the system; copied as what it is."""
    module = linrec.nn.Recurrence(OSCILLATOR, dt=0.5, trainable=["A"])
    assert isinstance(module, SampledSystem) and module.dt == 0.5
    inputs, dt = torch.randn(2, 9, 1, dtype=torch.float64), 0.1 + torch.rand(2, 9).double()
    dt.requires_grad_()
    outputs = copy.deepcopy(module)(inputs, dt=dt).outputs
    by_hand = linrec.discretize(OSCILLATOR, dt, dt_per="step")
    expected = linrec.run(by_hand, inputs, executor=linrec.Recurrent()).outputs
    torch.testing.assert_close(outputs, expected, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(each.square().sum(), dt)[0] for each in (outputs, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)
    assert isinstance(linrec.nn.Recurrence(recurrence=OSCILLATOR), SampledSystem)


def test_what_is_refused() -> None:
    with pytest.raises(TypeError, match=r"linrec\.nn\.Recurrence"):
        SampledSystem(cast(Any, linrec.LinearRecurrence(A=[[0.5]], B=[[1.0]])))
    with pytest.raises(ValueError, match=r"names \['E'\]"):
        SampledSystem(OSCILLATOR, trainable=["E"])
    with pytest.raises(ValueError, match="positive step"):
        SampledSystem(OSCILLATOR, dt=0.0)
    module, inputs = SampledSystem(OSCILLATOR), torch.zeros(2, 5, 1, dtype=torch.float64)
    for lengths in (None, torch.tensor([3, 5])):
        with pytest.raises(ValueError, match="`dt` is one number"):
            module(inputs, lengths=lengths, dt=torch.tensor(0.5))
        for shape in ((1,), (2, 1), (4,)):
            with pytest.raises(ValueError, match="has 5 steps"):
                module(inputs, lengths=lengths, dt=torch.ones(shape))


@pytest.fixture
def doubles():
    """Modules are made in double precision: their buffers are rounded to the default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("trainable_theta", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_the_memory_takes_steps_of_any_length(
    trainable_theta: bool, method: str, doubles: None
) -> None:
    """A step of 2 is two steps of the same sample, exactly with a held sample; 1 is none given."""
    torch.manual_seed(0)
    layer = lmu.ParallelLMU(
        input_size=3,
        hidden_size=4,
        channels=2,
        order=5,
        theta=25.0,
        method=method,
        trainable_theta=trainable_theta,
    )
    inputs = torch.randn(2, 6, 3, dtype=torch.float64)
    ones = layer(inputs, dt=torch.ones(6))
    torch.testing.assert_close(ones.outputs, layer(inputs).outputs, rtol=1e-9, atol=1e-9)
    dt = 1.0 + torch.randint(2, (2, 6), generator=torch.Generator().manual_seed(3))
    whole, state = layer(inputs, dt=dt), None
    for t in range(6):
        outputs, state = layer.step(inputs[:, t], state, dt=dt[:, t])
        torch.testing.assert_close(outputs, whole.outputs[:, t], rtol=1e-9, atol=1e-9)
    last = layer.final(inputs, dt=dt)
    torch.testing.assert_close(last.outputs, whole.outputs[:, -1], rtol=1e-9, atol=1e-9)
    if method == "zoh":
        twice = [
            torch.repeat_interleave(each, count.long(), 0)
            for each, count in zip(inputs, dt, strict=True)
        ]
        for k in range(2):
            expected = layer.final(twice[k]).outputs
            torch.testing.assert_close(last.outputs[k], expected, rtol=1e-9, atol=1e-9)
    trained = dt.double().requires_grad_()
    layer(inputs, dt=trained).outputs.sum().backward()
    assert trained.grad is not None and trained.grad.abs().sum() > 0


@pytest.mark.parametrize("trainable_theta", [False, True])
def test_packed_samples_with_their_times(trainable_theta: bool, doubles: None) -> None:
    """A `PackedSequence` of samples and the times between them, padded with zeros inside."""
    memory = lmu.ParallelLMU(1, 4, channels=1, order=3, theta=9.0, trainable_theta=trainable_theta)
    layer = Timed(memory)
    generator = torch.Generator().manual_seed(2)
    alone = [torch.rand(steps, 2, generator=generator) + 0.5 for steps in (3, 7, 1)]
    packed = layer(pack_sequence(alone, enforce_sorted=False)).outputs
    together, lengths = pad_packed_sequence(packed, batch_first=True)
    together.sum().backward()
    got = [each.grad for each in layer.parameters()]
    layer.zero_grad()
    for row, length, sequence in zip(together, lengths, alone, strict=True):
        outputs = layer(sequence).outputs
        outputs.sum().backward()
        torch.testing.assert_close(row[:length], outputs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(got, [each.grad for each in layer.parameters()])
