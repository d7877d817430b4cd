"""Discretisation in closed form, by the methods and formulas of `linrec.discretize`."""

# sympy's annotations are narrower, or wider, than its behaviour.
# pyright: reportArgumentType=false

from dataclasses import dataclass

import sympy

from linrec.discretization import implicitness
from linrec.symbolic.functions import Exponential, function_of_matrix
from linrec.symbolic.matrices import Matrix, tidy_matrix
from linrec.symbolic.polynomials import inverse

NOT_FINITE = (sympy.nan, sympy.oo, -sympy.oo, sympy.zoo)


@dataclass(frozen=True)
class Step:
    """The length of the steps and the method of discretisation.

    Args:
        dt: the length of a step, in the unit of time of the system.
        method: one of the methods of `linrec.discretize`.
        alpha: for "gbt", how implicit it is.
        prewarp: for "bilinear", the angular frequency at which the response is preserved, per unit
            of time.
    """

    dt: sympy.Expr
    method: str = "zoh"
    alpha: float | None = None
    prewarp: sympy.Expr | None = None

    @property
    def angle(self) -> sympy.Expr:
        """The preserved frequency in radians per step, ω dt; 0 if there is none."""
        return sympy.S.Zero if self.prewarp is None else self.prewarp * self.dt

    @property
    def warped(self) -> sympy.Expr:
        """The step length that preserves it, 2 tan(ω dt / 2) / ω."""
        if self.prewarp is None or self.prewarp.is_zero:
            return self.dt
        return 2 * sympy.tan(self.angle / 2) / self.prewarp

    def check(self, through: Matrix) -> None:
        """Refuse the arguments that the numeric discretisation would refuse."""
        implicitness(self.method, self.alpha, self.prewarp)
        if self.dt.is_nonpositive or self.dt in NOT_FINITE:
            raise ValueError(f"`dt` is {self.dt}: expected a positive step, and a finite one.")
        angle = self.angle
        beyond = angle.is_number and (angle.is_real is not True or not 0 <= angle < sympy.pi)
        if beyond or angle.is_negative or angle in NOT_FINITE:
            raise ValueError(
                f"`prewarp_frequency` is {self.prewarp}: expected an angular frequency from 0 to "
                f"less than π/dt = {sympy.pi / self.dt}, in radians per unit of time."
            )
        if self.method == "impulse" and any(through):
            raise ValueError(
                '`method` is "impulse" and the system has a D: an impulse through D cannot be '
                "sampled. Expected D = None; discretise without it and add `D` afterwards."
            )


def closed_form(
    A: Matrix, B: Matrix, C: Matrix, D: Matrix, step: Step
) -> tuple[Matrix, Matrix, Matrix, Matrix]:
    """Compute the discrete A, B, C, D (derived in linrec/discretization/methods.py).

    Raises:
        NoClosedForm: the exponential has no closed form.
    """
    alpha = implicitness(step.method, step.alpha, None)
    if alpha is not None:
        return bilinear(A, B, C, D, step.warped, sympy.nsimplify(alpha))
    turned = function_of_matrix(Exponential(step.dt), A)
    if step.method == "impulse":
        impulse = B * step.dt
        return turned, tidy_matrix(turned * impulse), C, tidy_matrix(C * impulse)
    held = function_of_matrix(Exponential(step.dt, 1), A) * B
    if step.method == "zoh":
        return turned, tidy_matrix(held), C, D
    # φ₂ as defined has dt² / dt: the inputs' slope is taken per step.
    ramped = function_of_matrix(Exponential(step.dt, 2), A) * B / step.dt
    return turned, tidy_matrix(held - ramped + turned * ramped), C, tidy_matrix(D + C * ramped)


def bilinear(
    A: Matrix, B: Matrix, C: Matrix, D: Matrix, dt: sympy.Expr, alpha: sympy.Expr
) -> tuple[Matrix, Matrix, Matrix, Matrix]:
    """Solve (I - α dt A) x_{t+1} = (I + (1-α) dt A) x_t + dt B (α u_{t+1} + (1-α) u_t)."""
    z, identity = dt * A, sympy.eye(A.rows)
    if alpha == 0:
        return tidy_matrix(identity + z), tidy_matrix(dt * B), C, D
    solve = inverse(identity - alpha * z)
    if solve is None:
        raise ValueError(f"The step {dt} is as long as a pole of the system is: expected another.")
    driven = solve * dt * B
    turned = solve * (identity + (1 - alpha) * z)
    return (
        tidy_matrix(turned),
        tidy_matrix(driven),
        tidy_matrix(C * solve),
        tidy_matrix(D + alpha * C * driven),
    )
