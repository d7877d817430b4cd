"""A transition matrix for each step."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from linrec._checks import show
from linrec.structures.base import Structure
from linrec.structures.dense import Dense


@dataclass(frozen=True, eq=False)
class Varying(Structure):
    """One A a step: the last batch axis of the structure inside is time.

    Args:
        A (*batch, time, ...): a structure whose last batch axis is time, or a tensor
            `(*batch, time, n, n)`, which is taken as `Dense`.

    Raises:
        ValueError: there is no axis of time.

    Example:
        >>> import torch, linrec
        >>> gates = torch.tensor([[0.5], [0.0], [1.0]])
        >>> recurrence = linrec.LinearRecurrence(linrec.Varying(linrec.Diagonal(gates)))
        >>> linrec.run(recurrence, torch.ones(3, 1)).outputs.squeeze()
        tensor([1., 1., 2.])
    """

    A: Structure
    core_axes: ClassVar[Mapping[str, int]] = {}

    def __init__(self, A: Structure | Tensor) -> None:
        inner = A if isinstance(A, Structure) else Dense(A)
        if isinstance(inner, Varying):
            raise ValueError("`Varying(Varying(A))`: expected one axis of time. Pass `Varying(A)`.")
        if not inner.batch_shape:
            raise ValueError(
                "`Varying` got a single matrix of shape "
                f"{show(inner.to_dense().shape)}: expected one a step, (*batch, time, n, n). "
                "For the same matrix at every step pass it without `Varying`."
            )
        object.__setattr__(self, "A", inner)

    @property
    def state_size(self) -> int:
        """The number of states, n."""
        return self.A.state_size

    @property
    def steps(self) -> int:
        """The number of steps that there is a matrix for."""
        return self.batch_shape[-1]

    def apply(self, states: Tensor) -> Tensor:
        """Multiply the matrix of each step by the state of that step, `(*batch, time, n)`."""
        return self.A.apply(states)

    def compose(self, earlier: Structure) -> "Varying":
        """Multiply step by step: this one after `earlier`."""
        inner = earlier.A if isinstance(earlier, Varying) else earlier[..., None]
        return Varying(self.A.compose(inner))

    def adjoint(self) -> "Varying":
        """Transpose and conjugate each step's matrix (time is not reversed)."""
        return Varying(self.A.adjoint())

    def to_dense(self) -> Tensor:
        """Write the matrices out, `(*batch, time, n, n)`."""
        return self.A.to_dense()

    def leaves(self) -> dict[str, Tensor]:
        """List the tensors of the structure inside."""
        return self.A.leaves()

    def map(self, function: Callable[[Tensor, int], Tensor]) -> Self:
        """Make a new structure from `function(tensor, core_axes)` of each tensor."""
        return type(self)(self.A.map(function))

    @property
    def batch_shape(self) -> torch.Size:
        """The axes before the matrix's own, the last of them time."""
        return self.A.batch_shape

    def at(self, index: Any) -> Structure:
        """Take the matrix of one step, or the matrices of a slice of steps, without `Varying`."""
        return self.A[..., index]
