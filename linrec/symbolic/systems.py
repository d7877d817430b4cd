"""The base of symbolic systems in continuous and in discrete time."""

# sympy's annotations are narrower, or wider, than what it does.
# pyright: reportArgumentType=false, reportReturnType=false

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Self

import sympy

from linrec.symbolic import realization as forms
from linrec.symbolic.functions import eigenvalues
from linrec.symbolic.matrices import (
    Matrix,
    as_matrix,
    check_shape,
    exact,
    tidy,
    to_float,
)
from linrec.symbolic.parameters import parameters_of, replacements
from linrec.symbolic.polynomials import resolvent
from linrec.symbolic.typeset import labels, matrix_equations, row_equations

Labels = tuple[sympy.Expr, ...]


@dataclass(frozen=True, init=False)
class System(ABC):
    """A, B, C and D as matrices of sympy expressions, with names of states, inputs and outputs."""

    A: Matrix
    B: Matrix
    C: Matrix
    D: Matrix
    time: sympy.Symbol
    states: Labels = field(compare=False)
    inputs: Labels = field(compare=False)
    outputs: Labels = field(compare=False)

    discrete: ClassVar[bool]

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
        parameters_of(self.matrices, time)  # refuses two symbols of one name

    @property
    def matrices(self) -> tuple[Matrix, Matrix, Matrix, Matrix]:
        """List A, B, C and D."""
        return self.A, self.B, self.C, self.D

    @cached_property
    def parameters(self) -> tuple[sympy.Symbol, ...]:
        """List the symbols that `bind` wants values for, by name."""
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
        """Put expressions in the place of parameters.

        Args:
            values: what to put in the place of which symbol; all at once.

        Returns:
            A system of the same kind.

        Raises:
            ValueError: a symbol has only the name of a parameter, or an expression is not what
                its parameter was declared to be.
        """
        known = replacements((*self.parameters, self.time), values)
        return self.rebuilt(*(m.subs(known, simultaneous=True) for m in self.matrices))

    def rebuilt(self, A: object, B: object, C: object, D: object, **names: Labels) -> Self:
        """Make a system of the same kind and time, of the same names unless others are given."""
        kept = {"states": self.states, "inputs": self.inputs, "outputs": self.outputs}
        return type(self)(A, B, C, D, time=self.time, **(kept | names))

    def poles(self) -> list[sympy.Expr]:
        """Compute the eigenvalues of A, as often as they occur.

        Returns:
            The poles: expressions, or indexed roots of polynomials whose coefficients are numbers.

        Raises:
            ValueError: they have no formula, or the system depends on time.
        """
        self.refuse_time_varying("poles")
        return eigenvalues(self.A, formulas=False)

    def transfer_function(self, variable: sympy.Symbol) -> sympy.Expr | Matrix:
        """Compute how outputs follow from inputs in the frequency domain.

            continuous  H(s) = C (s I - A)⁻¹ B + D
            discrete    H(z) = C (I - A / z)⁻¹ B + D

        Args:
            variable: s, or z.

        Returns:
            The rational function; of several inputs or outputs the matrix of them `(p, m)`.

        Raises:
            ValueError: the system depends on time, or has a parameter of that name.
        """
        self.refuse_time_varying("transfer_function")
        names = [symbol.name for symbol in self.parameters]
        if not isinstance(variable, sympy.Symbol) or variable.name in names:
            raise ValueError(
                f"`variable` is {variable!r}: expected a symbol that the system does not have."
            )
        A, B, C, D = map(exact, self.matrices)
        numerators, below = resolvent(A, B, C, variable)
        above = numerators * (variable if self.discrete else 1) + D * below
        response = (above / below).applyfunc(tidy)
        if (A, B, C, D) != self.matrices:
            response = response.applyfunc(to_float)
        return self.scalar_or_matrix(Matrix(response))

    def scalar_or_matrix(self, response: sympy.MatrixBase) -> sympy.Expr | Matrix:
        """Return the one entry of a system of one input and one output, or the matrix."""
        return response[0, 0] if response.shape == (1, 1) else Matrix(response)

    @classmethod
    def from_transfer_function(
        cls, transfer: sympy.Expr, variable: sympy.Symbol, realization: str = "controllable"
    ) -> Self:
        """Make a system of one input and one output from its transfer function.

        Args:
            transfer: a proper rational function of `variable`, or a constant.
            variable: s for a `StateSpace`, z for a `LinearRecurrence`; other symbols are
                parameters.
            realization: "controllable": the companion form that inputs enter at one place;
                "observable": its transpose, of which outputs are read at one place; "balanced":
                the controllable form with states scaled so that its entries differ little, whose
                numbers can be trusted for more poles.

        Returns:
            The system. In discrete time H(z) = C (I - A/z)⁻¹ B + D with D = 0, which has the
            factor z in the numerator: unless the numerator has it already, as z/(z - a) has, there
            is one state more than poles, as of 1/(z - a) and (z + 1)/(z - a). A constant is a
            gain: a system of one state, which stays 0 in continuous time and is never remembered
            in discrete time.

        Raises:
            ValueError: the function is not rational, or not proper.
        """
        matrices = forms.realize(transfer, variable, realization, discrete=cls.discrete)
        return cls(*matrices)

    @classmethod
    def from_zpk(
        cls,
        zeros: Sequence[object],
        poles: Sequence[object],
        gain: object,
        realization: str = "controllable",
    ) -> Self:
        """Make a system of one input and one output from its zeros, poles and gain.

        Args:
            zeros: the zeros of the transfer function, in s or z.
            poles: its poles, as many or more.
            gain: its factor.
            realization: as of `from_transfer_function`.

        Returns:
            The system.
        """
        variable = sympy.Dummy("z")
        transfer = forms.from_roots(zeros, poles, gain, variable)
        return cls.from_transfer_function(transfer, variable, realization)

    @abstractmethod
    def before(self) -> Labels:
        """Name the signals that A multiplies."""

    @abstractmethod
    def after(self) -> Labels:
        """Name the signals that an update gives."""

    def latex(self) -> str:
        """Write the two equations with their matrices, as LaTeX.

        Returns:
            The source, for a mathematical environment.
        """
        C = None if self.C == sympy.eye(self.state_size) else self.C
        D = self.D if any(self.D) else None
        return matrix_equations(self.A, self.B, C, D, time=self.time, discrete=self.discrete)

    def _repr_latex_(self) -> str:
        """Show the system typeset in a notebook."""
        return rf"$\displaystyle {self.latex()}$"

    def __str__(self) -> str:
        inputs = self.inputs
        update = sympy.Matrix.hstack(self.A, self.B)
        read = sympy.Matrix.hstack(self.C, self.D)
        lines = row_equations(self.after(), Matrix(update), (*self.before(), *inputs))
        lines += row_equations(self.outputs, Matrix(read), (*self.states, *inputs))
        sizes = ", ".join(
            f"{count} {word if count != 1 else word[:-1]}"
            for word, count in (
                ("states", self.state_size),
                ("inputs", self.input_size),
                ("outputs", self.output_size),
            )
        )
        return "\n".join([f"{type(self).__name__} of {sizes}", *(f"  {line}" for line in lines)])

    def refuse_time_varying(self, what: str) -> None:
        """Refuse a time-varying system."""
        if self.time_varying:
            raise ValueError(
                f"`{what}` got a system whose matrices depend on {self.time}: expected a "
                f"time-invariant one. Pass one moment of it, `system.subs({{{self.time}: 3}})`."
            )
