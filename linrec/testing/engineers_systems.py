"""A Hypothesis strategy for engineering systems: filters, and matrices far from normal."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from linrec._tensors.devices import on_cpu
from linrec.structures import Companion, Structure
from linrec.systems import LinearRecurrence
from linrec.testing.matrices import legendre

ORDERS = (2, 3, 4, 5, 6, 7, 8)
CUTOFFS = (0.02, 0.05, 0.1, 0.2, 0.45, 0.005)

Random = np.random.Generator
Matrices = tuple[Any, Any, Any, Any]


def around(A: np.ndarray, random: Random) -> Matrices:
    """Add a random input and output to a matrix."""
    n = len(A)
    return A, random.standard_normal((n, 1)), random.standard_normal((1, n)), np.zeros((1, 1))


def filtering(kind: str, *between: float) -> Callable[[int, float, Random], Matrices]:
    """Return a function that designs one of scipy's filters, as a companion matrix."""

    def design(order: int, cutoff: float, random: Random) -> Matrices:
        from scipy import signal  # (it takes a second to load)

        b, a = getattr(signal, kind)(order, *between, cutoff)
        return signal.tf2ss(b, a)

    return design


def random_companion(order: int, cutoff: float, random: Random) -> Matrices:
    """Draw a companion matrix with poles within 0.99, most of them complex."""
    from scipy import linalg

    modulus = random.uniform(0.5, 0.99, order // 2)
    pairs = modulus * np.exp(1j * random.uniform(0, np.pi, order // 2))
    poles = np.concatenate([pairs, pairs.conj(), [0.7] * (order % 2)])
    return around(linalg.companion(np.poly(poles).real), random)


def cascade(order: int, cutoff: float, random: Random) -> Matrices:
    """Chain equal first-order stages, whose powers grow before they decay."""
    sign = random.choice((-1, 1))
    chain = np.diag(np.full(order, 0.95)) + sign * np.diag(np.full(order - 1, 0.8), -1)
    return chain, np.eye(order, 1), np.eye(1, order, order - 1), np.zeros((1, 1))


def sliding_window(order: int, cutoff: float, random: Random) -> Matrices:
    """Make a Legendre memory."""
    return around(legendre(torch.eye(order, dtype=torch.float64)).numpy(), random)


def jordan_block(order: int, cutoff: float, random: Random) -> Matrices:
    """Make a chain of integrators."""
    order = min(order, 4)  # powers grow like the steps to the order
    return around(np.eye(order) + np.eye(order, k=1), random)


def large_norm(order: int, cutoff: float, random: Random) -> Matrices:
    """Draw a matrix of norm 50: a triangular one, with eigenvalues within 0.9, rotated."""
    order = min(order, 5)
    turn = np.linalg.qr(random.standard_normal((order, order)))[0]
    above = np.triu(random.standard_normal((order, order)), 1) * np.eye(order, k=1)
    above *= 50 / max(np.linalg.norm(above, 2), 1e-3)
    return around(turn @ (above + np.diag(np.linspace(-0.9, 0.9, order))) @ turn.T, random)


def orthogonal(order: int, cutoff: float, random: Random) -> Matrices:
    """Draw a rotation or reflection."""
    return around(np.linalg.qr(random.standard_normal((order, order)))[0], random)


FAMILIES: dict[str, Callable[[int, float, Random], Matrices]] = {
    "butter": filtering("butter"),
    "cheby1": filtering("cheby1", 1),
    "cheby2": filtering("cheby2", 40),
    "ellip": filtering("ellip", 0.7, 41),
    "bessel": filtering("bessel"),
    "random companion": random_companion,
    "cascade": cascade,
    "Legendre": sliding_window,
    "Jordan block at 1": jordan_block,
    "norm 50, radius 0.9": large_norm,
    "orthogonal": orthogonal,
}


@st.composite
@on_cpu
def engineering_systems(
    draw: st.DrawFn,
    families: st.SearchStrategy[str] = st.sampled_from(list(FAMILIES)),  # noqa: B008  # strategies are constants
    dtypes: st.SearchStrategy[torch.dtype] = st.sampled_from((torch.float64, torch.float32)),  # noqa: B008  # as above
) -> LinearRecurrence:
    """Draw systems from practice whose powers of A lose digits in A's own coordinates.

    Filters of scipy (Butterworth, Chebyshev of both kinds, elliptic, Bessel) of orders 2 to 8 with
    cutoffs from 0.005 to 0.45, random companion matrices, cascades, Legendre memories, Jordan
    blocks at 1, matrices of norm 50 and radius 0.9, and orthogonal matrices. All are designed in
    double precision and cast.

    Args:
        families: draws names of `linrec.testing.engineers_systems.FAMILIES`.
        dtypes: draws dtypes.

    Returns:
        A strategy of recurrences with one input and one output; companion matrices are dense, or
        a `Companion`.

    Example:
        >>> from hypothesis import given
        >>> from linrec.testing import engineering_systems
        >>> @given(engineering_systems())
        ... def test_sizes(system):
        ...     assert 2 <= system.state_size <= 8 and system.output_size == 1
        >>> test_sizes()
    """
    order, cutoff = draw(st.sampled_from(ORDERS)), draw(st.sampled_from(CUTOFFS))
    random = np.random.default_rng(draw(st.integers(0, 2**31 - 1)))
    matrices = FAMILIES[draw(families)](order, cutoff, random)
    dtype = draw(dtypes)
    A, B, C, D = (torch.as_tensor(np.array(matrix, np.float64)).to(dtype) for matrix in matrices)
    transition: Structure | torch.Tensor = A
    if draw(st.booleans()) and is_companion(A):
        transition = Companion(-A[0])
    return LinearRecurrence(transition, B, C, D)


def is_companion(A: torch.Tensor) -> bool:
    """Return whether all rows but the first only shift the states."""
    return torch.equal(A[1:], torch.eye(*A.shape, dtype=A.dtype)[:-1])


def everyday(
    systems: st.SearchStrategy[LinearRecurrence], dtype: torch.dtype | None = None
) -> st.SearchStrategy[LinearRecurrence]:
    """Draw an engineering system in one case in eight, otherwise one of the given systems.

    Args:
        systems: draws the given systems.
        dtype: the dtype of all systems. None: several.
    """
    if dtype is not None and torch.finfo(dtype).bits < 32:  # filters fail in half precision
        return systems
    drawn = engineering_systems() if dtype is None else engineering_systems(dtypes=st.just(dtype))
    return st.sampled_from((systems,) * 7 + (drawn,)).flatmap(lambda chosen: chosen)
