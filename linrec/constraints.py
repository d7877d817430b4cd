"""Parametric families of recurrences, and constraints on trained parameters."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from linrec._tensors.known_values import is_seen
from linrec.systems import LinearRecurrence


class ParametricFamily(Protocol):
    """Recurrences with named parameters, such as `linrec.symbolic` makes."""

    def at(self, values: Mapping[str, Any], /) -> LinearRecurrence:
        """Return the recurrence at these parameter values, which are not checked."""
        ...

    def bound_parameters(self, values: Mapping[Any, Any]) -> "BoundParameters":
        """Return the family together with its initial values."""
        ...


@dataclass(frozen=True, eq=False)
class BoundParameters:
    """A parametric family with a tensor for each parameter: a template for `linrec.nn.Recurrence`.

    Its leaves are the parameters' tensors, whereas a recurrence's are its matrices.

    Args:
        family: the recurrences.
        values: a tensor for each parameter, by name.
        constraints: for some parameters, a module that keeps their values valid, used with
            `torch.nn.utils.parametrize`.
    """

    family: ParametricFamily
    values: Mapping[str, Tensor]
    constraints: Mapping[str, nn.Module]

    def leaves(self) -> dict[str, Tensor]:
        """Return the tensors by parameter name."""
        return dict(self.values)

    def with_leaves(self, leaves: dict[str, Tensor]) -> LinearRecurrence:
        """Return the recurrence at other parameter values."""
        return self.family.at(leaves)


class FixedSign(nn.Module):
    """The map ρ → ±exp(ρ): keeps the sign, and makes steps in ρ relative changes of the
    parameter."""

    def __init__(self, sign: int) -> None:
        super().__init__()
        self.sign = sign

    def forward(self, rho: Tensor) -> Tensor:
        """Return the parameter."""
        return self.sign * rho.exp()

    def right_inverse(self, value: Tensor | float) -> Tensor:
        """Return ρ."""
        value = value if isinstance(value, Tensor) else torch.tensor(value)
        sign = "positive" if self.sign > 0 else "negative"
        refuse_outside(value, self.sign * value > 0, f"{sign}, and not zero")
        return (self.sign * value).log()


class Interval(nn.Module):
    """The map ρ → lower + (upper - lower)·σ(ρ): keeps a parameter between two bounds."""

    def __init__(self, lower: float, upper: float) -> None:
        super().__init__()
        self.lower, self.upper = lower, upper

    def forward(self, rho: Tensor) -> Tensor:
        """Return the parameter."""
        return self.lower + (self.upper - self.lower) * rho.sigmoid()

    def right_inverse(self, value: Tensor | float) -> Tensor:
        """Return ρ."""
        value = value if isinstance(value, Tensor) else torch.tensor(value)
        inside = (value > self.lower) & (value < self.upper)
        refuse_outside(value, inside, f"between {self.lower:g} and {self.upper:g}")
        return ((value - self.lower) / (self.upper - self.lower)).logit()


def refuse_outside(value: Tensor, inside: Tensor, expected: str) -> None:
    """Refuse a value of a parameter that its constraint cannot reach."""
    wrong = ~(inside & value.isfinite())
    if is_seen(wrong):
        raise ValueError(
            f"The parameter is assigned {value[wrong][0].item()}: expected it to be {expected}, "
            "and finite."
        )
