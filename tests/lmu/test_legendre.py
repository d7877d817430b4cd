"""The delay system and its read-out, against scipy's polynomials, Padé's approximant and delays."""

# Wrong arguments are passed on purpose, and matrices known to be there are used as such.
# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false, reportOptionalMemberAccess=false, reportOptionalOperand=false

import math

import numpy as np
import pytest
import scipy.interpolate
import scipy.special
import torch

import linrec
import lmu


@pytest.mark.parametrize("order", [1, 2, 3, 6, 20])
def test_matrices_are_the_papers(order: int) -> None:
    """A_ij = (2i+1)·(-1 if i < j else (-1)^(i-j+1)), B_i = (2i+1)(-1)^i, entry by entry."""
    system = lmu.delay_system(order, 5.0)
    A, B = system.A.to_dense(), system.B
    assert A.dtype == torch.float64 and system.C is None and system.D is None
    for i in range(order):
        assert float(B[i, 0]) == (2 * i + 1) * (-1) ** i / 5
        for j in range(order):
            sign = -1 if i < j else (-1) ** (i - j + 1)
            assert float(A[i, j]) == (2 * i + 1) * sign / 5


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_reads_padés_approximant_of_the_delay(order: int) -> None:
    """Decoded a window ago, the transfer function is exp(-θs)'s [d-1 / d] Padé approximant."""
    theta = 2.0
    system = lmu.delay_system(order, theta)
    C = lmu.decoder(order, [1.0])
    read = linrec.StateSpace(system.A, system.B, C)
    omega = torch.tensor([0.1, 0.5, 2.0], dtype=torch.float64)
    got = linrec.frequency_response(read, omega).squeeze(-1).squeeze(-1).numpy()
    taylor = [(-theta) ** k / math.factorial(k) for k in range(2 * order)]
    numerator, denominator = scipy.interpolate.pade(taylor, order, order - 1)
    s = 1j * omega.numpy()
    assert np.abs(got - numerator(s) / denominator(s)).max() < 1e-9


@pytest.mark.parametrize("order", [1, 2, 7, 64, 400])
def test_decoder_is_scipys_shifted_legendre(order: int) -> None:
    fractions = np.linspace(0, 1, 11)
    expected = np.stack(
        [scipy.special.eval_sh_legendre(i, fractions) for i in range(order)], axis=-1
    )
    got = lmu.decoder(order, torch.from_numpy(fractions))
    # Bonnet's recursion loses at most some eps for each step within [-1, 1].
    assert np.abs(got.numpy() - expected).max() <= 8 * order * np.finfo(float).eps


def test_the_window_follows_a_signal() -> None:
    """A slow signal is read back at every point of the window."""
    theta, order = 100.0, 12
    time = torch.arange(400, dtype=torch.float64)
    signal = torch.sin(2 * math.pi * time / 120) + 0.5 * torch.cos(2 * math.pi * time / 77)
    memory = linrec.discretize(lmu.delay_system(order, theta))
    states = linrec.run(memory, signal[:, None]).outputs
    for fraction in (0.0, 0.25, 0.5, 1.0):
        read = states @ lmu.decoder(order, [fraction])[0]
        delay = round(fraction * theta)
        # The state of a step is that at its end: half a step of the held signal is older.
        error = (read[200:] - signal[200 - delay : 400 - delay]).abs().max()
        assert error < 0.08, (fraction, float(error))


def test_theta_keeps_its_gradient() -> None:
    theta = torch.tensor(7.0, dtype=torch.float64, requires_grad=True)

    def call(theta: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(linrec.discretize(lmu.delay_system(4, theta)).leaves().values())

    assert torch.autograd.gradcheck(call, theta)


@pytest.mark.parametrize(
    "call, error",
    [
        (lambda: lmu.delay_system(0, 1.0), "`order` is 0: expected a whole number"),
        (lambda: lmu.delay_system(2.0, 1.0), "`order` is 2.0: expected a whole number"),
        (lambda: lmu.delay_system(2, -1.0), "`theta` is -1.0: expected a positive number"),
        (lambda: lmu.decoder(0, [0.0]), "`order` is 0"),
        (lambda: lmu.decoder(3, [1.5]), "numbers from 0 to 1"),
        (lambda: lmu.LegendreMemory(0, 2, 3.0), "`channels` is 0"),
        (lambda: lmu.LegendreMemory(1, 2, 3.0, "zho"), "`method` is 'zho'"),
        (lambda: lmu.ParallelLMU(3, 0, 1, 2, 3.0), "`hidden_size` is 0"),
        (
            lambda: lmu.ParallelLMU(3, 4, 1, 2, 3.0, input_projection=False),
            "`channels` is 1 and `input_size` 3",
        ),
    ],
)
def test_bad_arguments(call, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        call()
