"""A diagonal transition matrix: every state decays or rotates independently."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from linrec._tensors.arguments import as_tensor
from linrec._tensors.shapes import check_axes
from linrec.structures.base import OwnStructure, Structure
from linrec.structures.dense import Dense


@dataclass(frozen=True, eq=False)
class Diagonal(OwnStructure):
    """A diagonal matrix, real or complex; applying it costs n multiplications.

    Args:
        diagonal (*batch, n): the diagonal.

    Raises:
        ValueError: there is no axis of states.

    Example:
        >>> import torch, linrec
        >>> linrec.Diagonal(torch.tensor([0.5, 2.0])).apply(torch.ones(2))
        tensor([0.5000, 2.0000])
    """

    diagonal: Tensor
    core_axes: ClassVar[Mapping[str, int]] = {"diagonal": 1}

    def __post_init__(self) -> None:
        diagonal = as_tensor("diagonal", self.diagonal)
        check_axes("diagonal", diagonal, 1, "a vector (*batch, n); one state is [a]")
        if diagonal.shape[-1] == 0:
            raise ValueError("`diagonal` has 0 states: expected one or more.")
        object.__setattr__(self, "diagonal", diagonal)

    @property
    def state_size(self) -> int:
        """The number of states, n."""
        return self.diagonal.shape[-1]

    def apply(self, states: Tensor) -> Tensor:
        """Multiply: a_i x_i for `states (*batch, n)`."""
        return self.diagonal * states

    def compose(self, earlier: Structure) -> Structure:
        """Multiply the matrices: this one after `earlier`."""
        other = earlier.as_diagonal()
        if other is not None:
            return Diagonal(self.diagonal * other)
        return Dense(self.diagonal.unsqueeze(-1) * earlier.to_dense())

    def as_diagonal(self) -> Tensor:
        """Return the diagonal, `(*batch, n)`."""
        return self.diagonal

    def adjoint(self) -> "Diagonal":
        """Conjugate the diagonal."""
        return Diagonal(self.diagonal.conj())

    def to_dense(self) -> Tensor:
        """Write the matrix out, `(*batch, n, n)`."""
        return torch.diag_embed(self.diagonal)
