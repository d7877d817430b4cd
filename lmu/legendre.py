"""The Legendre memory: the best linear memory of a sliding window, and how to read it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from linrec import memories

# The delay system of Voelker et al. 2019, by its name in the papers on the LMU.
delay_system = memories.legendre


def decoder(order: int, fractions: Tensor | Sequence[float]) -> Tensor:
    """Return the matrix that reads points of the window from the memory.

        u(t - r θ) ≈ Σ_i P̃_i(r) m_i(t)        P̃_i(r) = P_i(2r - 1)

    Args:
        order: how many polynomials, d.
        fractions (points,): r, how far back, from 0 (now) to 1 (a window ago).

    Returns:
        The matrix, `(points, d)`, in float64: a C for the memory, or a factor for its states.

    Raises:
        ValueError: a fraction outside the window, where the polynomials grow without bound.

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
    # (torch.as_tensor would move a tensor to the default device.)
    given = isinstance(fractions, Tensor)
    r = fractions.double() if given else torch.as_tensor(fractions, dtype=torch.float64)
    if r.ndim != 1 or bool(((r < 0) | (r > 1)).any()):
        raise ValueError(f"`fractions` is {fractions}: expected a vector of numbers from 0 to 1.")
    # Bonnet's recursion, (i+1) P_{i+1} = (2i+1) z P_i - i P_{i-1}: stable within [-1, 1].
    z = 2 * r - 1
    polynomials = [torch.ones_like(z), z]
    for i in range(1, order - 1):
        polynomials.append(((2 * i + 1) * z * polynomials[i] - i * polynomials[i - 1]) / (i + 1))
    return torch.stack(polynomials[:order], -1)
