"""Companion matrices: a filter's feedback, applied with one multiplication per coefficient."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from linrec._tensors.arguments import as_tensor
from linrec._tensors.shapes import check_axes
from linrec.structures.base import Structure, matvec, same_dtype
from linrec.structures.dense import Dense


@dataclass(frozen=True, eq=False)
class Companion(Structure):
    """The companion matrix of zⁿ + a₁ zⁿ⁻¹ + … + aₙ; applying it costs n multiplications.

        [ -a₁  -a₂ … -aₙ ]                          [ -a₁  1      ]
        [  1             ]       and transposed     [ -a₂    ⋱    ]
        [     ⋱          ]                          [  ⋮        1 ]
        [        1    0  ]                          [ -aₙ       0 ]

    The first is `scipy.linalg.companion([1, a₁, …, aₙ])`, and shifts past outputs through the
    states (direct form II). The second moves contributions to future outputs towards the output
    (transposed direct form II): its states are the delays of `scipy.signal.lfilter`.

    Args:
        coefficients (*batch, n): a₁ … aₙ.
        transposed: whether the coefficients are in the first column instead of the first row.

    Raises:
        ValueError: there is no axis of coefficients, or it is empty.

    Example:
        >>> import torch, linrec
        >>> fibonacci = linrec.Companion(torch.tensor([-1.0, -1.0]))
        >>> fibonacci.apply(torch.tensor([5.0, 3.0]))
        tensor([8., 5.])

    References:
        Oppenheim and Schafer 2010, Discrete-Time Signal Processing, section 6.3.
    """

    coefficients: Tensor
    transposed: bool = False
    core_axes: ClassVar[Mapping[str, int]] = {"coefficients": 1}

    def __post_init__(self) -> None:
        coefficients = as_tensor("coefficients", self.coefficients)
        check_axes("coefficients", coefficients, 1, "a vector (*batch, n); one state is [a]")
        if coefficients.shape[-1] == 0:
            raise ValueError("`coefficients` has 0 states: expected one or more.")
        object.__setattr__(self, "coefficients", coefficients)

    @property
    def state_size(self) -> int:
        """The number of states, n."""
        return self.coefficients.shape[-1]

    def map(self, function: Callable[[Tensor, int], Tensor]) -> Self:
        """Make a new structure from `function(tensor, core_axes)` of the coefficients."""
        return type(self)(function(self.coefficients, 1), self.transposed)

    def apply(self, states: Tensor) -> Tensor:
        """Multiply `states (*batch, n)`: shift them, and apply the coefficients."""
        coefficients, states = same_dtype(self.coefficients, states)
        if self.transposed:
            return torch.addcmul(
                pad(states[..., 1:], (0, 1)), coefficients, states[..., :1], value=-1
            )
        first = -matvec(coefficients.unsqueeze(-2), states)
        return torch.cat([first, states[..., :-1].expand(*first.shape[:-1], -1)], -1)

    def compose(self, earlier: Structure) -> Dense:
        """Multiply the matrices: apply this one to the columns of `earlier`."""
        return Dense(self[..., None].apply(earlier.to_dense().mT).mT)

    def adjoint(self) -> "Companion":
        """Transpose and conjugate."""
        return Companion(self.coefficients.conj(), not self.transposed)

    def magnitude(self) -> Tensor:
        """Return |A|, `(*batch, n, n)`."""
        return self.to_dense().abs()

    def to_dense(self) -> Tensor:
        """Write the matrix out, `(*batch, n, n)`."""
        first = -self.coefficients.unsqueeze(-2)
        shift = torch.eye(self.state_size, dtype=first.dtype, device=first.device)[:-1]
        matrix = torch.cat([first, shift.expand(*first.shape[:-2], -1, -1)], -2)
        return matrix.mT if self.transposed else matrix
