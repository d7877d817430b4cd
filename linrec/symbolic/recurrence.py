"""The recurrence, with sympy expressions for entries."""

# sympy's annotations are narrower, or wider, than what it does.
# pyright: reportReturnType=false

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Protocol

import sympy

from linrec.symbolic.binding import Bindable, Evaluated, Numerical, numerical
from linrec.symbolic.functions import Power, characteristic_polynomial, function_of_matrix
from linrec.symbolic.matrices import Matrix, as_expression, tidied
from linrec.symbolic.stability import Conditions, schur
from linrec.symbolic.systems import Labels, System


class Source(Protocol):
    """What a discretised recurrence was made from, and what is better asked of that."""

    def evaluated(self, values: Mapping[str, Any], steps: int | None) -> Evaluated:
        """Compute A, B, C and D."""
        ...

    def power(self, k: sympy.Expr) -> Matrix | None:
        """Compute A^k; None if nothing better is known than the power of A."""
        ...

    def stability_conditions(self) -> Conditions | None:
        """State when it is stable; None if nothing better is known than what A says."""
        ...

    def subs(self, values: Mapping[sympy.Symbol, object]) -> Any:
        """Put expressions in the place of parameters, and discretise."""
        ...


@dataclass(frozen=True, init=False)
class LinearRecurrence(System, Bindable):
    """A linear recurrence of n states, m inputs and p outputs, of sympy expressions.

        x_t = A x_{t-1} + B u_t        y_t = C x_t + D u_t        t = 0 … T-1

    The symbols in the matrices are its parameters; `bind` gives them values, and so makes a
    `linrec.LinearRecurrence`. Matrices may depend on `time`, which counts the steps from 0.

    Args:
        A (n, n): a sympy matrix, or nested lists of expressions and numbers.
        B (n, m): how inputs drive the states. None: directly, m = n.
        C (p, n): how outputs are read from the states. None: outputs are the states.
        D (p, m): how inputs are added to the outputs. None: they are not.
        time: the symbol of time.
        states: a name for each state, as functions of time. None: x1(t), x2(t), …; for
            inputs and outputs likewise.

    Raises:
        ValueError: the shapes do not belong together.
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
    source: Source | None = field(default=None, compare=False, repr=False)

    def __init__(self, *matrices: object, source: Source | None = None, **names: Any) -> None:
        super().__init__(*matrices, **names)
        object.__setattr__(self, "source", source)

    def before(self) -> Labels:
        """Name what A multiplies: the states one step earlier."""
        return tuple(state.subs(self.time, self.time - 1) for state in self.states)

    def after(self) -> Labels:
        """Name what the update gives: the states."""
        return self.states

    def impulse_response(self, step: sympy.Expr | int) -> sympy.Expr | Matrix:
        """Compute what an impulse on each input gives on each output, after k steps.

            h_0 = C B + D        h_k = C A^k B

        Args:
            step: k, a number, or a symbol to get the formula.

        Returns:
            The response; of several inputs or outputs the matrix `(p, m)`.

        Raises:
            ValueError: A^k has no formula, or the system depends on time.
        """
        self.refuse_varying("impulse_response")
        k = as_expression("step", step)
        power = self.A**k if k.is_Integer else self.power(k)
        at_once = self.D * sympy.KroneckerDelta(k, 0)
        response = tidied(self.C * power * self.B + at_once)
        return response[0, 0] if response.shape == (1, 1) else response

    def stability_conditions(self) -> Conditions:
        """State when all poles are inside the unit circle, by the criterion of Jury.

        Returns:
            Inequalities between the parameters that hold together if and only if the recurrence
            is stable; none if it always is, and `false` if it never is.

        Raises:
            ValueError: the system is complex, or depends on time.
        """
        self.refuse_varying("stability_conditions")
        known = None if self.source is None else self.source.stability_conditions()
        return (
            known
            if known is not None
            else schur(characteristic_polynomial(self.A, sympy.Dummy("z")))
        )

    def subs(self, values: Mapping[sympy.Symbol, object]) -> "LinearRecurrence":
        """Put expressions in the place of parameters; what was discretised is so anew.

        Args:
            values: what to put in the place of which symbol.

        Returns:
            A recurrence.
        """
        return super().subs(values) if self.source is None else self.source.subs(values)

    def power(self, k: sympy.Expr) -> Matrix:
        """Compute A^k, of what was discretised as exp(A k dt) if it is that."""
        known = None if self.source is None else self.source.power(k)
        return function_of_matrix(Power(k), self.A) if known is None else known

    @cached_property
    def numerical(self) -> Numerical:
        """The program that computes the matrices; made once, it depends on nothing else."""
        return numerical(self.matrices, self.parameters, self.time if self.varying else None)

    def evaluated(self, values: Mapping[str, Any], steps: int | None) -> Evaluated:
        """Compute A, B, C and D; of what was discretised not from the formula.

        The formula may divide 0 by 0 where parameters meet, which `linrec.discretize` does not.
        """
        if (steps is None) == self.varying:
            depends = "depend" if self.varying else "do not depend"
            raise ValueError(
                f"`steps` is {steps} and the matrices {depends} on {self.time}: expected how many "
                "steps there are where they do, `bind(steps=100, …)`, and None where they do not."
            )
        if self.source is not None:
            return self.source.evaluated(values, steps)
        return self.numerical.evaluate(values, steps)
