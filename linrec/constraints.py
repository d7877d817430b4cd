"""Parametric families of recurrences, and constraints on the parameters that are trained."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from linrec.systems import LinearRecurrence


class ParametricFamily(Protocol):
    """Recurrences that differ in the values of named parameters, as `linrec.symbolic` has them."""

    def at(self, values: Mapping[str, Any], /) -> LinearRecurrence:
        """Return the recurrence with these values of its parameters, which are not checked."""
        ...

    def bound_parameters(self, values: Mapping[Any, Any]) -> "BoundParameters":
        """Return the family together with its initial values."""
        ...


@dataclass(frozen=True, eq=False)
class BoundParameters:
    """A parametric family with a tensor for each parameter: the template of `linrec.nn.Recurrence`.

    Its leaves are the tensors of the parameters, where a recurrence has those of its matrices.

    Args:
        family: the recurrences.
        values: a tensor for each parameter, by name.
        constraints: for some parameters the module, used with `torch.nn.utils.parametrize`, that
            keeps their values valid.
    """

    family: ParametricFamily
    values: Mapping[str, Tensor]
    constraints: Mapping[str, nn.Module]

    def leaves(self) -> dict[str, Tensor]:
        """Return the tensors by the names of the parameters."""
        return dict(self.values)

    def with_leaves(self, leaves: dict[str, Tensor]) -> LinearRecurrence:
        """Return the recurrence with other values of the parameters."""
        return self.family.at(leaves)


class FixedSign(nn.Module):
    """The map ρ → ±exp(ρ): keeps a sign, and makes steps of ρ relative changes of the parameter."""

    def __init__(self, sign: int) -> None:
        super().__init__()
        self.sign = sign

    def forward(self, rho: Tensor) -> Tensor:
        """Return the parameter."""
        return self.sign * rho.exp()

    def right_inverse(self, value: Tensor) -> Tensor:
        """Return ρ."""
        return (self.sign * value).log()


class Interval(nn.Module):
    """The map ρ → lower + (upper - lower)·σ(ρ): keeps a parameter between two bounds."""

    def __init__(self, lower: float, upper: float) -> None:
        super().__init__()
        self.lower, self.upper = lower, upper

    def forward(self, rho: Tensor) -> Tensor:
        """Return the parameter."""
        return self.lower + (self.upper - self.lower) * rho.sigmoid()

    def right_inverse(self, value: Tensor) -> Tensor:
        """Return ρ."""
        return ((value - self.lower) / (self.upper - self.lower)).logit()
