"""Display of systems: LaTeX for notebooks, and equations as text."""

from collections.abc import Sequence
from typing import Protocol

import sympy
from sympy.core.function import AppliedUndef

from linrec.symbolic.matrices import Matrix

Labels = tuple[sympy.Expr, ...]


class Described(Protocol):
    """A system with matrices and names, as needed to write its equations."""

    @property
    def matrices(self) -> tuple[Matrix, Matrix, Matrix, Matrix]:
        """List A, B, C and D."""
        ...

    @property
    def states(self) -> Labels:
        """Name the states."""
        ...

    @property
    def inputs(self) -> Labels:
        """Name the inputs."""
        ...

    @property
    def outputs(self) -> Labels:
        """Name the outputs."""
        ...


def describe(system: Described, before: Labels, after: Labels) -> str:
    """Write a system as text: its sizes, and one equation per line.

    Args:
        system: the system.
        before: the signals that A multiplies.
        after: the signals that an update computes.
    """
    A, B, C, D = system.matrices
    update, read = sympy.Matrix.hstack(A, B), sympy.Matrix.hstack(C, D)
    lines = row_equations(after, Matrix(update), (*before, *system.inputs))
    lines += row_equations(system.outputs, Matrix(read), (*system.states, *system.inputs))
    sizes = ", ".join(
        f"{count} {word if count != 1 else word[:-1]}"
        for word, count in (("states", A.rows), ("inputs", B.cols), ("outputs", C.rows))
    )
    return "\n".join([f"{type(system).__name__} of {sizes}", *(f"  {line}" for line in lines)])


def matrix_equations(
    A: Matrix, B: Matrix, C: Matrix | None, D: Matrix | None, *, time: sympy.Symbol, discrete: bool
) -> str:
    """Write the two equations of a system with their matrices, as LaTeX."""
    now, before = (f"{{{sympy.latex(time)}}}", f"{{{sympy.latex(time)}-1}}")
    if discrete:
        left, state, old, u, y = f"x_{now}", f"x_{now}", f"x_{before}", f"u_{now}", f"y_{now}"
    else:
        at = f"({sympy.latex(time)})"
        left, state, old, u, y = f"x'{at}", f"x{at}", f"x{at}", f"u{at}", f"y{at}"
    update = f"{left} &= {term(A, old)} + {term(B, u)}"
    terms = [state if C is None else term(C, state)]
    terms += [] if D is None else [term(D, u)]
    return rf"\begin{{aligned}} {update} \\ {y} &= {' + '.join(terms)} \end{{aligned}}"


def term(matrix: Matrix, vector: str) -> str:
    """Write a matrix times a vector; the identity is left out."""
    if matrix.rows == matrix.cols and matrix == sympy.eye(matrix.rows):
        return vector
    return f"{sympy.latex(matrix, mat_delim='[')} {vector}"


def labels(letter: str, count: int, time: sympy.Symbol) -> tuple[sympy.Expr, ...]:
    """Make names for states, inputs or outputs that have none: x₁(t), x₂(t), …, or x(t) alone."""
    names = [letter] if count == 1 else [f"{letter}{i + 1}" for i in range(count)]
    return tuple(sympy.Function(name)(time) for name in names)


def row_equations(
    lefts: Sequence[sympy.Expr], matrix: Matrix, rights: Sequence[sympy.Expr]
) -> list[str]:
    """Write left = Σ matrix · right for each row as text, without rows x = x."""
    lines = []
    for i, left in enumerate(lefts):
        right = sympy.Add(
            *[matrix[i, j] * signal for j, signal in enumerate(rights)], evaluate=True
        )
        if right != left:
            lines.append(f"{text(left)} = {text(right)}")
    return lines


def text(expression: sympy.Expr) -> str:
    """Write an expression, derivatives of functions with primes."""
    primed = {
        derivative: sympy.Function(
            f"{derivative.expr.func}" + "'" * int(derivative.derivative_count)
        )
        for derivative in expression.atoms(sympy.Derivative)
        if isinstance(derivative.expr, AppliedUndef)
    }
    return sympy.sstr(expression.xreplace({d: name(*d.expr.args) for d, name in primed.items()}))
