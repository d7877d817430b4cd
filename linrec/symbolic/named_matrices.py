"""A, B, C and D as matrices of expressions: their sizes, parameters and names."""

# sympy's annotations are narrower, or wider, than its behaviour.
# pyright: reportArgumentType=false

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import sympy

from linrec.symbolic.matrices import Matrix, as_matrix, check_shape
from linrec.symbolic.parameters import parameters_of, replacements
from linrec.symbolic.typeset import Labels, labels


@dataclass(frozen=True, init=False)
class NamedMatrices:
    """A, B, C and D as matrices of sympy expressions, with names of states, inputs and outputs."""

    A: Matrix
    B: Matrix
    C: Matrix
    D: Matrix
    time: sympy.Symbol
    states: Labels = field(compare=False)
    inputs: Labels = field(compare=False)
    outputs: Labels = field(compare=False)

    def __init__(
        self,
        A: object,
        B: object | None = None,
        C: object | None = None,
        D: object | None = None,
        *,
        time: sympy.Symbol = sympy.Symbol("t"),  # noqa: B008  # symbols are values
        states: Sequence[sympy.Expr] | None = None,
        inputs: Sequence[sympy.Expr] | None = None,
        outputs: Sequence[sympy.Expr] | None = None,
    ) -> None:
        A = as_matrix("A", A)
        check_shape("A", A, A.cols, None)
        B = Matrix(sympy.eye(A.rows)) if B is None else as_matrix("B", B)
        C = Matrix(sympy.eye(A.rows)) if C is None else as_matrix("C", C)
        D = Matrix(sympy.zeros(C.rows, B.cols)) if D is None else as_matrix("D", D)
        check_shape("B", B, A.rows, None)
        check_shape("C", C, None, A.rows)
        check_shape("D", D, C.rows, B.cols)
        named = (
            ("states", "x", states, A.rows),
            ("inputs", "u", inputs, B.cols),
            ("outputs", "y", outputs, C.rows),
        )
        for name, matrix in zip("ABCD", (A, B, C, D), strict=True):
            object.__setattr__(self, name, matrix)
        object.__setattr__(self, "time", time)
        for name, letter, given, count in named:
            chosen = labels(letter, count, time) if given is None else tuple(given)
            if len(chosen) != count:
                raise ValueError(f"`{name}` has {len(chosen)} names: expected {count}.")
            object.__setattr__(self, name, chosen)
        parameters_of(self.matrices, time)  # refuses two symbols with the same name

    @property
    def matrices(self) -> tuple[Matrix, Matrix, Matrix, Matrix]:
        """List A, B, C and D."""
        return self.A, self.B, self.C, self.D

    @cached_property
    def parameters(self) -> tuple[sympy.Symbol, ...]:
        """List the symbols that `bind` needs values for, by name."""
        return parameters_of(self.matrices, self.time)

    @property
    def state_size(self) -> int:
        """The number of states."""
        return self.A.rows

    @property
    def input_size(self) -> int:
        """The number of inputs."""
        return self.B.cols

    @property
    def output_size(self) -> int:
        """The number of outputs."""
        return self.C.rows

    @property
    def time_varying(self) -> bool:
        """Whether the matrices depend on time."""
        return any(self.time in matrix.free_symbols for matrix in self.matrices)

    def subs(self, values: Mapping[sympy.Symbol, object]) -> Self:
        """Substitute expressions for parameters.

        Args:
            values: the expression for each symbol; all are substituted at once.

        Returns:
            A system of the same kind.

        Raises:
            ValueError: a symbol has the name of a parameter without being it, or an expression
                contradicts the assumptions of its parameter.
        """
        known = replacements((*self.parameters, self.time), values)
        return self.rebuilt(*(m.subs(known, simultaneous=True) for m in self.matrices))

    def rebuilt(self, A: object, B: object, C: object, D: object, **names: Labels) -> Self:
        """Make a system of the same kind and time, with the same names unless others are given."""
        kept = {"states": self.states, "inputs": self.inputs, "outputs": self.outputs}
        return type(self)(A, B, C, D, time=self.time, **(kept | names))

    def refuse_time_varying(self, what: str) -> None:
        """Refuse a time-varying system."""
        if self.time_varying:
            raise ValueError(
                f"`{what}` got a system whose matrices depend on {self.time}: expected a "
                f"time-invariant one. Pass one moment of it, `system.subs({{{self.time}: 3}})`."
            )
