"""Filters given by their coefficients or by second-order sections, run forwards in time.

A filter is the recurrence of its transposed direct form II, whose states are scipy's delays:

    y_t = b₀ x_t + z₀        z_i ← z_{i+1} + b_{i+1} x_t - a_{i+1} y_t        (a₀ = 1)

This is a pre-update system (`linrec.pre_update`) with A = Companion(a, transposed), B = b - a b₀,
C = (1, 0, …) and D = b₀.
"""

from typing import overload

import torch
from torch import Tensor
from torch.nn.functional import conv1d, pad

from linrec._tensors.dtypes import accumulation_dtype
from linrec._tensors.shapes import broadcast
from linrec.executors import Executor
from linrec.planner import Auto
from linrec.pre_update import run_pre_update
from linrec.signal.arguments import (
    Numbers,
    check_delays,
    check_sections,
    check_signal,
    convert_arguments,
    normalise,
    of_one_length,
)
from linrec.structures import Companion


@overload
def lfilter(
    b: Numbers, a: Numbers, x: Numbers, axis: int = -1, zi: None = None, *, executor: Executor = ...
) -> Tensor: ...


@overload
def lfilter(
    b: Numbers, a: Numbers, x: Numbers, axis: int = -1, *, zi: Numbers, executor: Executor = ...
) -> tuple[Tensor, Tensor]: ...


@overload
def lfilter(
    b: Numbers, a: Numbers, x: Numbers, axis: int, zi: Numbers, *, executor: Executor = ...
) -> tuple[Tensor, Tensor]: ...


def lfilter(
    b: Numbers,
    a: Numbers,
    x: Numbers,
    axis: int = -1,
    zi: Numbers | None = None,
    *,
    executor: Executor = Auto(),
) -> Tensor | tuple[Tensor, Tensor]:
    """Filter a sequence by a rational transfer function, as `scipy.signal.lfilter` does.

        a₀ y_t = b₀ x_t + b₁ x_{t-1} + … + b_M x_{t-M} - a₁ y_{t-1} - … - a_N y_{t-N}

    Args:
        b (*batch, M + 1): the numerator in powers of 1/z, any M. Batch axes give a filter for each
            sequence: they broadcast against the axes of `x` other than `axis`.
        a (*batch, N + 1): the denominator; everything is divided by a₀. With N = 0 it is an FIR
            filter, which has no recurrence and is convolved, whatever the executor.
        x: sequences along `axis`, with any other axes and of any length, including 0.
        axis: the axis of time.
        zi: the delays before the first step, shaped as `x` but with max(M, N) on `axis`; other axes
            may be 1. None: zeros, and only the outputs are returned.
        executor: how the recurrence is run.

    Returns:
        The outputs y, shaped as `x` (broadcast with the filters' batch axes); with `zi`, a pair of
        the outputs and the delays after the last step, to continue from. The dtype is the common
        torch dtype of the arguments; integers count as floating-point numbers.

    Raises:
        ValueError: a₀ is 0, a coefficient vector is empty, or the shapes do not match.

    Numerical error: at step t with `Recurrent`, about (N + M)(t + 1)·eps times the result of the
    same loop over absolute values; other executors add their own error.

    Example:
        >>> import torch
        >>> from linrec.signal import lfilter
        >>> lfilter([0.5], [1.0, -0.5], torch.ones(3))
        tensor([0.5000, 0.7500, 0.8750])

    References:
        Oppenheim and Schafer 2010, Discrete-Time Signal Processing, section 6.3.
    """
    top, bottom, inputs, delays = convert_arguments("zi", b=b, a=a, x=x, zi=zi)
    top, bottom = normalise(top, bottom)
    check_signal(inputs, axis)
    axis -= inputs.ndim if axis >= 0 else 0  # from the end: filters may have axes of their own
    if delays is not None:
        batch = batch_of(inputs, axis, b=top, a=bottom)
        order = max(top.shape[-1], bottom.shape[-1]) - 1
        check_delays(delays, batch, order, axis, inputs.ndim)
        delays = delays.movedim(axis, -1)
    y, last = direct_form(top, bottom, inputs.movedim(axis, -1), delays, executor)
    y = y.movedim(-1, axis)
    return y if zi is None else (y, last.movedim(-1, axis))


@overload
def sosfilt(
    sos: Numbers, x: Numbers, axis: int = -1, zi: None = None, *, executor: Executor = ...
) -> Tensor: ...


@overload
def sosfilt(
    sos: Numbers, x: Numbers, axis: int = -1, *, zi: Numbers, executor: Executor = ...
) -> tuple[Tensor, Tensor]: ...


@overload
def sosfilt(
    sos: Numbers, x: Numbers, axis: int, zi: Numbers, *, executor: Executor = ...
) -> tuple[Tensor, Tensor]: ...


def sosfilt(
    sos: Numbers,
    x: Numbers,
    axis: int = -1,
    zi: Numbers | None = None,
    *,
    executor: Executor = Auto(),
) -> Tensor | tuple[Tensor, Tensor]:
    """Filter by a cascade of second-order sections, as `scipy.signal.sosfilt` does.

    This keeps filters of high order accurate: a section's poles depend only on its own two
    coefficients.

    Args:
        sos (*batch, sections, 6): b₀, b₁, b₂, 1, a₁, a₂ of each section. Batch axes give a filter
            for each sequence, as in `lfilter`.
        x: sequences along `axis`, with any other axes and of any length, including 0.
        axis: the axis of time.
        zi (sections, ...): the delays before the first step, for each section shaped as `x` but
            with 2 on `axis`; other axes may be 1. None: zeros, and only the outputs are returned.
        executor: how the recurrences are run.

    Returns:
        The outputs, shaped as `x`; with `zi`, a pair of the outputs and the delays after the last
        step, `(sections, ...)`.

    Raises:
        ValueError: `sos` does not consist of sections with a₀ = 1, or the shapes do not match.

    Numerical error: as for `lfilter`, in each section.

    Example:
        >>> import torch
        >>> from linrec.signal import sosfilt
        >>> sosfilt([[0.5, 0.0, 0.0, 1.0, -0.5, 0.0]], torch.ones(3))
        tensor([0.5000, 0.7500, 0.8750])

    References:
        Oppenheim and Schafer 2010, Discrete-Time Signal Processing, section 6.3.
    """
    coefficients, inputs, delays = convert_arguments("zi", sos=sos, x=x, zi=zi)
    check_sections(coefficients, unit=True)
    check_signal(inputs, axis)
    axis -= inputs.ndim if axis >= 0 else 0  # from the end: filters may have axes of their own
    sections = coefficients.shape[-2]
    if delays is not None:
        batch = batch_of(inputs, axis, sos=coefficients[..., 0, :])
        check_delays(delays, batch, 2, axis, inputs.ndim, sections)
        delays = delays.movedim(axis, -1)
    y = inputs.movedim(axis, -1)
    last: list[Tensor] = []
    for index in range(sections):
        b, a = coefficients[..., index, :].split(3, -1)
        state = None if delays is None else delays[index]
        y, after = direct_form(b, a, y, state, executor)
        last.append(after.movedim(-1, axis))
    y = y.movedim(-1, axis)
    return y if zi is None else (y, torch.stack(last))


def batch_of(inputs: Tensor, axis: int, **filters: Tensor) -> torch.Size:
    """Broadcast the batch axes of filters, `(*batch, coefficients)`, and of sequences."""
    shapes = {name: vectors.shape[:-1] for name, vectors in filters.items()}
    return broadcast(x=inputs.movedim(axis, -1).shape[:-1], **shapes)


def direct_form(
    b: Tensor, a: Tensor, x: Tensor, state: Tensor | None, executor: Executor
) -> tuple[Tensor, Tensor]:
    """Run a filter in transposed direct form II; return outputs and the delays after the last step.

    Args:
        b (*batch, M + 1): the numerator.
        a (*batch, N + 1): the denominator, a₀ = 1.
        x (*batch, time): the inputs.
        state (*batch, n): the max(M, N) delays before the first step, or None.
        executor: how it runs.
    """
    recursive = a.shape[-1] > 1
    b, a = of_one_length(b, a)
    order, dtype = b.shape[-1] - 1, x.dtype
    wide = accumulation_dtype(dtype)
    b, a, x = b.to(wide), a.to(wide), x.to(wide)
    batches = {"b": b.shape[:-1], "a": a.shape[:-1], "x": x.shape[:-1]}
    batch = broadcast(**batches, **({} if state is None else {"zi": state.shape[:-1]}))
    start = x.new_zeros(order) if state is None else state.to(wide)
    x, start = x.expand(*batch, -1), start.expand(*batch, -1)
    if not recursive:
        y, last = convolve(b, x, start)
        return y.to(dtype), last
    later, through = a[..., 1:], b[..., :1]
    driven = (b[..., 1:] - later * through).unsqueeze(-1)
    reading = torch.eye(order, dtype=wide, device=x.device)[:1]
    matrices = (Companion(later, transposed=True), driven, reading, through.unsqueeze(-1))
    y, last = run_pre_update(*matrices, x.unsqueeze(-1), start, executor=executor)
    return y.squeeze(-1).to(dtype), last


def convolve(b: Tensor, x: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Run a filter without feedback as a convolution; its delays are the outputs still to come.

    Args:
        b (*batch, n + 1): the coefficients.
        x (*batch, time): the inputs.
        start (*batch, n): the delays before the first step.
    """
    order, (*batch, steps) = b.shape[-1] - 1, x.shape
    filters = b.expand(*batch, -1) if b.ndim > 1 else b
    groups = max(filters.shape[:-1].numel(), 1)
    padded = pad(x, (order, order))
    if padded.numel() == 0:
        full = padded.new_zeros(*batch, steps + order)
    else:
        rows = padded.reshape((1, groups, -1) if filters.ndim > 1 else (-1, 1, steps + 2 * order))
        full = conv1d(rows, filters.flip(-1).reshape(groups, 1, -1), groups=groups)
        full = full.reshape(*batch, -1)
    full = full + pad(start, (0, steps))
    return full[..., :steps], full[..., steps:]
