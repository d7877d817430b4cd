"""Named memory systems, one function each; docs/symbolic.md derives every one of them.

Parameters may be tensors of shape `(*batch)`: they make a batch of systems and keep their
gradients. Systems made from plain numbers have torch's default dtype.
"""

# pyright: reportUnnecessaryIsInstance=false
# (Callers without types are checked too.)

from numbers import Real

import torch
from torch import Tensor

from linrec._tensors.annotated import matrix_exp
from linrec._tensors.arguments import as_tensor, device_of
from linrec._tensors.dtypes import common_dtype
from linrec._tensors.shapes import broadcast
from linrec.structures import Diagonal
from linrec.systems import LinearRecurrence, StateSpace

__all__ = [
    "damped_oscillator",
    "delay_line",
    "fourier",
    "hippo_legs",
    "leaky_integrator",
    "legendre",
    "moving_average",
    "second_order_filter",
]

Number = float | Tensor


def leaky_integrator(tau: Number) -> StateSpace:
    """Make an integrator that forgets with a time constant.

        τ x'(t) = -x(t) + u(t)

    Args:
        tau (*batch): τ, in the unit of `dt`; positive.

    Returns:
        The system of one state.

    Example:
        >>> import linrec
        >>> linrec.memories.leaky_integrator(tau=4.0).A
        Diagonal(diagonal=tensor([-0.2500]))
    """
    (rate,) = tensors(rate=1 / positive("tau", tau))
    return StateSpace(Diagonal(-rate.unsqueeze(-1)), rate[..., None, None])


def moving_average(decay: Number) -> LinearRecurrence:
    """Make the exponential moving average.

        y_t = a y_{t-1} + (1 - a) u_t

    Args:
        decay (*batch): a, the fraction left after a step, from 0 to 1.

    Returns:
        The recurrence of one state.

    Example:
        >>> import linrec
        >>> linrec.memories.moving_average(decay=0.75).B
        tensor([[0.2500]])
    """
    (a,) = tensors(decay=decay)
    return LinearRecurrence(Diagonal(a.unsqueeze(-1)), (1 - a)[..., None, None])


def damped_oscillator(frequency: Number, damping: Number) -> StateSpace:
    """Make a damped oscillator, whose two states are its position and its velocity.

        x''(t) + 2 ζ ω x'(t) + ω² x(t) = ω² u(t)

    Args:
        frequency (*batch): ω, in radians per unit of time; positive.
        damping (*batch): ζ; below 1 the system oscillates, at 0 forever.

    Returns:
        The system of two states, whose output is the position.

    Example:
        >>> import linrec
        >>> linrec.memories.damped_oscillator(frequency=2.0, damping=0.5).A.to_dense()
        tensor([[ 0.,  1.],
                [-4., -2.]])
    """
    w, z = tensors(frequency=positive("frequency", frequency), damping=damping)
    zero, one = torch.zeros_like(w), torch.ones_like(w)
    A = rows([[zero, one], [-(w**2), -2 * z * w]])
    return StateSpace(A, rows([[zero], [w**2]]), [[1.0, 0.0]])


def second_order_filter(
    b0: Number, b1: Number, b2: Number, a1: Number, a2: Number
) -> LinearRecurrence:
    """Make the infinite impulse response filter of order two, a biquad.

        y_t = b₀ u_t + b₁ u_{t-1} + b₂ u_{t-2} - a₁ y_{t-1} - a₂ y_{t-2}

    Args:
        b0 (*batch): b₀; the coefficients are those of scipy.signal, with a₀ = 1.
        b1 (*batch): b₁.
        b2 (*batch): b₂.
        a1 (*batch): a₁.
        a2 (*batch): a₂.

    Returns:
        The recurrence of three states, in controllable form. (Two would do if a₂ is not 0.)

    Example:
        >>> import linrec
        >>> smooth = linrec.memories.second_order_filter(0.25, 0.5, 0.25, 0.0, 0.0)
        >>> linrec.impulse_response(smooth, 4).flatten()
        tensor([0.2500, 0.5000, 0.2500, 0.0000])

    References:
        Oppenheim and Schafer 2010, Discrete-Time Signal Processing, section 6.3.
    """
    b0, b1, b2, a1, a2 = tensors(b0=b0, b1=b1, b2=b2, a1=a1, a2=a2)
    zero, one = torch.zeros_like(a1), torch.ones_like(a1)
    A = rows([[-a1, -a2, zero], [one, zero, zero], [zero, one, zero]])
    return LinearRecurrence(A, [[1.0], [0.0], [0.0]], rows([[b0, b1, b2]]))


def delay_line(steps: int) -> LinearRecurrence:
    """Make a delay of a whole number of steps: a shift register.

        y_t = u_{t-d}

    Args:
        steps: d, 0 or more.

    Returns:
        The recurrence of d + 1 states: the present input and those of the last d steps.

    Example:
        >>> import torch, linrec
        >>> linrec.run(linrec.memories.delay_line(2), torch.ones(4, 1)).outputs.flatten()
        tensor([0., 0., 1., 1.])
    """
    n = whole("steps", steps, 0) + 1
    A = torch.diag(torch.ones(n - 1), -1)
    return LinearRecurrence(A, torch.eye(n)[:, :1], torch.eye(n)[-1:])


def fourier(harmonics: int, theta: Number) -> StateSpace:
    """Make the memory of a sliding window in sines and cosines.

        u(t - r θ) ≈ a₀ + Σ_k √2 cos(2πk r) a_k + √2 sin(2πk r) b_k        0 ≤ r ≤ 1
        θ a₀' = v        θ a_k' = √2 v - 2πk b_k        θ b_k' = 2πk a_k
        v = 2 (u - a₀ - √2 Σ_k a_k)

    Args:
        harmonics: K, the number of frequencies besides the constant.
        theta (*batch): θ, the length of the window, in the unit of `dt`.

    Returns:
        The system of 2K + 1 states: a₀, a₁, b₁, a₂, b₂, ….

    Example:
        >>> import linrec
        >>> linrec.memories.fourier(harmonics=0, theta=2.0).A.to_dense()
        tensor([[-1.]])

    References:
        Gu, Johnson, Timalsina, Rudra and Ré 2022, How to Train Your HiPPO, section 4 (FouT).
    """
    (rate,) = tensors(rate=1 / positive("theta", theta))
    whole("harmonics", harmonics, 0)
    of_frequencies = [1.0] + [2**0.5, 0.0] * harmonics
    weights = torch.tensor(of_frequencies, dtype=torch.float64, device=rate.device)
    A = -2 * weights[:, None] * weights
    for cosine in range(1, 2 * harmonics, 2):  # frequency k = (cosine + 1) / 2
        A[cosine, cosine + 1] -= torch.pi * (cosine + 1)
        A[cosine + 1, cosine] += torch.pi * (cosine + 1)
    scale = rate[..., None, None]
    return StateSpace((A * scale).to(rate.dtype), (2 * weights[:, None] * scale).to(rate.dtype))


def legendre(order: int, theta: Number) -> StateSpace:
    """Make the memory of a sliding window in Legendre polynomials, the delay system.

        u(t - r θ) ≈ Σ_i P̃_i(r) m_i(t)        P̃_i(r) = P_i(2r - 1)        0 ≤ r ≤ 1
        θ m'(t) = A m(t) + B u(t)
        A_ij = (2i+1)·(-1 if i < j else (-1)^(i-j+1))        B_i = (2i+1)(-1)^i

    Args:
        order: d, the number of polynomials and of states.
        theta (*batch): θ, the length of the window, in the unit of `dt` (in steps, for `dt = 1`).

    Returns:
        The system of d states, with A / θ and B / θ, in float64 whatever θ is.

    Raises:
        ValueError: an order below 1, or a window that is not positive.

    Example:
        >>> import linrec
        >>> linrec.memories.legendre(order=2, theta=1.0).A.to_dense()
        tensor([[-1., -1.],
                [ 3., -3.]], dtype=torch.float64)

    References:
        Voelker, Kajić and Eliasmith 2019, Legendre Memory Units, eqs 1 and 2.
    """
    whole("order", order, 1)
    window = positive("theta", theta)
    if not isinstance(window, Tensor):
        window = torch.tensor(window, dtype=torch.float64)
    window = as_tensor("theta", window).to(torch.float64)[..., None, None]
    i = torch.arange(order, dtype=torch.float64, device=window.device)
    odd, alternating = 2 * i[:, None] + 1, 1 - 2 * (i % 2)
    signs = torch.where(i[:, None] < i, -1.0, -alternating[:, None] * alternating)
    return StateSpace(odd * signs / window, odd * alternating[:, None] / window)


def hippo_legs(order: int, steps: int) -> LinearRecurrence:
    """Make the memory of everything since the start, in Legendre polynomials: HiPPO-LegS.

        t x'(t) = -A x(t) + B u(t)        u(s) ≈ Σ_n x_n(t) √(2n+1) P_n(2s/t - 1)    0 ≤ s ≤ t
        A_nk = √((2n+1)(2k+1)) for n > k, n + 1 for n = k, 0 for n < k        B_n = √(2n+1)

    In the time log t this is time-invariant, and the step from t to t + 1 has length log((t+1)/t).
    The recurrence is exact for inputs that are constant within each step; the first step starts
    from nothing and leaves a constant.

    Args:
        order: N, the number of polynomials and of states.
        steps: the number of steps.

    Returns:
        The time-varying recurrence of one input.

    Numerical error: A is far from normal; single precision is good for N up to about 30.

    Example:
        >>> import torch, linrec
        >>> constant = linrec.run(linrec.memories.hippo_legs(order=3, steps=5), torch.ones(5, 1))
        >>> bool(torch.allclose(constant.final_state, torch.tensor([1.0, 0.0, 0.0]), atol=1e-5))
        True

    References:
        Gu, Dao, Ermon, Rudra and Ré 2020, HiPPO: Recurrent Memory with Optimal Polynomial
        Projections, theorem 2.
    """
    n = torch.arange(whole("order", order, 1), dtype=torch.float64)
    length = whole("steps", steps, 1)
    root = (2 * n + 1).sqrt()
    A = torch.tril(root[:, None] * root, -1) + torch.diag(n + 1)
    t = torch.arange(1, length, dtype=torch.float64)
    moved = matrix_exp(-A * torch.log1p(1 / t)[:, None, None])
    turned = torch.cat([torch.zeros_like(A)[None], moved])
    # A x = B has the solution x = (1, 0, 0, …): a constant input is remembered as a constant.
    held = torch.eye(len(n), dtype=n.dtype)[:, :1] - turned[:, :, :1]
    dtype = torch.get_default_dtype()
    return LinearRecurrence(turned.to(dtype), held.to(dtype), time_varying=True)


def tensors(**values: Number) -> list[Tensor]:
    """Convert numbers and tensors to tensors of one dtype and shape."""
    given = [as_tensor(name, value) for name, value in values.items() if isinstance(value, Tensor)]
    dtype = common_dtype(*given) if given else torch.get_default_dtype()
    device = device_of(*given)
    taken = [as_tensor(name, each, dtype, device) for name, each in values.items()]
    if any(each.is_complex() for each in taken):
        dtype = torch.promote_types(dtype, torch.complex64)
    taken = [each.to(dtype) for each in taken]
    shape = broadcast(**{n: value.shape for n, value in zip(values, taken, strict=True)})
    return [value.expand(shape) for value in taken]


def rows(matrix: list[list[Tensor]]) -> Tensor:
    """Stack scalars `(*batch)` into a matrix."""
    return torch.stack([torch.stack(row, -1) for row in matrix], -2)


def positive(name: str, value: Number) -> Number:
    """Refuse a number that is not positive; tensors are not checked."""
    if isinstance(value, Tensor):
        return value
    if not isinstance(value, Real):
        return as_tensor(name, value, torch.get_default_dtype())  # (or refuse it by its name)
    if not value > 0:
        raise ValueError(f"`{name}` is {value}: expected a positive number.")
    return value


def whole(name: str, value: int, least: int) -> int:
    """Check a whole number against its minimum."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"`{name}` is {value!r}: expected a whole number of {least} or more.")
    return value
