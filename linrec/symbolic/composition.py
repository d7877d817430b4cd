"""Two symbolic systems made into one: behind each other, or side by side."""

from typing import Any, TypeVar

import sympy

from linrec.symbolic.matrices import Matrix, tidied
from linrec.symbolic.recurrence import LinearRecurrence
from linrec.symbolic.state_space import StateSpace

Kind = TypeVar("Kind", LinearRecurrence, StateSpace)


def series(first: Kind, second: Kind) -> Kind:
    """Feed the outputs of one system to another: u → first → second → y, as `linrec.series`.

    Args:
        first: the system that takes the inputs.
        second: a system of the same kind, with as many inputs as `first` has outputs.

    Returns:
        The composed system of n₁ + n₂ states, the first one's before the second one's.

    Raises:
        ValueError: the outputs of one do not fit the inputs of the other.
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
    # In discrete time the second system sees what the first one makes of the input at once.
    corner = through * first.A if first.discrete else through
    driven = second.B * first.D + (through * first.B if first.discrete else 0 * second.B * first.D)
    A = sympy.Matrix.vstack(
        sympy.Matrix.hstack(first.A, sympy.zeros(first.state_size, second.state_size)),
        sympy.Matrix.hstack(corner, second.A),
    )
    B = sympy.Matrix.vstack(first.B, driven)
    C = sympy.Matrix.hstack(second.D * first.C, second.C)
    return joined(first, second, A, B, C, second.D * first.D)


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
    return joined(first, second, A, B, C, first.D + second.D)


def check_kinds(first: object, second: object) -> None:
    """Refuse systems of different kinds, or whose clocks differ."""
    kinds = [type(system).__name__ for system in (first, second)]
    known = isinstance(first, LinearRecurrence | StateSpace)
    if not known or not isinstance(second, type(first)):
        raise TypeError(
            f"`first` is a {kinds[0]} and `second` a {kinds[1]}: expected two symbolic systems of "
            "a kind. Discretise the continuous one first, `system.discretize(dt)`."
        )
    if first.time != second.time:
        raise ValueError(
            f"`first` is in the time {first.time} and `second` in {second.time}: expected one "
            "symbol of time."
        )


def joined(
    first: Kind,
    second: Kind,
    A: sympy.MatrixBase,
    B: sympy.MatrixBase,
    C: sympy.MatrixBase,
    D: sympy.MatrixBase,
) -> Kind:
    """Make the composed system; names of states are kept where no two are the same."""
    states = (*first.states, *second.states)
    names: dict[str, Any] = {"states": states} if len(set(states)) == len(states) else {}
    matrices = (tidied(Matrix(matrix)) for matrix in (A, B, C, D))
    return type(first)(*matrices, time=first.time, inputs=first.inputs, **names)
