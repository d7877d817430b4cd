"""Matrix exponentials and their integrals, against certified ones, in every unit of time."""

# Matrices known to be there are used as such, and scipy's annotations are too wide.
# pyright: reportOperatorIssue=false, reportOptionalIterable=false, reportArgumentType=false
# pyright: reportOptionalMemberAccess=false

import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.signal
import sympy
import torch

import linrec
import lmu
from linrec import StateSpace, discretize, interop
from linrec.discretization.exponential import phi
from tests.cases import normal
from tests.linrec import certified


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


# Analog filters by the names of scipy.signal, at a cutoff in Hz, in companion form.
FILTERS = {
    "butter": lambda order, wc: scipy.signal.butter(order, wc, analog=True),
    "cheby1": lambda order, wc: scipy.signal.cheby1(order, 1, wc, analog=True),
    "cheby2": lambda order, wc: scipy.signal.cheby2(order, 40, wc, analog=True),
    "ellip": lambda order, wc: scipy.signal.ellip(order, 1, 40, wc, analog=True),
    "bessel": lambda order, wc: scipy.signal.bessel(order, wc, analog=True),
}
# Matrices that lose digits in one way or another; entries, and the length of a step.
HARD = {
    "stiff": ([[-1e9, 1e9], [1.0, -2.0]], 1.0),
    "stiff and apart": (np.diag([-1e-6, -1.0, -40.0]), 1.0),
    "stiff ladder": (np.diag(-np.logspace(9, 0, 10)) + np.diag(np.logspace(8, 0, 9), 1), 1.0),
    "decayed": (np.diag(np.full(9, 1.0), 1) - 40 * np.eye(10), 1.0),
    "grown": (np.diag(np.full(9, 1.0), -1) + 40 * np.eye(10), 1.0),
    "nilpotent": (np.diag(np.full(9, 1e9), 1), 1.0),
    "a long chain": (np.diag(np.full(39, 1e6), 1), 1.0),
    "defective": (np.diag(np.full(5, 1e9), 1) - np.eye(6), 1.0),
    "not normal": ([[1.0, 1e6], [0.0, -1.0]], 1.0),
    "GHz": ([[0.0, 1.0], [-(6e9**2), -1e6]], 1e-10),
    "two clocks": (np.diag([1.0, 0.0, 1e6], 1) - np.diag([36e18, 0.0, 1e-6], -1), 1e-10),
    "nothing": (np.zeros((3, 3)), 1.0),
}


def companion(family: str, order: int, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    A, B, _, _ = scipy.signal.tf2ss(*FILTERS[family](order, 2 * math.pi * cutoff))
    return A, B


def part_of_allowed(A: np.ndarray, B: np.ndarray, step: float) -> float:
    """How much of what one rounding of A and B moves is lost by "zoh": A and B, each entry."""
    made = discretize(StateSpace(A, B), step)
    got = np.concatenate([made.A.to_dense().numpy(), made.B.numpy()], axis=1)
    both, n = certified.augmented(A, B), len(A)
    expected = certified.exponential(both, step)[:n]
    allowed = certified.after_one_rounding(both, step)[:n]
    lost = np.abs(got - expected)
    assert (lost[allowed == 0] == 0).all()
    return float(np.max(lost / np.where(allowed == 0, 1, allowed)))


def check_certified(A: np.ndarray, B: np.ndarray, step: float) -> None:
    """A dt, B dt and the result are rounded; a sum of n products errs by √n if at random."""
    part = part_of_allowed(np.asarray(A, dtype=float), np.asarray(B, dtype=float), step)
    print(f"{part:.2g} of what one rounding moves")  # pytest -rP shows it
    assert part <= 3 + math.sqrt(len(A))


@pytest.mark.parametrize("name", HARD)
def test_hard_matrices(name: str) -> None:
    A, step = HARD[name]
    check_certified(np.asarray(A), np.eye(len(A))[:, -1:], step)


CUTOFFS = [1.0, 1e3, 1e6, 1e9]
TABLE = [(f, o, c, s) for f in FILTERS for o in (2, 3, 5, 8) for c in CUTOFFS for s in (0.05, 3.0)]
FEW = [(f, 8, c, s) for f in FILTERS for c, s in ((1.0, 0.05), (1e9, 0.05), (1e9, 3.0))]


@pytest.mark.parametrize("family, order, cutoff, periods", FEW)
def test_filters(family: str, order: int, cutoff: float, periods: float) -> None:
    check_certified(*companion(family, order, cutoff), periods / cutoff)


@pytest.mark.slow
@pytest.mark.parametrize("family, order, cutoff, periods", TABLE)
def test_more_filters(family: str, order: int, cutoff: float, periods: float) -> None:
    check_certified(*companion(family, order, cutoff), periods / cutoff)


@pytest.mark.parametrize("order, theta", [(1, 1.0), (6, 10.0), (16, 3.0), (24, 100.0)])
def test_legendre_systems(order: int, theta: float) -> None:
    system = lmu.delay_system(order, torch.tensor(theta, dtype=torch.float64))
    check_certified(system.A.to_dense().numpy(), system.B.numpy(), 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("theta", [5.0, 64.0, 1000.0])
@pytest.mark.parametrize("order", [32, 64])
def test_long_legendre_systems(order: int, theta: float) -> None:
    system = lmu.delay_system(order, torch.tensor(theta, dtype=torch.float64))
    check_certified(system.A.to_dense().numpy(), system.B.numpy(), 1.0)


@pytest.mark.parametrize("family", FILTERS)
@pytest.mark.parametrize("cutoff", [1.0, 1e9])
def test_first_order_hold_of_filters(family: str, cutoff: float) -> None:
    """D = Γ₂ and B = Γ₁ - Γ₂ + Φ Γ₂, each part as certain as the exponential that it is of."""
    (A, B), step = companion(family, 4, cutoff), 0.05 / cutoff
    ramp, n, m = certified.augmented(A, B, ramp=True), 4, 1
    exact = certified.exponential(ramp, step)[:n]
    allowed = certified.after_one_rounding(ramp, step)[:n]
    turned, first, second = np.split(exact, [n, n + m], axis=1)
    moved, moved_first, moved_second = np.split(allowed, [n, n + m], axis=1)
    second, moved_second = second / step, moved_second / step
    made = discretize(StateSpace(A, B), step, "foh")
    assert (np.abs(made.D.numpy() - second) <= 4 * moved_second).all()
    parts = moved_first + moved_second + moved @ np.abs(second) + np.abs(turned) @ moved_second
    parts += certified.UNIT * n * (np.abs(first) + np.abs(second) + np.abs(turned) @ np.abs(second))
    expected = first - second + turned @ second
    assert (np.abs(made.B.numpy() - expected) <= 4 * parts).all()


@pytest.mark.parametrize("method, alpha", [("bilinear", 0.5), ("backward_diff", 1.0)])
@pytest.mark.parametrize("family", FILTERS)
@pytest.mark.parametrize("cutoff", [1.0, 1e9])
def test_implicit_methods_of_filters(family: str, cutoff: float, method: str, alpha: float) -> None:
    """As a system of equations in radians allows (states in units of the cutoff's powers)."""
    (A, B), step, n = companion(family, 8, cutoff), 0.05 / cutoff, 8
    made = discretize(StateSpace(A, B), step, method)
    exact = sympy.Matrix(n, n, [sympy.Rational(float(entry)) for entry in A.flat])
    exact = exact * sympy.Rational(step)
    weight, identity = sympy.Rational(alpha), sympy.eye(n)
    implicit = identity - weight * exact
    solved = implicit.LUsolve((identity + (1 - weight) * exact).row_join(sympy.Matrix(B)))
    units = (2 * math.pi * cutoff) ** np.arange(n - 1, -1, -1.0)
    inside = np.array(implicit.evalf(30)).astype(float) * units / units[:, None]
    for got, right, outside in (
        (made.A.to_dense().numpy(), solved[:, :n], 1 / units),
        (made.B.numpy() / step, solved[:, n:], np.ones(1)),
    ):
        right = np.array(right.evalf(30)).astype(float)
        lost, size = ((each / units[:, None] / outside) for each in (got - right, right))
        # Higham 2002, theorem 9.4: 3n u ‖ |L| |U| ‖ of backward error, at most n ‖M‖ here.
        allowed = 3 * n**2 * certified.UNIT * np.linalg.cond(inside, 1) * np.linalg.norm(size, 1)
        assert np.linalg.norm(lost, 1) <= allowed


@pytest.mark.parametrize("size", [1e-10, 1.0, 1e10])
@pytest.mark.parametrize("cutoff", [1.0, 1e9])
@pytest.mark.parametrize("even", [True, False])
def test_gradients_of_filters(cutoff: float, even: bool, size: float) -> None:
    """The gradient in A is a block of exp [[Aᵀ, G], [0, Aᵀ]], G the cotangent, of any size."""
    (A, B), step, n = companion("butter", 6, cutoff), 0.1 / cutoff, 6
    units = (2 * math.pi * cutoff) ** np.arange(n - 1, -1, -1.0)
    G = size * (np.ones((n, n)) if even else np.outer(1 / units, units))
    given = torch.tensor(A, requires_grad=True)
    made = discretize(StateSpace(given, B), step).A.to_dense()
    (gradient,) = torch.autograd.grad((made * torch.tensor(G)).sum(), given)
    both = np.block([[A.T, G], [np.zeros((n, n)), A.T]])
    expected = certified.exponential(both, step)[:n, n:]
    allowed = certified.after_one_rounding(both, step)[:n, n:]
    # Each squaring is gone back through once more.
    assert (np.abs(gradient.numpy() - expected) <= 8 * n * allowed).all()
