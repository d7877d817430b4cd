"""How long the steps of a continuous-time layer are at first."""

import math

import torch
from torch import Tensor


def log_uniform(shape: tuple[int, ...], dt_min: float, dt_max: float) -> Tensor:
    """Draw logarithms of steps that are uniform between log dt_min and log dt_max."""
    if not 0 < dt_min <= dt_max < math.inf:
        raise ValueError(
            f"`dt_min` and `dt_max` are {dt_min} and {dt_max}: expected 0 < dt_min <= dt_max."
        )
    return torch.empty(shape).uniform_(math.log(dt_min), math.log(dt_max))


def inverse_softplus(log_steps: Tensor) -> Tensor:
    """Find the numbers whose softplus the steps are: log(exp(dt) - 1) = dt + log(1 - exp(-dt))."""
    steps = log_steps.exp()
    return steps + torch.log(-torch.expm1(-steps))
