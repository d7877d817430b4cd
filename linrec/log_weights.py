"""Weights given by their logarithms, rescaled step by step so that none overflows."""

from typing import NamedTuple

import torch
from torch import Tensor

from linrec._tensors.arguments import check_tensor
from linrec._tensors.dtypes import accumulation_dtype, common_dtype
from linrec._tensors.shapes import broadcast, check_axes


class Rescaled(NamedTuple):
    """Weights of a recurrence whose states are divided by exp(log_scale)."""

    decay: Tensor
    weights: Tensor
    log_scale: Tensor


def rescale_weights(
    log_decay: Tensor, log_weights: Tensor, initial_log_scale: Tensor | None = None
) -> Rescaled:
    """Divide the weights of an elementwise recurrence by their running maximum.

        x_t = a_t x_{t-1} + b_t u_t        is run as
        x̃_t = ã_t x̃_{t-1} + b̃_t u_t       ã_t = a_t exp(m_{t-1} - m_t),  b̃_t = b_t exp(-m_t)
        with m_t = max(m_{t-1} + log a_t, log b_t)  and  x̃_t = x_t exp(-m_t)

    No ã or b̃ is larger than 1 (but for the rounding of m), though b = exp(89) is out of float32's
    range. A quotient of two states is the same function of the rescaled ones. This covers weighted
    averages, as in RWKV-4, and normalised linear attention: not linear recurrences themselves, but
    two linear recurrences and a division. A constant in the quotient, such as the 1 in xLSTM's
    max(|n q|, 1), is divided by exp(m) too.

    Since m cancels in a quotient, the gradient treats it as a constant. It is computed by doubling,
    in log₂ T passes.

    Args:
        log_decay (*batch, time, features): log a; -∞ where a state is forgotten.
        log_weights (*batch, time, features): log b; -∞ where an input has no weight. Broadcasts
            against `log_decay`.
        initial_log_scale (*batch, features): m before the first step: the last `log_scale` for a
            state that is carried on, zeros for a plain initial state. None: there is no state.

    Returns:
        `decay`, `weights` and `log_scale`, each `(*batch, time, features)`: ã, b̃ and m. Until
        something has a weight, m is -∞.

    Raises:
        ValueError: the shapes do not fit together.
        TypeError: an argument is not a tensor of real floating-point numbers.

    Numerical error: ã and b̃ have relative errors of at most (|log ã| + 2)·eps and (|log b̃| +
        2)·eps, for the m that is returned; the rounding of m cancels with it.

    Example:
        >>> import torch, linrec
        >>> log_weights = torch.tensor([[1000.0], [1001.0]])  # exp of them is inf
        >>> decay, weights, _ = linrec.rescale_weights(torch.zeros(2, 1), log_weights)
        >>> sums = linrec.linear_scan(decay, weights * torch.tensor([[1.0], [2.0]]))
        >>> (sums / linrec.linear_scan(decay, weights)).squeeze()  # (1 + 2e) / (1 + e)
        tensor([1.0000, 1.7311])

    References:
        Milakov and Gimelshein 2018, Online normalizer calculation for softmax, algorithm 3.
        Peng et al. 2023, RWKV (its stable form). Beck et al. 2024, xLSTM (its stabilizer state).
    """
    for name, tensor in (("log_decay", log_decay), ("log_weights", log_weights)):
        check_axes(name, check_tensor(name, tensor), 2, "(*batch, time, features)")
        if tensor.is_complex():
            raise TypeError(f"`{name}` has dtype {tensor.dtype}: expected real logarithms.")
    shape = broadcast(log_decay=log_decay.shape, log_weights=log_weights.shape)
    dtype = accumulation_dtype(common_dtype(log_decay, log_weights))
    log_decay, log_weights = (each.to(dtype).expand(shape) for each in (log_decay, log_weights))
    first = log_weights.new_full((*shape[:-2], 1, shape[-1]), -torch.inf)
    if initial_log_scale is not None:
        given = check_tensor("initial_log_scale", initial_log_scale).to(dtype)
        if broadcast(initial_log_scale=given.shape, states=first.shape[:-2] + shape[-1:]) != (
            first.shape[:-2] + shape[-1:]
        ):
            raise ValueError(
                f"`initial_log_scale` has shape {tuple(given.shape)}: expected "
                f"{tuple(first.shape[:-2] + shape[-1:])}, one number for each state."
            )
        first = given.unsqueeze(-2).expand_as(first)
    maximum = running_maximum(log_decay.detach(), log_weights.detach(), first.detach())
    before = torch.cat([first.detach(), maximum[..., :-1, :]], -2)
    shift = maximum.masked_fill(maximum.isneginf(), 0)
    # (The two maxima are subtracted first: the error of their difference is relative to its size.)
    decay = (log_decay + (before - shift)).exp()
    return Rescaled(decay, (log_weights - shift).exp(), maximum)


def running_maximum(log_decay: Tensor, log_weights: Tensor, first: Tensor) -> Tensor:
    """Compute m_t = max(m_{t-1} + log a_t, log b_t) for all steps, by doubling.

    Two steps combine into one: (f₁, i₁) before (f₂, i₂) is (f₁ + f₂, max(i₁ + f₂, i₂)).
    """
    if not log_decay.shape[-2]:
        return log_weights
    highest = torch.maximum(log_weights[..., :1, :], log_decay[..., :1, :] + first)
    highest = torch.cat([highest, log_weights[..., 1:, :]], -2)
    span = 1
    while span < log_decay.shape[-2]:
        reach = highest[..., :-span, :] + log_decay[..., span:, :]
        tail = torch.maximum(reach, highest[..., span:, :])
        summed = log_decay[..., :-span, :] + log_decay[..., span:, :]
        highest = torch.cat([highest[..., :span, :], tail], -2)
        log_decay = torch.cat([log_decay[..., :span, :], summed], -2)
        span *= 2
    return highest
