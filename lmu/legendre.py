"""The Legendre memory: the best linear memory of a sliding window, and how to read it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from linrec import StateSpace


def delay_system(order: int, theta: float | Tensor) -> StateSpace:
    """Make the system whose states are a window of its input, in Legendre polynomials.

        θ m'(t) = A m(t) + B u(t)
        A_ij = (2i+1)·(-1 if i < j else (-1)^(i-j+1))        B_i = (2i+1)(-1)^i

    The system returned has A / θ and B / θ, and reads out its states (C = None).

    Args:
        order: how many polynomials, d; the number of states.
        theta: the length of the window, in the unit of `dt` (of steps, for `dt = 1`). A tensor
            keeps its gradient.

    Returns:
        The continuous-time system, of one input, in float64.

    Raises:
        ValueError: an order below 1, or a window that is not positive.

    Example:
        >>> import lmu
        >>> lmu.delay_system(order=2, theta=1.0).A.to_dense()
        tensor([[-1., -1.],
                [ 3., -3.]], dtype=torch.float64)

    References:
        Voelker, Kajić and Eliasmith 2019, Legendre Memory Units, eqs 1 and 2.
    """
    if not isinstance(order, int) or order < 1:
        raise ValueError(f"`order` is {order!r}: expected a whole number of 1 or more.")
    if not isinstance(theta, Tensor):
        if not theta > 0:
            raise ValueError(f"`theta` is {theta}: expected a positive length of the window.")
        theta = torch.tensor(theta, dtype=torch.float64)
    if theta.ndim:
        raise ValueError(
            f"`theta` has shape {tuple(theta.shape)}: expected one number. For "
            "several windows map over them with `torch.vmap`."
        )
    i = torch.arange(order, dtype=torch.float64, device=theta.device)
    odd = 2 * i[:, None] + 1
    alternating = 1 - 2 * (i % 2)
    signs = torch.where(i[:, None] < i, -1.0, -alternating[:, None] * alternating)
    return StateSpace(odd * signs / theta, odd * alternating[:, None] / theta)


def decoder(order: int, fractions: Tensor | Sequence[float]) -> Tensor:
    """Make the matrix that reads points of the window out of the memory.

        u(t - r θ) ≈ Σ_i P̃_i(r) m_i(t)        P̃_i(r) = P_i(2r - 1)

    Args:
        order: how many polynomials, d.
        fractions (points,): r, how far back, from 0 (now) to 1 (a window ago).

    Returns:
        The matrix, `(points, d)`, in float64: a C for the memory, or to multiply its states by.

    Raises:
        ValueError: a fraction outside the window, where the polynomials explode.

    Example:
        >>> import lmu
        >>> lmu.decoder(order=3, fractions=[0.0, 1.0])
        tensor([[ 1., -1.,  1.],
                [ 1.,  1.,  1.]], dtype=torch.float64)

    References:
        Voelker, Kajić and Eliasmith 2019, Legendre Memory Units, eq. 3.
    """
    if not isinstance(order, int) or order < 1:
        raise ValueError(f"`order` is {order!r}: expected a whole number of 1 or more.")
    r = torch.as_tensor(fractions, dtype=torch.float64)
    if r.ndim != 1 or bool(((r < 0) | (r > 1)).any()):
        raise ValueError(f"`fractions` is {fractions}: expected a vector of numbers from 0 to 1.")
    # Bonnet's recursion, (i+1) P_{i+1} = (2i+1) z P_i - i P_{i-1}: stable within [-1, 1].
    z = 2 * r - 1
    polynomials = [torch.ones_like(z), z]
    for i in range(1, order - 1):
        polynomials.append(((2 * i + 1) * z * polynomials[i] - i * polynomials[i - 1]) / (i + 1))
    return torch.stack(polynomials[:order], -1)
