"""Initial delays of a filter: of a steady state, or after given past samples."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from linrec._tensors.known_values import is_seen
from linrec._tensors.shapes import show
from linrec.signal.arguments import (
    Numbers,
    check_sections,
    convert_arguments,
    normalise,
    of_one_length,
)


def lfilter_zi(b: Numbers, a: Numbers) -> Tensor:
    """Compute the delays of a steady start, as `scipy.signal.lfilter_zi` does.

    With them, the response to a constant 1 is constant from the first step on, g = Σ b / Σ a:

        z_i = Σ_{j > i} (b_j - a_j g)

    Args:
        b (*batch, M + 1): the numerator in powers of 1/z.
        a (*batch, N + 1): the denominator; without batch axes, zeros before its first coefficient
            are skipped, as scipy does.

    Returns:
        The delays, `(*batch, max(M, N))`, for an input that starts at 1; for others, multiply by
        the first input.

    Raises:
        ValueError: a is 0, or the filter has a pole at 1 and therefore no steady start.

    Example:
        >>> from linrec.signal import lfilter, lfilter_zi
        >>> import torch
        >>> b, a = [0.5], [1.0, -0.5]
        >>> lfilter(b, a, torch.ones(3), zi=lfilter_zi(b, a))[0]
        tensor([1., 1., 1.])

    References:
        Gustafsson 1996, Determining the initial states in forward-backward filtering.
    """
    top, bottom = convert_arguments(b=b, a=a)
    while bottom.ndim == 1 and len(bottom) > 1 and is_seen(bottom[0] == 0):
        bottom = bottom[1:]
    top, bottom = of_one_length(*normalise(top, bottom))
    total = bottom.sum(-1, keepdim=True)
    if is_seen(total == 0):
        raise ValueError(
            "The filter has a pole at 1: its response to a constant grows, and no delays hold it. "
            "Expected coefficients `a` whose sum is not 0; to start from rest pass zeros."
        )
    remaining = top - bottom * (top.sum(-1, keepdim=True) / total)
    return remaining[..., 1:].flip(-1).cumsum(-1).flip(-1)


def sosfilt_zi(sos: Numbers) -> Tensor:
    """Compute the delays of a steady start, as `scipy.signal.sosfilt_zi` does.

    Args:
        sos (*batch, sections, 6): b₀, b₁, b₂, 1, a₁, a₂ of each section.

    Returns:
        The delays `(*batch, sections, 2)`, for an input that starts at 1.

    Raises:
        ValueError: `sos` does not consist of sections, or one of them has a pole at 1.

    Example:
        >>> from linrec.signal import sosfilt_zi
        >>> sosfilt_zi([[0.5, 0.0, 0.0, 1.0, -0.5, 0.0]])
        tensor([[0.5000, 0.0000]])

    References:
        Gustafsson 1996, Determining the initial states in forward-backward filtering.
    """
    (coefficients,) = convert_arguments(sos=sos)
    check_sections(coefficients, unit=False)
    b, a = coefficients.split(3, -1)
    gains = b.sum(-1) / a.sum(-1)
    before = torch.cat([torch.ones_like(gains[..., :1]), gains[..., :-1].cumprod(-1)], -1)
    return before.unsqueeze(-1) * lfilter_zi(b, a)


def lfiltic(b: Numbers, a: Numbers, y: Numbers, x: Numbers | None = None) -> Tensor:
    """Compute the delays from past outputs and inputs, as `scipy.signal.lfiltic` does.

        a₀ z_i = Σ_{k ≥ 1} b_{i+k} x_{-k} - a_{i+k} y_{-k}        (from i = 0: b_{i+1} x_{-1} + …)

    Args:
        b (M + 1): the numerator in powers of 1/z.
        a (N + 1): the denominator.
        y: the past outputs y_{-1}, y_{-2}, …, the latest first; those left out are 0.
        x: the past inputs, in the same order. None: 0.

    Returns:
        The delays, `(max(M, N),)`.

    Raises:
        ValueError: a₀ is 0, or the coefficients are not vectors.

    Example:
        >>> from linrec.signal import lfiltic
        >>> lfiltic([0.5], [1.0, -0.5], [2.0])
        tensor([1.])

    References:
        Oppenheim and Schafer 2010, Discrete-Time Signal Processing, section 6.3.
    """
    top, bottom, outputs, inputs = convert_arguments("x", b=b, a=a, y=y, x=x)
    for name, vector in (("b", top), ("a", bottom)):
        if vector.ndim > 1:
            raise ValueError(
                f"`{name}` has shape {show(vector.shape)}: expected the coefficients of one filter."
            )
    top, bottom = normalise(top, bottom)
    order = max(len(top), len(bottom)) - 1
    return left(top, inputs, order) - left(bottom, outputs, order)


def left(coefficients: Tensor, past: Tensor | None, order: int) -> Tensor:
    """Sum the effect of past values on later steps, Σ_{k ≥ 1} c_{i+k} v_{-k}."""
    delays = coefficients.new_zeros(order)
    if past is None:
        return delays
    for back, value in enumerate(past.reshape(-1)[: len(coefficients) - 1].unbind()):
        later = coefficients[1 + back :]
        delays = delays + pad(later * value, (0, order - len(later)))
    return delays
