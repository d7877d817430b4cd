"""The continuous-time system whose entries are sympy expressions, and its discretisation."""

# sympy's annotations are narrower, or wider, than its behaviour.
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import sympy
from torch import Tensor

from linrec import systems
from linrec._tensors.known_values import is_seen
from linrec.discretization import discretize, implicitness
from linrec.symbolic import realization as forms
from linrec.symbolic.binding import (
    Bindable,
    Evaluated,
    Numerical,
    blocks_of,
    choose_dtype,
    numerical,
)
from linrec.symbolic.functions import Exponential, function_of_matrix
from linrec.symbolic.matrices import (
    Matrix,
    as_expression,
    block_size,
    scalar_or_matrix,
    tidy_matrix,
)
from linrec.symbolic.parameters import (
    as_values,
    both,
    in_double,
    parameters_of,
    refuse_namesakes,
    replacements,
)
from linrec.symbolic.polynomials import NoClosedForm
from linrec.symbolic.recurrence import LinearRecurrence
from linrec.symbolic.sampling import Step, closed_form
from linrec.symbolic.stability import Conditions, hurwitz
from linrec.symbolic.systems import System
from linrec.symbolic.torch_lowering import TorchFunction, lower
from linrec.symbolic.typeset import Labels


@dataclass(frozen=True, init=False)
class StateSpace(System):
    """A linear continuous-time system with n states, m inputs and p outputs, of expressions.

        x'(t) = A x(t) + B u(t)        y(t) = C x(t) + D u(t)

    The symbols in the matrices are its parameters. `discretize` makes a recurrence from it, and
    `bind` a `linrec.StateSpace`.

    Args:
        A (n, n): a sympy matrix, or nested lists of expressions and numbers, in 1 / unit of time.
        B (n, m): how inputs drive the states. None: directly, m = n.
        C (p, n): how outputs are read from the states. None: outputs are the states.
        D (p, m): how inputs are added to the outputs. None: not at all.
        time: the symbol of time.
        states: a name for each state, as functions of time. None: x1(t), x2(t), …; inputs and
            outputs can be named in the same way.

    Raises:
        ValueError: the shapes do not match, or the matrices depend on time.
        TypeError: an entry is a string; strings are never evaluated.

    Example:
        >>> import sympy
        >>> from linrec import symbolic
        >>> tau, dt = sympy.symbols("tau dt", positive=True)
        >>> leaky = symbolic.StateSpace([[-1 / tau]], [[1 / tau]])
        >>> leaky.discretize(dt).A
        Matrix([[exp(-dt/tau)]])
    """

    discrete: ClassVar[bool] = False

    def __init__(self, *matrices: object, **names: Any) -> None:
        super().__init__(*matrices, **names)
        if self.time_varying:
            raise ValueError(
                f"The matrices depend on {self.time}: expected a time-invariant system in "
                "continuous time. Write the difference equation of its steps instead, whose "
                "coefficients may depend on time."
            )

    @classmethod
    def from_delay(
        cls,
        theta: object,
        numerator: int,
        denominator: int,
        realization: str = "balanced",
    ) -> Self:
        """Approximate the delay u(t - θ), whose transfer function exp(-θ s) is not rational.

        Args:
            theta: the delay, in the unit of time; a symbol or a number.
            numerator: the degree p of the Padé approximant's numerator, at most q.
            denominator: the degree q of its denominator; the number of states.
            realization: as in `from_transfer_function`.

        Returns:
            The system. With p = q part of the input passes through without delay (D is not zero);
            with p < q nothing does.

        Raises:
            ValueError: the degrees are not integers, or p is larger than q.
        """
        s = sympy.Dummy("s")
        transfer = forms.pade(as_expression("theta", theta), numerator, denominator, s)
        return cls.from_transfer_function(transfer, s, realization)

    def before(self) -> Labels:
        """Name the signals that A multiplies: the states."""
        return self.states

    def after(self) -> Labels:
        """Name the signals that the equations determine: the derivatives of the states."""
        return tuple(sympy.diff(state, self.time) for state in self.states)

    def impulse_response(self, time: sympy.Expr) -> sympy.Expr | Matrix:
        """Compute the impulse response, C exp(A t) B.

        Args:
            time: t, a number or an expression; the formula is valid for t > 0. For numbers t < 0,
                before the impulse, the response is 0.

        Returns:
            The response; for several inputs or outputs, the matrix `(p, m)`.

        Raises:
            ValueError: exp(A t) has no formula; t is 0 and an impulse passes through D.
        """
        time = as_expression("time", time)
        refuse_namesakes(time, self.parameters)
        if time.is_real is False or time.is_finite is False or time is sympy.nan:
            raise ValueError(f"`time` is {time}: expected a real time, in the unit of the system.")
        if time.is_negative:  # before the impulse
            return scalar_or_matrix(sympy.zeros(self.output_size, self.input_size))
        if time.is_zero and any(self.D):
            raise ValueError(
                "`time` is 0 and the system has a D, through which an impulse passes as an "
                "impulse: expected a time t > 0."
            )
        at = sympy.Dummy("t", positive=True)
        power = function_of_matrix(Exponential(at), self.A).subs(at, time)
        return scalar_or_matrix(tidy_matrix(self.C * power * self.B))

    def stability_conditions(self) -> Conditions:
        """State when all poles have a negative real part, by the criterion of Routh and Hurwitz.

        Returns:
            Inequalities between the parameters that all hold if and only if the system is stable;
            none if it always is, and `false` if it never is.

        Raises:
            ValueError: the system is complex.
        """
        return hurwitz(self.A)

    def discretize(
        self,
        dt: object = 1,
        method: str = "zoh",
        *,
        alpha: float | None = None,
        prewarp_frequency: object | None = None,
    ) -> "LinearRecurrence | Discretized":
        """Turn the system into a recurrence of steps of length `dt`, as `linrec.discretize` does.

        Args:
            dt: the length of a step, in the unit of time: a symbol, which becomes a parameter, or
                a number.
            method: one of the methods of `linrec.discretize`.
            alpha: for "gbt", how implicit it is.
            prewarp_frequency: for "bilinear", the angular frequency at which the frequency
                response is preserved, an expression or a number, from 0 to less than π/dt.

        Returns:
            The recurrence in closed form; if there is none, a `Discretized`, which can be bound in
            the same way. Both are evaluated by `linrec.discretize`, which is accurate even where
            the formula divides 0 by 0.

        Raises:
            ValueError: an unknown method, a step that is not positive, "impulse" with a D, or a
                frequency of π/dt or more.
        """
        prewarp = prewarp_frequency
        prewarp = None if prewarp is None else as_expression("prewarp_frequency", prewarp)
        step = Step(as_expression("dt", dt), method, alpha, prewarp)
        step.check(self.D)
        if self.time in step.dt.free_symbols:
            raise ValueError(
                f"`dt` is {step.dt} and {self.time} is the time of the system: expected another "
                "symbol for the length of a step."
            )
        unevaluated = Discretized(self, step)
        try:
            matrices = closed_form(*self.matrices, step)
        except NoClosedForm:
            return unevaluated
        names = {"states": self.states, "inputs": self.inputs, "outputs": self.outputs}
        return LinearRecurrence(*matrices, time=self.time, source=unevaluated, **names)

    @cached_property
    def numerical(self) -> Numerical:
        """The program that computes the matrices; made once, it depends on nothing else."""
        return numerical(self.matrices, self.parameters)

    def bind(
        self, values: Mapping[Any, Any] | None = None, /, **parameters: Any
    ) -> systems.StateSpace:
        """Give the parameters values: numbers, or tensors, which keep their gradients.

        Args:
            values: values by name or by symbol, as well as or instead of `parameters`.
            parameters (*batch): a value for each parameter, by name. Batch axes broadcast, and
                bind a batch of systems.

        Returns:
            The system, in the dtype of the tensors, or torch's default if there are none. A
            diagonal or block-diagonal A is stored as such.

        Raises:
            ValueError: a value is missing, unknown, or not what its symbol was declared to be.
        """
        given = as_values(self.parameters, both(values, parameters))
        A, B, C, D = self.numerical.evaluate(given)
        system = systems.StateSpace(A, B, C, D)
        return system.to(choose_dtype(system.dtype, given))


@dataclass(frozen=True)
class Discretized(Bindable):
    """A discretisation that is not evaluated until there are numbers.

    Args:
        system: the continuous-time system.
        step: the step length and the method.
    """

    system: StateSpace
    step: Step

    @cached_property
    def parameters(self) -> tuple[sympy.Symbol, ...]:
        """List the symbols that `bind` needs values for, by name."""
        of_step = (self.step.dt, self.step.angle)
        return parameters_of((*self.system.matrices, *of_step), self.system.time)

    @cached_property
    def numerical(self) -> Numerical:
        """The function that computes A dt and B dt, of a system with step length 1."""
        A, B, C, D = self.system.matrices
        dt = self.step.dt
        return numerical((A * dt, B * dt, C, D), self.parameters)

    def evaluated(self, values: Mapping[str, Any], steps: int | None) -> Evaluated:
        """Compute A, B, C and D by `linrec.discretize`; blocks stay blocks."""
        if steps is not None:
            raise ValueError(f"`steps` is {steps}: expected None, since no matrix depends on time.")
        A, B, C, D = self.numerical.evaluate(values)
        system = systems.StateSpace(A, B, C, D)
        options: dict[str, Any] = {"alpha": self.step.alpha}
        if self.step.prewarp is not None:
            options["prewarp_frequency"] = self.warping(values)
        made = discretize(system, 1.0, self.step.method, dt_per="system", **options)
        return blocks_of(made.A, block_size(self.system.A)), made.B, made.C, made.D

    def warping(self, values: Mapping[str, Any]) -> Tensor:
        """Compute the preserved frequency in radians per step, `(*batch)`."""
        one, angle = Matrix([[1]]), Matrix([[self.step.angle]])
        program = numerical((angle, one, one, Matrix([[0]])), self.parameters)
        result = program.evaluate(values)[0].to_dense()[..., 0, 0]
        if is_seen(~((result >= 0) & (result < math.pi))):
            raise ValueError(
                f"`prewarp_frequency` times `dt` is {self.step.angle}, with a value outside of 0 "
                "to π: expected an angular frequency from 0 to less than π/dt."
            )
        return result

    @cached_property
    def length(self) -> TorchFunction:
        """The function that computes dt."""
        return lower(self.parameters, [self.step.dt])

    def check(self, values: Mapping[str, Any]) -> None:
        """Refuse a step that is not positive, unless its symbol was declared positive."""
        if self.step.dt.is_positive:
            return
        (dt,) = self.length([in_double(name, value) for name, value in values.items()])
        if is_seen(~(dt.real > 0)):
            raise ValueError(f"`dt` is {float(dt.real.min())}: expected a positive step.")

    @property
    def exponential(self) -> bool:
        """Whether the discrete A is exp(A dt)."""
        return implicitness(self.step.method, self.step.alpha, None) is None

    def power(self, k: sympy.Expr) -> Matrix | None:
        """Compute exp(A k dt); None for methods with a different discrete A."""
        if not self.exponential:
            return None
        at = sympy.Dummy("t", positive=True)
        return function_of_matrix(Exponential(at), self.system.A).subs(at, self.step.dt * k)

    def stability_conditions(self) -> Conditions | None:
        """State when exp(A dt) is stable, that is, when A is; None for other methods."""
        return self.system.stability_conditions() if self.exponential else None

    def subs(self, values: Mapping[sympy.Symbol, object]) -> "LinearRecurrence | Discretized":
        """Substitute expressions for parameters, and discretise.

        Args:
            values: the expression for each symbol.

        Returns:
            The recurrence, in closed form if there is one now.
        """
        exact = replacements((*self.parameters, self.system.time), values)
        dt, prewarp = self.step.dt.subs(exact, simultaneous=True), self.step.prewarp
        options: dict[str, Any] = {"method": self.step.method, "alpha": self.step.alpha}
        if prewarp is not None:
            options["prewarp_frequency"] = prewarp.subs(exact, simultaneous=True)
        return self.system.subs(values).discretize(dt, **options)

    def latex(self) -> str:
        """Write the equations of the system, and the method of discretisation, as LaTeX."""
        dt = sympy.latex(self.step.dt)
        note = rf"\text{{{self.step.method}}},\ \Delta t = {dt}"
        return self.system.latex().replace(r"\end{aligned}", rf"\\ & {note} \end{{aligned}}")

    def _repr_latex_(self) -> str:
        """Show the system typeset in a notebook."""
        return rf"$\displaystyle {self.latex()}$"

    def __str__(self) -> str:
        step = f"in steps of {self.step.dt} ({self.step.method}), without a closed form"
        return f"{self.system}\n  {step}"
