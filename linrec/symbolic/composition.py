"""Composition of two symbolic systems, in series or in parallel."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import sympy

from linrec import composition, systems
from linrec.symbolic.binding import Evaluated
from linrec.symbolic.matrices import Matrix, tidy_matrix
from linrec.symbolic.parameters import parameters_of
from linrec.symbolic.recurrence import LinearRecurrence
from linrec.symbolic.stability import Conditions
from linrec.symbolic.state_space import StateSpace

Compose = Callable[[systems.LinearRecurrence, systems.LinearRecurrence], systems.LinearRecurrence]
Kind = TypeVar("Kind", LinearRecurrence, StateSpace)


def series(first: Kind, second: Kind) -> Kind:
    """Feed the outputs of one system to another: u → first → second → y, as `linrec.series`.

    Args:
        first: the system that takes the inputs.
        second: a system of the same kind, with as many inputs as `first` has outputs.

    Returns:
        The composed system of n₁ + n₂ states, first those of `first`, then those of `second`.

    Raises:
        ValueError: the outputs of `first` do not fit the inputs of `second`.
        TypeError: the systems are of different kinds.

    Example:
        >>> import sympy
        >>> from linrec import symbolic
        >>> a, z = sympy.symbols("a z")
        >>> once = symbolic.LinearRecurrence([[a]])
        >>> symbolic.series(once, once).transfer_function(z)
        z**2/(-a + z)**2
    """
    check_kinds(first, second)
    if first.output_size != second.input_size:
        raise ValueError(
            f"`first` has {first.output_size} outputs and `second` {second.input_size} inputs: "
            "expected as many. Give `first` a C, or `second` a B, that makes them meet."
        )
    through = second.B * first.C
    # In discrete time the second system sees the first one's output in the same step.
    corner = through * first.A if first.discrete else through
    driven = second.B * first.D + (through * first.B if first.discrete else 0 * second.B * first.D)
    A = sympy.Matrix.vstack(
        sympy.Matrix.hstack(first.A, sympy.zeros(first.state_size, second.state_size)),
        sympy.Matrix.hstack(corner, second.A),
    )
    B = sympy.Matrix.vstack(first.B, driven)
    C = sympy.Matrix.hstack(second.D * first.C, second.C)
    matrices = (A, B, C, Matrix(second.D * first.D))
    return join(first, second, matrices, composition.series)


def parallel(first: Kind, second: Kind) -> Kind:
    """Feed the same inputs to two systems and add their outputs, as `linrec.parallel`.

    Args:
        first: a system.
        second: a system of the same kind, with as many inputs and outputs.

    Returns:
        The composed system of n₁ + n₂ states.

    Raises:
        ValueError: the numbers of inputs or outputs differ.
        TypeError: the systems are of different kinds.

    Example:
        >>> import sympy
        >>> from linrec import symbolic
        >>> a, b = sympy.symbols("a b")
        >>> both = symbolic.parallel(
        ...     symbolic.LinearRecurrence([[a]]), symbolic.LinearRecurrence([[b]])
        ... )
        >>> both.impulse_response(sympy.Symbol("k"))
        a**k + b**k
    """
    check_kinds(first, second)
    sizes = [(system.input_size, system.output_size) for system in (first, second)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"`first` has {sizes[0][0]} inputs and {sizes[0][1]} outputs, `second` {sizes[1][0]} "
            f"and {sizes[1][1]}: expected the same numbers of both."
        )
    A = sympy.diag(first.A, second.A)
    B = sympy.Matrix.vstack(first.B, second.B)
    C = sympy.Matrix.hstack(first.C, second.C)
    return join(first, second, (A, B, C, Matrix(first.D + second.D)), composition.parallel)


def check_kinds(first: object, second: object) -> None:
    """Refuse systems of different kinds, or whose clocks differ."""
    kinds = [type(system).__name__ for system in (first, second)]
    known = isinstance(first, LinearRecurrence | StateSpace)
    if not known or not isinstance(second, type(first)):
        raise TypeError(
            f"`first` is a {kinds[0]} and `second` a {kinds[1]}: expected two symbolic systems of "
            "a kind. Discretise the continuous one first, `system.discretize(dt)`; where there is "
            "no closed form, `bind` both and compose the numbers with `linrec.series`."
        )
    if first.time != second.time:
        raise ValueError(
            f"`first` is in the time {first.time} and `second` in {second.time}: expected one "
            "symbol of time."
        )


def join(
    first: Kind, second: Kind, matrices: tuple[sympy.MatrixBase, ...], compose: Compose
) -> Kind:
    """Make the composed system; names of states are kept if they are all different.

    Discretised parts are still evaluated by `linrec.discretize` after composition, because the
    formulas divide 0 by 0 where parameters coincide.
    """
    states = (*first.states, *second.states)
    names: dict[str, Any] = {"states": states} if len(set(states)) == len(states) else {}
    if isinstance(first, LinearRecurrence) and isinstance(second, LinearRecurrence):
        if first.source is not None or second.source is not None:
            names["source"] = Composed(first, second, compose)
    tidy = (tidy_matrix(matrix) for matrix in matrices)
    return type(first)(*tidy, time=first.time, inputs=first.inputs, **names)


@dataclass(frozen=True)
class Composed:
    """The parts of a composition, at least one of them discretised.

    Args:
        first: the first system.
        second: the second one.
        compose: `linrec.series` or `linrec.parallel`.
    """

    first: LinearRecurrence
    second: LinearRecurrence
    compose: Compose

    def evaluated(self, values: Mapping[str, Any], steps: int | None) -> Evaluated:
        """Compute A, B, C and D of each, and compose the numbers."""
        made = []
        for system in (self.first, self.second):
            own = {symbol.name: values[symbol.name] for symbol in system.parameters}
            own_steps = steps if system.time_varying else None
            matrices = system.evaluated(own, own_steps)
            made.append(systems.LinearRecurrence(*matrices, time_varying=system.time_varying))
        both = self.compose(*made)
        return both.A, both.B, both.C, both.D

    def check(self, values: Mapping[str, Any]) -> None:
        """Refuse parts that cannot be discretised."""
        for system in (self.first, self.second):
            system.check({symbol.name: values[symbol.name] for symbol in system.parameters})

    @property
    def parameters(self) -> tuple[sympy.Symbol, ...]:
        """List the symbols of both."""
        return parameters_of((*self.first.parameters, *self.second.parameters))

    def power(self, k: sympy.Expr) -> Matrix | None:
        """Compute A^k; None for a series, with no better formula than the power of A."""
        if self.compose is composition.series:
            return None
        return Matrix(sympy.diag(self.first.power(k), self.second.power(k)))

    def stability_conditions(self) -> Conditions:
        """State when both are stable."""
        conditions = (*self.first.stability_conditions(), *self.second.stability_conditions())
        if sympy.false in conditions:
            return (sympy.false,)
        return tuple(dict.fromkeys(conditions))

    def subs(self, values: Mapping[sympy.Symbol, object]) -> LinearRecurrence:
        """Substitute expressions for parameters of both."""
        first, second = self.first.subs(values), self.second.subs(values)
        return (
            series(first, second) if self.compose is composition.series else parallel(first, second)
        )
