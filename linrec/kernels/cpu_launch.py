"""Callers of the compiled loops of the elementwise scan: strides, layouts and threads."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from linrec.kernels.cpu_scan import LANES, gradient_lanes, gradient_rows, scan_lanes, scan_rows
from linrec.kernels.cpu_threads import share

# From this many numbers on, other threads are worth waking.
MANY = 1 << 18

# Features of a row below which lanes are faster than vectors.
NARROW = 16


def fill_on_cpu(
    decay: Tensor, drive: Tensor, states: Tensor, state: Tensor, *, reverse: bool
) -> None:
    """Write the states of a scan of one dtype.

    Args:
        decay (*batch, time, features): a, of any strides; stride 0 repeats a number.
        drive (*batch, time, features): b.
        states (*batch, time, features): the result.
        state (*batch, features): the state before the first step.
        reverse: whether to scan from the last step to the first.
    """
    tensors = in_order(decay, drive, state.contiguous().unsqueeze(-2), states)
    given = [each for tensor in tensors for each in place(tensor, reverse)]
    run(scan_rows, scan_lanes, tensors, given)


def differentiate_on_cpu(
    decay: Tensor,
    state: Tensor,
    states: Tensor,
    gradient: Tensor,
    to_decay: Tensor,
    to_drive: Tensor,
    *,
    reverse: bool,
) -> None:
    """Write the gradients of a scan of one dtype, in its decays and its drives.

    Args:
        decay, state, states, reverse: as for `fill_on_cpu`.
        gradient (*batch, time, features): the gradient in the states.
        to_decay, to_drive (*batch, time, features): the results, of the same strides.
    """
    first = state.contiguous().unsqueeze(-2)
    tensors = in_order(decay, gradient, first, states, to_drive, to_decay)
    given = [each for tensor in tensors[:-1] for each in place(tensor, reverse)]
    given.insert(-1, place(tensors[-1], reverse)[0])
    run(gradient_rows, gradient_lanes, tensors, given)


def in_order(*tensors: Tensor) -> list[Tensor]:
    """Give tensors a single batch axis; swap it with the features if these are few and sequences
    many."""
    found: list[Tensor] = []
    for tensor in tensors:
        plain = tensor.detach().resolve_conj().resolve_neg()
        found.append(plain if plain.ndim == 3 else plain.reshape(-1, *plain.shape[-2:]))
    batch, _, features = found[0].shape
    if features < NARROW and features < batch:
        return [tensor.transpose(0, 2) for tensor in found]
    return found


def place(tensor: Tensor, reverse: bool) -> tuple[Any, tuple[int, int, int, int]]:
    """Return the memory of a tensor, its start and three strides."""
    (batch, steps, features), (n, t, f) = tensor.shape, tensor.stride()
    size = 1 + (batch - 1) * n + (steps - 1) * t + (features - 1) * f
    memory = tensor.as_strided((size,), (1,)).numpy()
    return memory, ((steps - 1) * t, n, -t, f) if reverse else (0, n, t, f)


def run(
    rows: Callable[..., None], lanes: Callable[..., None], tensors: list[Tensor], given: list[Any]
) -> None:
    """Call the loop that fits the strides, in as many threads as torch would use."""
    batch, steps, features = tensors[0].shape
    threads = torch.get_num_threads() if tensors[0].numel() >= MANY else 1
    decay, *others = (tensor.stride(2) for tensor in tensors)
    if features >= NARROW and decay in (0, 1) and set(others) == {1}:
        loop, width = rows, features
        if batch % threads and batch < 8 * threads:  # sequences alone would not occupy all threads
            width = max(-(-features // threads), NARROW)
    else:
        loop, width = lanes, LANES
    pieces = batch * -(-features // width)
    sizes = (steps, features, width)
    share(lambda begin, end: loop(*given, *sizes, begin, end), pieces, threads)
