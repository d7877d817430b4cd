"""The base of symbolic systems in continuous and in discrete time."""

# sympy's annotations are narrower, or wider, than its behaviour.
# pyright: reportArgumentType=false, reportReturnType=false

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import sympy

from linrec.symbolic import realization as forms
from linrec.symbolic.functions import eigenvalues
from linrec.symbolic.matrices import Matrix, exact, scalar_or_matrix, tidy, to_float
from linrec.symbolic.named_matrices import NamedMatrices
from linrec.symbolic.polynomials import resolvent
from linrec.symbolic.typeset import Labels, describe, matrix_equations


@dataclass(frozen=True, init=False)
class System(NamedMatrices, ABC):
    """A system of sympy expressions: its poles, its transfer function and its equations."""

    discrete: ClassVar[bool]

    def poles(self) -> list[sympy.Expr]:
        """Compute the eigenvalues of A, repeated by multiplicity.

        Returns:
            The poles: expressions, or indexed roots of polynomials whose coefficients are numbers.

        Raises:
            ValueError: they have no formula, or the system depends on time.
        """
        self.refuse_time_varying("poles")
        return eigenvalues(self.A, formulas=False)

    def transfer_function(self, variable: sympy.Symbol) -> sympy.Expr | Matrix:
        """Compute the transfer function from inputs to outputs.

            continuous  H(s) = C (s I - A)⁻¹ B + D
            discrete    H(z) = C (I - A / z)⁻¹ B + D

        Args:
            variable: s, or z.

        Returns:
            The rational function; for several inputs or outputs, their matrix `(p, m)`.

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
        return scalar_or_matrix(Matrix(response))

    @classmethod
    def from_transfer_function(
        cls, transfer: sympy.Expr, variable: sympy.Symbol, realization: str = "controllable"
    ) -> Self:
        """Make a system of one input and one output from its transfer function.

        Args:
            transfer: a proper rational function of `variable`, or a constant.
            variable: s for a `StateSpace`, z for a `LinearRecurrence`; other symbols are
                parameters.
            realization: "controllable": the companion form in which inputs drive one state;
                "observable": its transpose, in which outputs read one state; "balanced": the
                controllable form with states scaled so that its entries differ little, which stays
                accurate for more poles.

        Returns:
            The system. In discrete time H(z) = C (I - A/z)⁻¹ B + D with D = 0, which has the
            factor z in the numerator. If the given numerator has this factor, as in z/(z - a),
            there are as many states as poles; otherwise, as in 1/(z - a) and (z + 1)/(z - a), there
            is one more. A constant is a gain: a system of one state, which stays 0 in continuous
            time and is not carried over between steps in discrete time.

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
            poles: its poles, at least as many as zeros.
            gain: its constant factor.
            realization: as in `from_transfer_function`.

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
        """Name the signals that an update computes."""

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
        return describe(self, self.before(), self.after())
