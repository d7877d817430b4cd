"""Callers of the compiled loops of half-precision scans: memory, marks and threads."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from linrec.kernels.cpu_halves import BLOCK, differentiate_halves, scan_halves
from linrec.kernels.cpu_threads import share

# Features of a piece: the states of a block fit in a near cache.
WIDTH = 512


def fill_halves(decay: Tensor, drive: Tensor, state: Tensor, states: Tensor) -> Tensor:
    """Write the states of a scan of half-precision numbers.

    Args:
        decay (batch, time, features): a.
        drive (batch, time, features): b.
        state (batch, features): the state before the first step, in float32.
        states (batch, time, features): the result; features side by side in memory.

    Returns:
        The states before every few steps, in float32, for `differentiate_halves_on_cpu`.
    """
    batch, steps, features = drive.shape
    marks = state.new_empty(-(-steps // BLOCK), batch, features)
    marks[0] = state
    tensors = (side_by_side(decay), side_by_side(drive), states)
    a, b, x = (place(tensor) for tensor in tensors)
    run(scan_halves, (*a, *b, marks.numpy(), *x), states)
    return marks


def differentiate_halves_on_cpu(
    decay: Tensor, drive: Tensor, marks: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of a scan of half-precision numbers.

    Args:
        decay, drive (batch, time, features): a and b.
        marks: the result of `fill_halves`.
        gradient (batch, time, features): the gradient in the states.

    Returns:
        The gradients in a, in b and, in float32, in the first state.
    """
    to_decay, to_drive = (torch.empty_like(gradient).contiguous() for _ in range(2))
    to_state = torch.empty_like(marks[0])
    # (The tensors must stay alive while the loop runs: the memory of a freed copy is gone.)
    tensors = (side_by_side(decay), side_by_side(drive), side_by_side(gradient))
    a, b, g = (place(tensor) for tensor in tensors)
    written = (place(to_decay)[0], *place(to_drive), to_state.numpy())
    run(differentiate_halves, (*a, *b, marks.numpy(), *g, *written), to_drive)
    return to_decay, to_drive, to_state


def run(loop: Callable[..., None], given: tuple[Any, ...], shape: Tensor) -> None:
    """Call a loop in as many threads as torch would use."""
    batch, steps, features = shape.shape
    threads = torch.get_num_threads()
    width = min(features, WIDTH)
    if batch % threads and batch < 8 * threads:  # sequences alone would not occupy all threads
        width = max(min(-(-features // threads), width), 16)
    pieces = batch * -(-features // width)
    sizes = (steps, features, width)
    share(lambda begin, end: loop(*given, *sizes, begin, end), pieces, min(threads, pieces))


def side_by_side(tensor: Tensor) -> Tensor:
    """Lay the features of a step side by side in memory."""
    tensor = tensor.detach()
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def place(tensor: Tensor) -> tuple[Any, tuple[int, int]]:
    """Return the bits of a tensor, and its strides over sequences and steps."""
    (batch, steps, features), (n, t, _) = tensor.shape, tensor.stride()
    flat = tensor.as_strided((1 + (batch - 1) * n + (steps - 1) * t + features - 1,), (1,))
    bits = torch.uint16 if tensor.dtype == torch.bfloat16 else torch.int16
    return flat.view(bits).numpy(), (n, t)
