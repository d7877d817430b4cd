"""The linear system in continuous time, as users define it."""

# pyright: reportConstantRedefinition=false
# (A, B, C and D are variables.)

from dataclasses import dataclass

import torch
from torch import Tensor

from linrec._tensors.arguments import check_cast
from linrec.structures import Structure
from linrec.structures.base import make_unchecked
from linrec.systems.four_matrices import (
    FourMatrices,
    as_structure,
    batch_axes,
    check_matrices,
    options_for_lists,
)
from linrec.systems.varying import Varying


@dataclass(frozen=True, eq=False)
class StateSpace(FourMatrices):
    """A linear system of n states, m inputs and p outputs, in continuous time.

        x'(t) = A x(t) + B u(t)        y(t) = C x(t) + D u(t)

    `discretize` turns it into a `LinearRecurrence`.

    Args:
        A (*batch, n, n): the state matrix, in 1 / unit of time; a tensor or a structure.
        B (*batch, n, m): how inputs drive the states.
        C (*batch, p, n): how outputs are read from the states. None: outputs are the states.
        D (*batch, p, m): how inputs are added to the outputs. None: they are not.

    Raises:
        ValueError: the shapes do not fit together; the message says what to type instead.
        TypeError: an argument is not made of floating-point or complex numbers.

    Example:
        >>> import linrec
        >>> lag = linrec.StateSpace(A=[[-1.0]], B=[[1.0]])
        >>> linrec.discretize(lag, dt=0.1).A.to_dense()
        tensor([[0.9048]])
    """

    A: Structure
    B: Tensor
    C: Tensor | None = None
    D: Tensor | None = None

    def __init__(
        self,
        A: Structure | Tensor | object,
        B: Tensor | object,
        C: Tensor | object | None = None,
        D: Tensor | object | None = None,
    ) -> None:
        if isinstance(A, Varying):
            raise TypeError(
                "`A` is Varying: expected a time-invariant system in continuous time. For steps "
                "of different lengths pass `discretize(system, dt)` a `dt (*batch, time)`."
            )
        options = options_for_lists(A=A, B=B, C=C, D=D)
        structure = as_structure(A, options)
        if B is None:
            B = torch.eye(structure.state_size, dtype=structure.dtype, device=structure.device)
        object.__setattr__(self, "A", structure)
        for name, matrix in zip("BCD", check_matrices(structure, B, C, D, options), strict=True):
            object.__setattr__(self, name, matrix)
        batch_axes(self.A, *self.matrices())

    def to(self, target: torch.dtype | torch.device | str) -> "StateSpace":
        """Cast or move every tensor.

        Raises:
            TypeError: a dtype that is neither floating-point nor complex.
            ValueError: a real dtype for a complex system. For more digits type
                `.to(torch.complex128)`.
        """
        check_cast(self.dtype, target)
        B, C, D = (None if matrix is None else matrix.to(target) for matrix in self.matrices())
        return make_unchecked(StateSpace, A=self.A.to(target), B=B, C=C, D=D)
