"""The linear recurrence whose entries are sympy expressions."""

# sympy's annotations are narrower, or wider, than its behaviour.
# pyright: reportReturnType=false

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Protocol

import sympy

from linrec.symbolic.binding import Bindable, Evaluated, Numerical, check_steps, numerical
from linrec.symbolic.functions import Power, function_of_matrix
from linrec.symbolic.matrices import (
    Matrix,
    as_expression,
    exact,
    scalar_or_matrix,
    tidy_matrix,
    to_float,
)
from linrec.symbolic.parameters import parameters_of, refuse_namesakes
from linrec.symbolic.polynomials import apply_power
from linrec.symbolic.stability import Conditions, schur
from linrec.symbolic.systems import System
from linrec.symbolic.typeset import Labels


class Provenance(Protocol):
    """The continuous system behind a discretised recurrence, used where it gives better answers."""

    def evaluated(self, values: Mapping[str, Any], steps: int | None) -> Evaluated:
        """Compute A, B, C and D."""
        ...

    def check(self, values: Mapping[str, Any]) -> None:
        """Refuse values that give no valid system."""
        ...

    @property
    def parameters(self) -> tuple[sympy.Symbol, ...]:
        """List the symbols that `evaluated` needs values for."""
        ...

    def power(self, k: sympy.Expr) -> Matrix | None:
        """Compute A^k; None if no better formula is known than the power of A."""
        ...

    def stability_conditions(self) -> Conditions | None:
        """State the conditions of stability; None to derive them from A."""
        ...

    def subs(self, values: Mapping[sympy.Symbol, object]) -> Any:
        """Substitute expressions for parameters, and discretise."""
        ...


@dataclass(frozen=True, init=False)
class LinearRecurrence(System, Bindable):
    """A linear recurrence with n states, m inputs and p outputs, made of sympy expressions.

        x_t = A x_{t-1} + B u_t        y_t = C x_t + D u_t        t = 0 … T-1

    The symbols in the matrices are its parameters; `bind` gives them values and returns a
    `linrec.LinearRecurrence`. Matrices may depend on `time`, which counts the steps from 0.

    Args:
        A (n, n): a sympy matrix, or nested lists of expressions and numbers.
        B (n, m): how inputs drive the states. None: directly, m = n.
        C (p, n): how outputs are read from the states. None: outputs are the states.
        D (p, m): how inputs are added to the outputs. None: not at all.
        time: the symbol of time.
        states: a name for each state, as functions of time. None: x1(t), x2(t), …; inputs and
            outputs can be named in the same way.

    Raises:
        ValueError: the shapes do not match.
        TypeError: an entry is a string; strings are never evaluated.

    Example:
        >>> import sympy
        >>> from linrec import symbolic
        >>> decay = sympy.Symbol("a", positive=True)
        >>> average = symbolic.LinearRecurrence([[decay]], [[1 - decay]])
        >>> average.impulse_response(sympy.Symbol("k"))
        a**k*(1 - a)
        >>> average.bind(a=0.5).B
        tensor([[0.5000]])
    """

    discrete: ClassVar[bool] = True
    source: Provenance | None = field(default=None, compare=False, repr=False)

    def __init__(self, *matrices: object, source: Provenance | None = None, **names: Any) -> None:
        super().__init__(*matrices, **names)
        object.__setattr__(self, "source", source)

    @cached_property
    def parameters(self) -> tuple[sympy.Symbol, ...]:
        """List the symbols that `bind` needs values for, by name."""
        # Some that the numbers depend on may have cancelled in the formula.
        known = () if self.source is None else self.source.parameters
        return parameters_of((*self.matrices, *known), self.time)

    def before(self) -> Labels:
        """Name the signals that A multiplies: the states one step earlier."""
        return tuple(state.subs(self.time, self.time - 1) for state in self.states)

    def after(self) -> Labels:
        """Name the signals that an update computes: the states."""
        return self.states

    def impulse_response(self, step: sympy.Expr | int) -> sympy.Expr | Matrix:
        """Compute the impulse response after k steps.

            h_0 = C B + D        h_k = C A^k B

        Args:
            step: k, a number, or a symbol for the formula, which is valid for k = 0, 1, 2, …. For
                numbers k < 0, before the impulse, the response is 0.

        Returns:
            The response; for several inputs or outputs, the matrix `(p, m)`.

        Raises:
            ValueError: A^k has no formula, k is not an integer, or the system depends on time.
        """
        self.refuse_time_varying("impulse_response")
        k = as_expression("step", step)
        refuse_namesakes(k, self.parameters)
        if k.is_Float and float(k).is_integer():
            k = sympy.Integer(int(k))
        if k.is_integer is False or k.is_finite is False or k is sympy.nan:
            raise ValueError(f"`step` is {k}: expected a whole number of steps, or a symbol.")
        if k.is_negative:  # before the impulse
            return scalar_or_matrix(sympy.zeros(self.output_size, self.input_size))
        if k.is_Integer:
            power = apply_power(exact(self.A), exact(self.B), int(k))
            response = tidy_matrix(self.C * power + (self.D if k == 0 else 0 * self.D))
            kept = (self.A, self.B) == (exact(self.A), exact(self.B))
            return scalar_or_matrix(response if kept else Matrix(response.applyfunc(to_float)))
        count = sympy.Dummy("k", integer=True, nonnegative=True)
        response = self.C * self.power(count) * self.B + self.D * sympy.KroneckerDelta(count, 0)
        return scalar_or_matrix(Matrix(tidy_matrix(response).subs(count, k)))

    def stability_conditions(self) -> Conditions:
        """State when all poles are inside the unit circle, by the criterion of Jury.

        Returns:
            Inequalities between the parameters that all hold if and only if the recurrence is
            stable; none if it always is, and `false` if it never is.

        Raises:
            ValueError: the system is complex, or depends on time.
        """
        self.refuse_time_varying("stability_conditions")
        known = None if self.source is None else self.source.stability_conditions()
        return known if known is not None else schur(self.A)

    def subs(self, values: Mapping[sympy.Symbol, object]) -> "LinearRecurrence":
        """Substitute expressions for parameters, and discretise again if this was discretised.

        Args:
            values: the expression for each symbol.

        Returns:
            A recurrence.
        """
        return super().subs(values) if self.source is None else self.source.subs(values)

    def power(self, k: sympy.Expr) -> Matrix:
        """Compute A^k, as exp(A k dt) if the discrete A is exp(A dt)."""
        known = None if self.source is None else self.source.power(k)
        return function_of_matrix(Power(k), self.A) if known is None else known

    @cached_property
    def numerical(self) -> Numerical:
        """The function that computes the matrices, made once."""
        return numerical(self.matrices, self.parameters, self.time if self.time_varying else None)

    def check(self, values: Mapping[str, Any]) -> None:
        """Refuse a system that cannot be discretised."""
        if self.source is not None:
            self.source.check(values)

    def evaluated(self, values: Mapping[str, Any], steps: int | None) -> Evaluated:
        """Compute A, B, C and D, numerically where the system was discretised.

        The formula may divide 0 by 0 where parameters coincide; `linrec.discretize` does not.
        """
        check_steps(steps)
        if (steps is None) == self.time_varying:
            depends = "depend" if self.time_varying else "do not depend"
            raise ValueError(
                f"`steps` is {steps} and the matrices {depends} on {self.time}: expected how many "
                "steps there are where they do, `bind(steps=100, …)`, and None where they do not."
            )
        if self.source is not None:
            return self.source.evaluated(values, steps)
        return self.numerical.evaluate(values, steps)
