"""Discretisation by the methods of `scipy.signal.cont2discrete`, under the same names."""

# pyright: reportConstantRedefinition=false
# (A, B, C and D are variables.)
# pyright: reportUnnecessaryIsInstance=false
# (Callers without types are checked too.)

import math
from numbers import Real

import torch
from torch import Tensor

from linrec._tensors.annotated import unique_places
from linrec._tensors.arguments import as_tensor
from linrec._tensors.autograd import records_gradient
from linrec._tensors.devices import has_double
from linrec._tensors.dtypes import double_dtype
from linrec._tensors.known_values import at_hand, is_seen
from linrec._tensors.shapes import broadcast_shapes, show
from linrec.discretization.exponential import balance
from linrec.discretization.methods import (
    check_no_pole,
    first_order_hold,
    generalized_bilinear,
    impulse_invariant,
    zero_order_hold,
)
from linrec.structures import Dense, Diagonal, Structure
from linrec.systems import LinearRecurrence, StateSpace

# The methods, with the weight α of those in the gbt family.
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

STEPS_PER = ("step", "system", "state")  # values of `dt_per`


def discretize(
    system: StateSpace,
    dt: float | Tensor = 1.0,
    method: str = "zoh",
    *,
    dt_per: str | None = None,
    alpha: float | None = None,
    prewarp_frequency: float | Tensor | None = None,
) -> LinearRecurrence:
    """Turn a continuous-time system into a recurrence of steps of length `dt`.

    The zero-order hold, exact for inputs that are constant within each step, is

        Ā = exp(A dt)        B̄ = ∫₀^dt exp(A s) ds B

    and A may be singular. All methods return the four matrices that `scipy.signal.cont2discrete`
    returns. Here they are read post-update (docs/conventions.md): y_t is the output at the *end*
    of step t, the input having been u_t until then, where scipy's y[k] is the output at the
    beginning of step k. Computed in float64 and cast last; differentiable in A, B, C, D and `dt`.

    Args:
        system: the continuous-time system.
        dt: the length of a step, in the unit of time of `system`: a number, or a tensor with axes
            that `dt_per` explains.
        dt_per: "step": `dt (*batch, time)` has a length for each step and gives a time-varying
            recurrence (irregular sampling; NaN may stand where a sequence has ended). "system":
            `dt (*batch)` has one for each system of a bank. "state": `dt (*batch, n)` has one for
            each state of a diagonal A (row i of A and of B times dt_i, as in S5). None: "step"; but
            it must be given if the system has the same batch axes as `dt`.
        method: "zoh", "foh" (inputs interpolated linearly), "bilinear" (Tustin), "euler"
            (forward), "backward_diff" (backward Euler), "impulse" (impulse-invariant; D = None) or
            "gbt" (the family that "euler", "bilinear" and "backward_diff" belong to).
        alpha: for "gbt", the weight α: 0 is forward Euler, 1 backward Euler, 0.5 bilinear.
        prewarp_frequency: for "bilinear", the angular frequency, in radians per unit of time, at
            which the frequency response (of the matrices read as scipy reads them) is kept: from
            0, which warps nothing, to less than π/dt. A tensor has one for each entry of `dt`.

    Returns:
        The recurrence, in the dtype of the system. A diagonal A stays diagonal.

    Raises:
        ValueError: an unknown method, an option that the method does not have, a step that is not
            positive and finite, "impulse" with a D, or a pole at 1/(α dt), where the implicit
            methods of weight α ("bilinear": 1/2, "backward_diff": 1) divide by zero.

    Numerical error: as of a relative change of the entries of A by about one rounding ("zoh",
        "foh", "impulse"; docs/numerics.md), in any unit of time. A does not depend on B.

    Example:
        >>> import linrec
        >>> integrator = linrec.StateSpace(A=[[0.0]], B=[[1.0]])
        >>> linrec.discretize(integrator, dt=0.5).B
        tensor([[0.5000]])

    References:
        Franklin, Powell and Workman 1998, Digital Control of Dynamic Systems, chapters 4 and 6.
        Zhang, Chen and Chen 2009, On the generalized bilinear transformation (gbt).
        Smith, Warrington and Linderman 2023, Simplified state space layers (S5; dt for each state).
    """
    if not isinstance(system, StateSpace):
        raise TypeError(
            f"`system` is of type {type(system).__name__}: expected a continuous-time StateSpace. "
            "A LinearRecurrence is in discrete time already."
        )
    if not has_double(system.device):
        dt, warp = dt.cpu() if isinstance(dt, Tensor) else dt, prewarp_frequency
        warp = warp.cpu() if isinstance(warp, Tensor) else warp
        made = discretize(
            system.to("cpu"), dt, method, dt_per=dt_per, alpha=alpha, prewarp_frequency=warp
        )
        return made.to(system.device)
    dtype, steps = system.dtype, check_step(dt, system, dt_per)
    weight = implicitness(method, alpha, prewarp_frequency)
    varying = steps.ndim > 0 and dt_per in (None, "step")
    if prewarp_frequency is not None:  # (first: steps are repeated where their frequency is too)
        steps = prewarp_steps(steps, prewarp_frequency)
    if varying and (repeated := repeated_steps(system, steps)) is not None:
        few, places = repeated
        return at_places(discretize(system, few, method, dt_per="step", alpha=alpha), places)
    ended = None
    if varying and records_gradient(steps, *system.tensors()):
        steps, ended = fill_padding(steps)
    system = in_steps(system, steps, "step" if varying else dt_per)
    # The methods measure states in units in which no entry of A is needlessly large. (Forward Euler
    # only takes sums, for which units make no difference.)
    simple = system.A.as_diagonal() is not None or weight == 0
    units = None if simple else balance(system.A.to_dense())
    inner = system if units is None else in_units(system, units)
    if weight is not None:
        check_no_pole(inner.A, None if dt_per == "state" else steps, weight, method)
        A, B, C, D = generalized_bilinear(inner, weight)
    elif method == "foh":
        A, B, C, D = first_order_hold(inner)
    elif method == "impulse":
        A, B, C, D = impulse_invariant(inner)
    else:
        A, B, C, D = zero_order_hold(inner)
    if units is not None:
        A, B = Dense(A.to_dense() / ratio(units)), B * units.unsqueeze(-1)
        # Implicit methods change C; the others keep it, None included.
        C = system.C if C is inner.C or C is None else C / units.unsqueeze(-2)
    recurrence = LinearRecurrence(A, B, C, D, time_varying=varying)
    return (recurrence if ended is None else mark_padding(recurrence, ended)).to(dtype)


def check_step(dt: float | Tensor, system: StateSpace, dt_per: str | None) -> Tensor:
    """Convert the step to double precision on the device of the system."""
    if dt_per not in (None, *STEPS_PER):
        raise ValueError(f"`dt_per` is {dt_per!r}: expected one of {', '.join(STEPS_PER)}.")
    steps = as_tensor("dt", dt, torch.float64, "cpu")  # (numbers are checked without waiting)
    if steps.is_complex():
        raise TypeError(f"`dt` has dtype {steps.dtype}: expected a real number.")
    check_axes_of_steps(steps, system, dt_per)
    wrong = (steps <= 0) | steps.isinf()
    if steps.ndim == 0 or dt_per in ("system", "state"):
        wrong = wrong | steps.isnan()  # (otherwise NaN marks steps after a sequence's end)
    if is_seen(wrong, wait=False):
        got = f"is {dt}" if steps.ndim == 0 else f"has an entry of {float(steps[wrong][0])}"
        raise ValueError(
            f"`dt` {got}: expected a positive step, and a finite one, in the unit of time of the "
            "system."
        )
    return steps.to(system.device, torch.float64, non_blocking=True)


def check_axes_of_steps(steps: Tensor, system: StateSpace, dt_per: str | None) -> None:
    """Refuse steps whose axes do not fit the system, or are ambiguous."""
    shape, batch = steps.shape, system.batch_shape
    got = f"`dt` has shape {show(shape)} and the system batch axes {show(batch)}: "
    if dt_per is None and shape and shape == batch[-len(shape) :]:
        raise ValueError(
            f"{got}expected to be told whether it is the length of each step, "
            '`dt_per="step"`, or that of each system, `dt_per="system"`.'
        )
    if dt_per == "step" and not shape:
        raise ValueError('`dt` is one number and `dt_per` is "step": expected `dt (*batch, time)`.')
    if dt_per == "state":
        if system.A.as_diagonal() is None:
            raise ValueError(
                '`dt_per` is "state" and A is not diagonal: expected a `Diagonal` A, whose states '
                "do not drive one another and can each have a time of its own."
            )
        if shape and shape[-1] not in (1, system.state_size):
            raise ValueError(
                f"{got}expected one for each of the {system.state_size} states, (*batch, n)."
            )
        shape = shape[:-1]
    if dt_per in ("system", "state"):
        try:
            broadcast_shapes(shape, batch)
        except RuntimeError:
            raise ValueError(
                f"{got}expected axes that broadcast against those. For a length of each step "
                'pass `dt_per="step"`.'
            ) from None


def repeated_steps(system: StateSpace, steps: Tensor) -> tuple[Tensor, Tensor] | None:
    """Find the distinct lengths among repeated steps, and the index of each step among them.

    A clock gives few different lengths to very many steps, and each length costs an exponential.
    None where fewer than half of these would be saved, where there are no steps, where the steps
    need a gradient, and where their values cannot be read.
    """
    if system.batch_shape or steps.requires_grad or not steps.numel() or not at_hand(steps):
        return None
    # (NaN, where a sequence has ended, is not equal to itself; no step is negative.)
    few, places = unique_places(steps.nan_to_num(nan=-1.0))
    if 2 * few.numel() > steps.numel():
        return None
    return torch.where(few < 0, torch.nan, few), places


def at_places(recurrence: LinearRecurrence, places: Tensor) -> LinearRecurrence:
    """Make a recurrence whose step t has the matrices of step `places[t]` of another."""

    def take(leaf: Tensor, core: int) -> Tensor:
        if leaf.shape[-core - 1] > 1:
            return leaf[places]
        return leaf.expand(*places.shape, *leaf.shape[-core:])  # one step stands for all

    return recurrence.map_batched(take)


def fill_padding(steps: Tensor) -> tuple[Tensor, Tensor]:
    """Give steps past a sequence's end the length 0, and return where they are.

    A gradient that passes through NaN is NaN, even if nothing depends on the number: 0·NaN.
    """
    ended = steps.isnan()
    return torch.where(ended, 0.0, steps), ended


def mark_padding(recurrence: LinearRecurrence, ended: Tensor) -> LinearRecurrence:
    """Put NaN into the matrices of steps past a sequence's end, as `ended (*batch, time)` says."""

    def mark(leaf: Tensor, core: int) -> Tensor:
        if leaf.shape[-core - 1] == 1 < ended.shape[-1]:
            return leaf  # the same at all steps
        return torch.where(ended[(..., *[None] * core)], torch.nan, leaf)

    return recurrence.map_batched(mark)


def prewarp_steps(steps: Tensor, frequency: float | Tensor) -> Tensor:
    """Adjust steps so that the bilinear rule keeps the response at a frequency.

    tan maps the frequency axis of z onto that of s: 2 tan(ω dt / 2) / ω replaces dt.
    """
    if not isinstance(frequency, Real | Tensor):
        raise TypeError(
            f"`prewarp_frequency` is of type {type(frequency).__name__}: expected a number."
        )
    omega = torch.as_tensor(frequency, dtype=torch.float64, device=steps.device)
    angle = omega * steps
    # (NaN is wrong as a frequency; as a step it marks the end of a sequence.)
    wrong = ~((angle >= 0) & (angle < math.pi)) & ~steps.isnan()
    if is_seen(wrong, wait=False):
        omega, steps = (each.expand(wrong.shape)[wrong][0] for each in (omega, steps))
        raise ValueError(
            f"`prewarp_frequency` is {float(omega)}: expected an angular frequency from 0 to less "
            f"than π/dt = {math.pi / float(steps):.6g} radians per unit of time, the largest that "
            "steps of this length can show."
        )
    small = angle < 1e-8  # where tan x = x, to the last digit
    return torch.where(small, steps, 2 * torch.tan(angle / 2) / torch.where(small, 1, omega))


def implicitness(method: str, alpha: float | None, prewarp: object) -> float | None:
    """Return the weight α of a method of the gbt family; None for the others."""
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


def in_steps(system: StateSpace, steps: Tensor, dt_per: str | None) -> StateSpace:
    """Measure time in steps: replace A and B by A dt and B dt, in double precision."""
    dtype = double_dtype(system.dtype)
    A = system.A.to(dtype)
    B, C, D = (None if matrix is None else matrix.to(dtype) for matrix in system.matrices())
    if dt_per == "step":  # a time axis goes after the batch axes
        A = A[..., None]
        B, C, D = (None if matrix is None else matrix.unsqueeze(-3) for matrix in (B, C, D))
    rows = steps if dt_per == "state" else steps.unsqueeze(-1)
    diagonal = A.as_diagonal()
    if diagonal is not None:
        structure: Structure = Diagonal(diagonal * rows)
    else:
        structure = Dense(A.to_dense() * rows.unsqueeze(-1))
    assert B is not None, "a StateSpace has a B"
    return StateSpace(structure, B * rows.unsqueeze(-1), C, D)


def in_units(system: StateSpace, units: Tensor) -> StateSpace:
    """Measure state i in units of `units[i]`, powers of two, which rounds nothing."""
    C = (
        torch.diag_embed(units).to(system.dtype)
        if system.C is None
        else system.C * units.unsqueeze(-2)
    )
    A = Dense(system.A.to_dense() * ratio(units))
    return StateSpace(A, system.B / units.unsqueeze(-1), C, system.D)


def ratio(units: Tensor) -> Tensor:
    """Compute the factors of a matrix's entries when states change their units."""
    return units.unsqueeze(-2) / units.unsqueeze(-1)
