"""A transition matrix without structure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from linrec._tensors.arguments import as_tensor
from linrec._tensors.full_precision import full_precision
from linrec._tensors.shapes import check_axes, show
from linrec.structures.base import OwnStructure, Structure, matvec, same_dtype


@dataclass(frozen=True, eq=False)
class Dense(OwnStructure):
    """A full matrix; applying it costs n² multiplications.

    Args:
        matrix (*batch, n, n): the matrix.

    Raises:
        ValueError: the last two axes are not equal.

    Example:
        >>> import torch, linrec
        >>> linrec.Dense(torch.eye(2)).apply(torch.tensor([1.0, 2.0]))
        tensor([1., 2.])
    """

    matrix: Tensor
    core_axes: ClassVar[Mapping[str, int]] = {"matrix": 2}

    def __post_init__(self) -> None:
        matrix = as_tensor("A", self.matrix)
        check_axes("A", matrix, 2, "a square matrix (*batch, n, n); a number a is [[a]]")
        if matrix.shape[-1] != matrix.shape[-2]:
            raise ValueError(
                f"`A` has shape {show(matrix.shape)}: expected a square matrix (*batch, n, n). "
                "For a diagonal given as a vector, pass `Diagonal(vector)`."
            )
        if matrix.shape[-1] == 0:
            raise ValueError("`A` has 0 states: expected one or more.")
        object.__setattr__(self, "matrix", matrix)

    @property
    def state_size(self) -> int:
        """The number of states, n."""
        return self.matrix.shape[-1]

    def apply(self, states: Tensor) -> Tensor:
        """Multiply: A x for `states (*batch, n)`."""
        return matvec(self.matrix, states)

    def compose(self, earlier: Structure) -> "Dense":
        """Multiply the matrices: this one after `earlier`."""
        later, earlier_matrix = same_dtype(self.matrix, earlier.to_dense())
        with full_precision(later):
            return self.rebuilt(matrix=later @ earlier_matrix)

    def adjoint(self) -> "Dense":
        """Transpose and conjugate."""
        return Dense(self.matrix.mH)

    def to_dense(self) -> Tensor:
        """Return the matrix, `(*batch, n, n)`."""
        return self.matrix

    def magnitude(self) -> Tensor:
        """Return |A|, `(*batch, n, n)`."""
        return self.matrix.abs()
