"""Recurrences of named parameters, and how training keeps to what is known of these."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from linrec.systems import LinearRecurrence


class Family(Protocol):
    """Recurrences that differ in the values of some parameters, as `linrec.symbolic` makes them."""

    def bind(self, values: Mapping[Any, Any], /) -> LinearRecurrence:
        """Give the parameters values."""
        ...

    def parametrised(self, values: Mapping[Any, Any]) -> "Parametrised":
        """Pair the family with values that training may start from."""
        ...


@dataclass(frozen=True, eq=False)
class Parametrised:
    """A family of recurrences, and a tensor for each of its parameters: what a module is made of.

    It has the tensors of the parameters where a recurrence has those of its matrices.

    Args:
        family: the recurrences.
        values: a tensor for each parameter.
        constraints: modules that keep what is known of parameters, for
            `torch.nn.utils.parametrize`.
    """

    family: Family
    values: Mapping[str, Tensor]
    constraints: Mapping[str, nn.Module]

    def leaves(self) -> dict[str, Tensor]:
        """List the tensors by the names of the parameters."""
        return dict(self.values)

    def with_leaves(self, leaves: dict[str, Tensor]) -> LinearRecurrence:
        """Make the recurrence of other values."""
        return self.family.bind(leaves)


class Signed(nn.Module):
    """±exp(ρ): keeps a sign, and makes steps of ρ relative changes of the parameter."""

    def __init__(self, sign: int) -> None:
        super().__init__()
        self.sign = sign

    def forward(self, rho: Tensor) -> Tensor:
        """Give the parameter."""
        return self.sign * rho.exp()

    def right_inverse(self, value: Tensor) -> Tensor:
        """Give ρ."""
        return (self.sign * value).log()


class Between(nn.Module):
    """lower + (upper - lower)·σ(ρ): stays within its bounds."""

    def __init__(self, lower: float, upper: float) -> None:
        super().__init__()
        self.lower, self.upper = lower, upper

    def forward(self, rho: Tensor) -> Tensor:
        """Give the parameter."""
        return self.lower + (self.upper - self.lower) * rho.sigmoid()

    def right_inverse(self, value: Tensor) -> Tensor:
        """Give ρ."""
        return ((value - self.lower) / (self.upper - self.lower)).logit()
