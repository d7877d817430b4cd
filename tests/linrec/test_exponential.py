"""Exponentials of matrices and their integrals, against certified ones: in every unit of time."""

# Matrices known to be there are used as such, and scipy's annotations are too wide.
# pyright: reportOperatorIssue=false, reportOptionalIterable=false, reportArgumentType=false

import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.signal
import torch

import linrec
from linrec import StateSpace, discretize, interop
from linrec.exponential import phi
from tests.cases import normal


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_phi_is_its_series(order: int) -> None:
    """Against exact fractions, on both sides of where the series takes over."""
    points = [-3.0, -1.25, -1.0, -0.26, -0.25, -0.2, -1e-9, 0.0, 1e-9, 0.24, 0.3, 1.2, 3.0]
    exact = [
        float(sum(Fraction(z) ** j / math.factorial(j + order) for j in range(60))) for z in points
    ]
    got = phi(torch.tensor(points, dtype=torch.float64), order)
    torch.testing.assert_close(got, torch.tensor(exact, dtype=torch.float64), rtol=4e-14, atol=0)


@pytest.mark.parametrize("at", [0.0, 1e-9, 0.2499, 0.2501, -3.0])
def test_diagonal_gradients_where_the_series_takes_over(at: float) -> None:
    pole = torch.tensor([at], dtype=torch.float64, requires_grad=True)
    for method in ("zoh", "foh"):
        assert torch.autograd.gradcheck(
            lambda a, m=method: tuple(
                discretize(StateSpace(linrec.Diagonal(a), torch.ones(1, 1)), 1.0, m)
                .leaves()
                .values()
            ),
            pole,
        )


@pytest.mark.parametrize("method", ["zoh", "foh", "impulse", "bilinear", "backward_diff"])
@pytest.mark.parametrize("size", [1e-200, 1e-10, 3.0, 1e10, 1e200])
def test_A_does_not_depend_on_B(method: str, size: float) -> None:
    """A to the last digit; and B is linear in B, the size being rounded once."""
    A, B = normal(4, 4, seed=1), normal(4, 2, seed=2)
    one, other = (discretize(StateSpace(A, each), 0.1, method) for each in (B, size * B))
    assert one.A.to_dense().equal(other.A.to_dense())
    torch.testing.assert_close(other.B, size * one.B, rtol=1e-14, atol=0)


@pytest.mark.parametrize("order, cutoff", [(3, 1e6), (4, 2e4), (6, 1.0), (6, 1e3), (8, 1e9)])
def test_step_response_of_a_butterworth_filter(order: int, cutoff: float) -> None:
    """In closed form, from the residues of its simple poles; a held step is exact with "zoh"."""
    wc, dt = 2 * math.pi * cutoff, 0.1 / cutoff
    system = interop.from_scipy(scipy.signal.lti(*scipy.signal.butter(order, wc, analog=True)))
    got = linrec.step_response(discretize(system, dt), 60).flatten().numpy()
    poles = wc * np.exp(1j * math.pi * (2 * np.arange(order) + order + 1) / (2 * order))
    residues = [wc**order / (p * np.prod(p - np.delete(poles, k))) for k, p in enumerate(poles)]
    time = dt * np.arange(1, 61)
    right = 1 + sum((r * np.exp(p * time)).real for r, p in zip(residues, poles, strict=True))
    # The loop itself loses a few digits in companion form.
    assert np.abs(got - right).max() <= 1e-12
