"""From continuous to discrete time, by the methods and names of `scipy.signal.cont2discrete`."""

import math

import torch
from torch import Tensor

from linrec._checks import as_tensor, broadcast, double_dtype
from linrec.structures import Dense, Diagonal, Structure, Varying
from linrec.systems import LinearRecurrence, StateSpace

# The methods, and for those of the gbt family how implicit they are.
METHODS = {
    "zoh": None,
    "foh": None,
    "bilinear": 0.5,
    "tustin": 0.5,
    "euler": 0.0,
    "forward_diff": 0.0,
    "backward_diff": 1.0,
    "impulse": None,
    "gbt": None,
}


def discretize(
    system: StateSpace,
    dt: float | Tensor = 1.0,
    method: str = "zoh",
    *,
    alpha: float | None = None,
    prewarp_frequency: float | None = None,
) -> LinearRecurrence:
    """Turn a continuous-time system into a recurrence of steps of length `dt`.

    The zero-order hold, exact for inputs that are constant within each step, is

        Ā = exp(A dt)        B̄ = ∫₀^dt exp(A s) ds B

    and is computed as one exponential of [[A, B], [0, 0]]·dt, so that A may be singular. All
    methods return the four matrices that `scipy.signal.cont2discrete` returns. Here they are read
    post-update (docs/conventions.md): y_t is the output at the *end* of step t, the input having
    been u_t until then, where scipy's y[k] is the output at the beginning of step k. Computed in
    float64 and cast last; differentiable in A, B, C, D and `dt`.

    Args:
        system: the continuous-time system.
        dt: the length of a step, in the unit of time of `system`. A tensor `(*batch, time)` of
            one length a step gives a `Varying` recurrence: irregular sampling.
        method: "zoh", "foh" (inputs interpolated linearly), "bilinear" (Tustin), "euler"
            (forward), "backward_diff" (backward Euler), "impulse" (impulse-invariant; D = None) or
            "gbt" (the family that "euler", "bilinear" and "backward_diff" belong to).
        alpha: for "gbt", how implicit it is: 0 is forward and 1 backward Euler, 0.5 bilinear.
        prewarp_frequency: for "bilinear", the angular frequency, in radians per unit of time, at
            which the frequency response (of the matrices read as scipy reads them) is kept.

    Returns:
        The recurrence, in the dtype of the system. A diagonal A stays diagonal.

    Raises:
        ValueError: an unknown method, an option that the method does not have, a step that is not
            positive, or "impulse" with a D.

    Example:
        >>> import linrec
        >>> integrator = linrec.StateSpace(A=[[0.0]], B=[[1.0]])
        >>> linrec.discretize(integrator, dt=0.5).B
        tensor([[0.5000]])

    References:
        Van Loan 1978, Computing integrals involving the matrix exponential, theorem 1.
        Franklin, Powell and Workman 1998, Digital Control of Dynamic Systems, chapters 4 and 6.
        Zhang, Chen and Chen 2009, On the generalized bilinear transformation (gbt).
    """
    if not isinstance(system, StateSpace):
        raise TypeError(
            f"`system` is of type {type(system).__name__}: expected a continuous-time StateSpace. "
            "A LinearRecurrence is in discrete time already."
        )
    steps, dtype = check_step(dt, system), system.dtype
    weight = implicitness(method, alpha, prewarp_frequency)
    if prewarp_frequency is not None:
        # tan maps the frequency axis of z onto that of s; with this dt they meet at ω.
        steps = 2 * torch.tan(prewarp_frequency * steps / 2) / prewarp_frequency
    system = in_double(system, with_time=steps.ndim > 0)
    if weight is not None:
        A, B, C, D = generalized_bilinear(system, steps, weight)
    elif method == "foh":
        A, B, C, D = first_order_hold(system, steps)
    elif method == "impulse":
        A, B, C, D = impulse_invariant(system, steps)
    else:
        A, (B,) = exponential_integrals(system, steps, count=1)
        C, D = system.C, system.D
    recurrence = LinearRecurrence(Varying(A) if steps.ndim else A, B, C, D)
    return recurrence.to(dtype)


def check_step(dt: float | Tensor, system: StateSpace) -> Tensor:
    """Take the step in double precision on the device of the system."""
    steps = as_tensor("dt", dt)
    if steps.is_complex():
        raise TypeError(f"`dt` has dtype {steps.dtype}: expected a real number.")
    if isinstance(dt, int | float) and not dt > 0:
        raise ValueError(f"`dt` is {dt}: expected a positive step.")
    if isinstance(dt, int | float):
        steps = torch.tensor(dt, dtype=torch.float64, device=system.device)
    elif not torch.compiler.is_compiling() and known_negative(steps):
        raise ValueError(
            f"`dt` has a smallest entry of {float(steps.min())}: expected positive steps."
        )
    return steps.to(system.device, torch.float64)


def known_negative(steps: Tensor) -> bool:
    """Whether a step is seen to be negative or zero (NaN may stand where no step is)."""
    try:
        return bool((steps <= 0).any())
    except RuntimeError:  # inside vmap no value can be looked at
        return False


def implicitness(method: str, alpha: float | None, prewarp: float | None) -> float | None:
    """Find how implicit a method of the gbt family is; None for the others."""
    if method not in METHODS:
        raise ValueError(f"`method` is {method!r}: expected one of {', '.join(METHODS)}.")
    if (alpha is not None) != (method == "gbt"):
        raise ValueError(
            f"`alpha` is {alpha} and `method` {method!r}: expected a number from 0 to 1 for "
            '"gbt" and None for every other method.'
        )
    if alpha is not None and not 0 <= alpha <= 1:
        raise ValueError(f"`alpha` is {alpha}: expected a number from 0 to 1.")
    if prewarp is not None and METHODS[method] != 0.5:
        raise ValueError(
            f"`prewarp_frequency` is given and `method` is {method!r}: "
            'only "bilinear" warps frequencies.'
        )
    return alpha if method == "gbt" else METHODS[method]


def in_double(system: StateSpace, *, with_time: bool) -> StateSpace:
    """Cast to double precision, and give every batch axis a place for time behind it."""
    dtype = double_dtype(system.dtype)
    A = system.A.to(dtype)
    if not with_time:
        return StateSpace(A, *(None if m is None else m.to(dtype) for m in system.matrices()))
    rest = (None if m is None else m.to(dtype).unsqueeze(-3) for m in system.matrices())
    return StateSpace(A[..., None], *rest)


def exponential_integrals(
    system: StateSpace, steps: Tensor, count: int
) -> tuple[Structure, list[Tensor]]:
    """Compute exp(A dt), and dt·φ_k(A dt)·B for k = 1 … count.

    φ_k(z) = Σ_j z^j / (j+k)!, so that dt·φ_1(A dt) = ∫₀^dt exp(A s) ds. All of them are blocks of
    the first row of one exponential (Van Loan 1978, theorem 1):

        exp [[A dt, B dt, 0], [0, 0, I], [0, 0, 0]] = [[exp(A dt), dt φ_1 B, dt φ_2 B], …]
    """
    A, B = system.A, system.B
    diagonal = A.as_diagonal()
    if diagonal is not None:
        z = diagonal * steps.unsqueeze(-1)
        held = [(phi(z, k) * steps.unsqueeze(-1)).unsqueeze(-1) * B for k in range(1, count + 1)]
        return Diagonal(z.exp()), held
    n, m = B.shape[-2:]
    dense = A.to_dense() * steps[..., None, None]
    driven = B * steps[..., None, None]
    batch = broadcast(A=dense.shape[:-2], B=driven.shape[:-2])
    rows = torch.cat([dense.expand(*batch, n, n), driven.expand(*batch, n, m)], -1)
    augmented = torch.nn.functional.pad(rows, (0, (count - 1) * m, 0, count * m))
    if count > 1:
        shift = B.new_ones((count - 1) * m)
        augmented = augmented + torch.nn.functional.pad(torch.diag_embed(shift), (n + m, 0, n, m))
    first_row = torch.linalg.matrix_exp(augmented)[..., :n, :]
    return Dense(first_row[..., :n]), list(first_row[..., n:].split(m, dim=-1))


def phi(z: Tensor, order: int) -> Tensor:
    """Compute φ_k(z) = Σ_j z^j / (j+k)!, smooth at 0.

    φ_{k+1}(z) = (φ_k(z) - 1/k!) / z cancels near 0. Below 1/4 the series takes over: after 14
    terms what is left out is under 4^-14 / 14! < 1e-19. Each branch is given arguments that it
    can bear, since the gradient of `where` multiplies the other branch's by zero, not by nothing.
    """
    near = z.abs() < 0.25
    small = torch.where(near, z, 0)
    series = torch.zeros_like(z)
    for j in reversed(range(14)):
        series = series * small + 1 / math.factorial(j + order)
    large = torch.where(near, 1, z)
    value = large.exp()
    for k in range(order):
        value = (value - 1 / math.factorial(k)) / large
    return torch.where(near, series, value)


def first_order_hold(
    system: StateSpace, steps: Tensor
) -> tuple[Structure, Tensor, Tensor | None, Tensor]:
    """Join the inputs by straight lines (Franklin et al. 1998, section 6.3.2).

    The state obeys x[k+1] = Φ x[k] + (Γ₁ - Γ₂) u[k] + Γ₂ u[k+1], and w = x - Γ₂ u needs no
    u[k+1]: w[k+1] = Φ w[k] + (Γ₁ - Γ₂ + Φ Γ₂) u[k], y[k] = C w[k] + (D + C Γ₂) u[k].
    """
    A, (gamma_1, gamma_2) = exponential_integrals(system, steps, count=2)
    turned = A.to_dense() @ gamma_2
    through = gamma_2 if system.C is None else system.C @ gamma_2
    through = through if system.D is None else through + system.D
    return A, gamma_1 - gamma_2 + turned, system.C, through


def impulse_invariant(
    system: StateSpace, steps: Tensor
) -> tuple[Structure, Tensor, Tensor | None, Tensor]:
    """Sample the impulse response: every input is an impulse of area dt·u at its step's start."""
    if system.D is not None and bool((system.D != 0).any()):
        raise ValueError(
            '`method` is "impulse" and the system has a D: an impulse through D cannot be sampled. '
            "Expected D = None; discretise without it and add `D` afterwards."
        )
    A, _ = exponential_integrals(system, steps, count=1)
    impulse = system.B * steps[..., None, None]
    through = impulse if system.C is None else system.C @ impulse
    return A, A.to_dense() @ impulse, system.C, through


def generalized_bilinear(
    system: StateSpace, steps: Tensor, alpha: float
) -> tuple[Structure, Tensor, Tensor | None, Tensor | None]:
    """Step (I - α dt A) x[k+1] = (I + (1-α) dt A) x[k] + dt B (α u[k+1] + (1-α) u[k]).

    As in scipy, the state is changed so that u[k+1] is not needed, which changes C and D.
    """
    A, B, C, D = system.A, system.B, system.C, system.D
    diagonal = A.as_diagonal()
    if diagonal is not None:
        z = diagonal * steps.unsqueeze(-1)
        inverse = 1 / (1 - alpha * z)
        structure: Structure = Diagonal(inverse * (1 + (1 - alpha) * z))
        solved = inverse.unsqueeze(-1) * B * steps[..., None, None]
        read = torch.diag_embed(inverse) if C is None else C * inverse.unsqueeze(-2)
    else:
        z = A.to_dense() * steps[..., None, None]
        identity = torch.eye(A.state_size, dtype=z.dtype, device=z.device)
        implicit = identity - alpha * z
        structure = Dense(torch.linalg.solve(implicit, identity + (1 - alpha) * z))
        solved = divide(implicit, B * steps[..., None, None])
        read = divide(implicit, identity if C is None else C, left=False)
    if alpha == 0:
        return structure, solved, C, D
    through = alpha * (solved if C is None else C @ solved)
    return structure, solved, read, through if D is None else D + through


def divide(by: Tensor, matrices: Tensor, *, left: bool = True) -> Tensor:
    """Multiply matrices by an inverse from the left or the right, batch axes broadcasting.

    torch takes `(k, n)` beside `(k, n, n)` for k vectors. With as many axes it cannot.
    """
    return torch.linalg.solve(by, matrices[(None,) * (by.ndim - matrices.ndim)], left=left)
