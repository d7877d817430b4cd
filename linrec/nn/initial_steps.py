"""Initial step lengths of continuous-time layers."""

import math

import torch
from torch import Tensor


def log_uniform(shape: tuple[int, ...], dt_min: float, dt_max: float) -> Tensor:
    """Draw logarithms of steps, uniformly between log dt_min and log dt_max."""
    if not 0 < dt_min <= dt_max < math.inf:
        raise ValueError(
            f"`dt_min` and `dt_max` are {dt_min} and {dt_max}: expected 0 < dt_min <= dt_max."
        )
    return torch.empty(shape).uniform_(math.log(dt_min), math.log(dt_max))


def inverse_softplus(log_steps: Tensor) -> Tensor:
    """Compute the inverse of softplus at exp(log_steps): dt + log(1 - exp(-dt))."""
    steps = log_steps.exp()
    return steps + torch.log(-torch.expm1(-steps))
