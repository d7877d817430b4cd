"""Named memories, against the functions they are named after and their symbolic derivations."""

# Wrong arguments are passed on purpose.
# pyright: reportArgumentType=false, reportOptionalMemberAccess=false

import math
from typing import Any

import numpy as np
import pytest
import scipy.signal
import torch
from numpy.polynomial import Legendre

import linrec
from linrec import memories

DOUBLE = torch.float64


def double(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=DOUBLE)


def test_a_leaky_integrator_relaxes_exponentially() -> None:
    system = linrec.discretize(memories.leaky_integrator(double(4.0)), dt=0.5)
    times = 0.5 * torch.arange(1, 30, dtype=DOUBLE)
    got = linrec.step_response(system, 29).flatten()
    torch.testing.assert_close(got, 1 - torch.exp(-times / 4), rtol=1e-13, atol=0)


def test_a_moving_average_weighs_by_age() -> None:
    got = linrec.impulse_response(memories.moving_average(double(0.9)), 20).flatten()
    torch.testing.assert_close(got, 0.1 * 0.9 ** torch.arange(20, dtype=DOUBLE), rtol=1e-13, atol=0)


@pytest.mark.parametrize("damping", [0.0, 0.3, 1.0, 2.0])
def test_an_oscillator_has_its_transfer_function(damping: float) -> None:
    system = memories.damped_oscillator(double(2.0), damping)
    frequencies = torch.linspace(0.1, 5, 9, dtype=DOUBLE)
    got = linrec.frequency_response(system, frequencies).flatten()
    expected = 4 / ((1j * frequencies) ** 2 + 4 * damping * 1j * frequencies + 4)
    torch.testing.assert_close(got, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("kind", ["butter", "notch", "fir"])
def test_a_second_order_filter_filters_as_scipy_does(kind: str) -> None:
    b, a = {
        "butter": scipy.signal.butter(2, 0.2),
        "notch": scipy.signal.iirnotch(0.3, 10),
        "fir": ([0.2, 0.5, 0.3], [1.0, 0.0, 0.0]),
    }[kind]
    inputs = np.random.default_rng(0).normal(size=50)
    memory = memories.second_order_filter(*(double(float(v)) for v in (*b, *a[1:])))
    got = linrec.run(memory, torch.tensor(inputs)[:, None]).outputs.flatten()
    np.testing.assert_allclose(got, scipy.signal.lfilter(b, a, inputs), rtol=0, atol=1e-13)


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_a_delay_line_delays(steps: int) -> None:
    inputs = torch.randn(12, 1)
    got = linrec.run(memories.delay_line(steps), inputs).outputs
    torch.testing.assert_close(got, torch.cat([torch.zeros(steps, 1), inputs])[:12])


def fourier_basis(harmonics: int, r: np.ndarray) -> np.ndarray:
    columns = [np.ones_like(r)]
    for k in range(1, harmonics + 1):
        columns += [
            math.sqrt(2) * np.cos(2 * np.pi * k * r),
            math.sqrt(2) * np.sin(2 * np.pi * k * r),
        ]
    return np.stack(columns, -1)


@pytest.mark.parametrize("harmonics", [0, 1, 4])
def test_the_fourier_memory_is_the_projected_motion_of_the_window(harmonics: int) -> None:
    # θ m_i' = φ_i(0) w(0) - φ_i(1) w(1) + ∫ φ_i' w dr with w(1) read off the series, whose value
    # at the jump is the mean of w(0) and w(1). The integral is exact by the trapezoidal rule.
    r = np.arange(64) / 64
    phi, h = fourier_basis(harmonics, r), 1e-6
    slope = (fourier_basis(harmonics, r + h) - fourier_basis(harmonics, r - h)) / (2 * h)
    ends = fourier_basis(harmonics, np.array([0.0]))[0]
    A = slope.T @ phi / 64 - 2 * np.outer(ends, ends)
    system = memories.fourier(harmonics, double(3.0))
    np.testing.assert_allclose(system.A.to_dense() * 3, A, rtol=0, atol=1e-7)
    np.testing.assert_allclose(system.B[:, 0] * 3, 2 * ends, rtol=0, atol=1e-12)


def test_the_fourier_memory_remembers_a_periodic_signal() -> None:
    theta, dt, harmonics = 1.0, 0.001, 3
    times = dt * np.arange(1, 20001)
    u = 0.5 + np.sin(2 * np.pi * times) - 0.3 * np.cos(4 * np.pi * times)
    memory = linrec.discretize(memories.fourier(harmonics, double(theta)), dt)
    state = linrec.final(memory, torch.tensor(u)[:, None]).outputs.numpy()
    r = np.linspace(0, 1, 9)
    window = 0.5 + np.sin(2 * np.pi * (times[-1] - r)) - 0.3 * np.cos(4 * np.pi * (times[-1] - r))
    # The hold delays the input by half a step: an error of π dt for the first harmonic.
    np.testing.assert_allclose(
        fourier_basis(harmonics, r) @ state, window, rtol=0, atol=4 * np.pi * dt
    )


@pytest.mark.parametrize("order", [1, 3, 6])
def test_hippo_legs_is_the_projection_of_the_whole_past(order: int) -> None:
    steps = 7
    inputs = torch.tensor([[1.0], [-2.0], [0.5], [3.0], [0.0], [-1.0], [2.0]])
    got = linrec.run(memories.hippo_legs(order, steps), inputs).outputs
    for T in range(1, steps + 1):
        for n in range(order):
            # ∫ of u against √(2n+1) P_n(2s/T - 1) over each step, exactly.
            whole = Legendre.basis(n, domain=[0, T]).integ()
            parts = [float(inputs[s, 0]) * (whole(s + 1) - whole(s)) for s in range(T)]
            expected = math.sqrt(2 * n + 1) * sum(parts) / T
            # eps of single precision, times the growth of the exponentials before they cancel
            assert float(got[T - 1, n]) == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize(
    ("make", "values"),
    [
        (memories.leaky_integrator, {"tau": 2.0}),
        (memories.moving_average, {"decay": 0.8}),
        (memories.damped_oscillator, {"frequency": 1.0, "damping": 0.2}),
        (memories.second_order_filter, {"b0": 1.0, "b1": 0.5, "b2": 0.2, "a1": 0.3, "a2": 0.1}),
        (lambda theta: memories.fourier(2, theta), {"theta": 3.0}),
    ],
)
def test_tensors_make_batches_and_keep_their_gradients(make: Any, values: dict[str, float]) -> None:
    tensors = [double(value).requires_grad_() for value in values.values()]

    def response(*given: torch.Tensor) -> torch.Tensor:
        system = make(**dict(zip(values, given, strict=True)))
        if isinstance(system, linrec.StateSpace):
            system = linrec.discretize(system, 0.1)
        return linrec.impulse_response(system, 4)

    assert torch.autograd.gradcheck(response, tuple(tensors))
    several = response(*(tensor.expand(3) for tensor in tensors))
    assert several.shape[0] == 3
    torch.testing.assert_close(several[1], response(*tensors))
    assert make(**values).dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: memories.leaky_integrator(0.0), "`tau` is 0.0: expected a positive"),
        (lambda: memories.damped_oscillator(-1.0, 0.1), "`frequency` is -1.0"),
        (lambda: memories.fourier(2, 0), "`theta` is 0"),
        (lambda: memories.fourier(-1, 1.0), "`harmonics` is -1: expected a whole number of 0"),
        (lambda: memories.delay_line(1.5), "`steps` is 1.5"),
        (lambda: memories.hippo_legs(0, 3), "`order` is 0: expected a whole number of 1"),
    ],
)
def test_wrong_arguments_are_told(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_windows_of_a_batch_are_a_batch_of_systems_and_keep_their_gradients() -> None:
    windows = torch.tensor([2.0, 5.0], requires_grad=True)
    system = memories.legendre(3, windows)
    for index, theta in enumerate((2.0, 5.0)):
        alone = memories.legendre(3, theta)
        assert torch.equal(system.A.to_dense()[index], alone.A.to_dense())
        assert torch.equal(system.B[index], alone.B)
    system.B.sum().backward()
    # Σ B_i / θ, of which the derivative is -Σ B_i / θ²: 1 - 3 + 5.
    assert torch.allclose(windows.grad, -3 / windows.detach() ** 2)


def test_complex_numbers_beside_real_ones() -> None:
    average = memories.moving_average(0.5 + 0.5j)
    assert average.A.to_dense().item() == 0.5 + 0.5j and average.B.item() == 0.5 - 0.5j
    turning = memories.second_order_filter(1.0, 0.0, 0.0, -0.5j, double(0.0))
    assert turning.dtype == torch.complex128
    assert linrec.impulse_response(turning, 2).flatten()[1].item() == 0.5j


@pytest.mark.parametrize("make", [memories.leaky_integrator, lambda tau: memories.legendre(2, tau)])
def test_lists_and_arrays_make_batches(make: Any) -> None:
    expected = make(torch.tensor([2.0, 3.0])).A.to_dense()
    for given in ([2.0, 3.0], np.array([2.0, 3.0], dtype=np.float32)):
        assert torch.equal(make(given).A.to_dense(), expected)
    with pytest.raises(TypeError, match="is of type str"):
        make("2")
