"""Callers of the compiled convolutions: layouts of spectra, memory and threads."""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from linrec.kernels.cpu_convolution import (
    SMALLEST,
    arrange_kernels,
    convolve,
    correlate,
    correlate_inputs,
)
from linrec.kernels.cpu_threads import share
from linrec.kernels.cpu_transforms import radices_of
from linrec.kernels.cpu_vectors import BYTES

# Numbers in the blocks that share a buffer. The more, the longer the pieces of memory that are
# written at a time: at order 468 all blocks together take a sixth less time than a third of them.
TOGETHER = 1 << 19


class Order(NamedTuple):
    """The order in which the loops store the frequencies of a transform.

    Args:
        half (n): for each place, the index in half a spectrum of its frequency or its mirror image.
        mirrored (n): whether it is the mirror image.
        place (n): for each frequency, its place.
    """

    half: Tensor
    mirrored: Tensor
    place: Tensor


@lru_cache(maxsize=32)
def plan_of(size: int, dtype: torch.dtype) -> tuple[Any, ...]:
    """Split a length n into n_1 n_2, and compute radices and roots of unity for the loops."""
    second = max(d for d in range(1, math.isqrt(size) + 1) if size % d == 0)
    first = size // second
    radices = (np.array(radices_of(part), np.int64) for part in (first, second))
    return (first, second, *radices, *(roots_of(part, dtype) for part in (first, second, size)))


def roots_of(size: int, dtype: torch.dtype) -> Any:
    """Compute e^(-2πi j / n) for all j, in double precision and rounded: `(2 n)`."""
    angles = torch.arange(size, dtype=torch.float64, device="cpu") * (-2 * math.pi / size)
    return torch.stack([angles.cos(), angles.sin()], -1).to(dtype).flatten().numpy()


@lru_cache(maxsize=32)
def order_of(size: int) -> Order:
    """Compute the order of frequencies: f = j + n_2 i is at place j n_1 + i."""
    first, second, *_ = plan_of(size, torch.float64)
    rows = torch.arange(first, device="cpu")
    columns = torch.arange(second, device="cpu").unsqueeze(1)
    frequencies = (columns + second * rows).flatten()
    mirrored = frequencies > size // 2
    half = torch.where(mirrored, size - frequencies, frequencies)
    return Order(half, mirrored, frequencies.argsort())


def width_of(dtype: torch.dtype) -> int:
    """Count the numbers in a vector."""
    return BYTES // dtype.itemsize


def lay_out_signals(spectra: Tensor, size: int) -> Any:
    """Arrange half spectra of real signals for the loops.

    Args:
        spectra (*batch, m, frequencies): frequencies up to half of n.
        size: n.

    Returns:
        `(sequences, m, 2 n)`.
    """
    order = order_of(size)
    whole = torch.view_as_real(spectra.resolve_conj()[..., order.half])
    whole[..., 1] = torch.where(order.mirrored, -whole[..., 1], whole[..., 1])
    return whole.flatten(-2).flatten(0, -3).numpy()


def lay_out_kernels(spectra: Tensor, scales: Tensor, size: int) -> Any:
    """Divide half spectra of kernels by scales, and arrange them in pairs H_a + i H_b.

    Args:
        spectra (m, p, frequencies): frequencies up to half of n.
        scales (p): powers of two.
        size: n.

    Returns:
        `(blocks, m, 2 width n)`.
    """
    order, given = order_of(size), torch.view_as_real(spectra.resolve_conj())
    row = 2 * width_of(given.dtype)
    blocks = -(-spectra.shape[1] // row)
    kernels = given.new_zeros(blocks, len(spectra), row * size).numpy()
    fixed = given.numpy(), (1 / scales).numpy(), order.half.numpy(), order.mirrored.numpy(), kernels

    def work(begin: int, end: int) -> None:
        arrange_kernels(*fixed, begin, end)

    share(work, blocks, min(torch.get_num_threads(), blocks))
    return kernels


def sizes_of(spectrum: Tensor) -> Tensor:
    """Find powers of two `(p)` near the norms of kernels `(m, p, frequencies)`.

    Their reciprocals are normal numbers too. A kernel that is not finite has infinity or NaN.
    """
    numbers = torch.view_as_real(spectrum.resolve_conj())
    norms = torch.linalg.vector_norm(numbers, dim=(0, 2, 3), dtype=torch.float64)
    within = norms.clamp(SMALLEST, 0.5 / SMALLEST)
    scales = torch.where(norms.isfinite(), within / within.frexp()[0], norms)
    return scales.to(spectrum.real.dtype)


def take_out_signals(sums: Tensor, size: int) -> Tensor:
    """Extract half spectra of the signals' real parts from the loops' order.

    Args:
        sums (*batch, m, 2 n): as `correlate` writes them.
        size: n.

    Returns:
        `(*batch, m, frequencies)`.
    """
    whole = torch.view_as_complex(sums.unflatten(-1, (size, 2)))
    found, mirrored = halves(whole, size)
    return (found + mirrored) / 2


def take_out_kernels(sums: Tensor, size: int, kernels: int) -> Tensor:
    """Extract half spectra of both signals in each pair from the loops' order.

    Args:
        sums (blocks, m, 2 width n): as `correlate_inputs` writes them.
        size: n.
        kernels: p.

    Returns:
        `(m, p, frequencies)`.
    """
    pairs = sums.unflatten(-1, (size, 2, -1)).permute(1, 0, 4, 2, 3).contiguous()
    found, mirrored = halves(torch.view_as_complex(pairs), size)
    both = torch.stack([(found + mirrored) / 2, (found - mirrored) / 2j], 2)
    return both.flatten(1, 3)[:, :kernels]


def halves(whole: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return S_f and S*_(n-f) for frequencies up to half of n."""
    places = order_of(size).place
    frequencies = torch.arange(size // 2 + 1, device="cpu")
    return whole[..., places[frequencies]], whole[..., places[(size - frequencies) % size]].conj()


def find_sequences(signals: Tensor) -> tuple[Any, Any, int]:
    """Return the flat memory of `signals (units, copies, time, p)`, the starts of sequences and the
    distance between steps."""
    units, copies, steps, _ = signals.shape
    starts = torch.arange(units, device="cpu").unsqueeze(1) * signals.stride(0)
    starts = (starts + torch.arange(copies, device="cpu") * signals.stride(1)).flatten()
    end = int(starts.max()) + (steps - 1) * signals.stride(2) + signals.shape[-1]
    return signals.as_strided((end,), (1,)).numpy(), starts.numpy(), signals.stride(2)


def run(
    loop: Callable[..., None],
    given: tuple[Any, ...],
    signals: Tensor,
    scales: Tensor,
    results: tuple[Any, ...],
    size: int,
    long: int,
    pieces: int,
) -> None:
    """Call a loop in as many threads as torch would use, each with its own scratch memory.

    Args:
        loop, given, signals, scales, results: the loop and its arguments.
        size: n, the length of the transforms.
        long: the number of long transforms that need memory, in addition to the one of every loop.
        pieces: the number of pieces to share among threads.
    """
    dtype, steps, features = signals.dtype, signals.shape[-2], signals.shape[-1]
    plan, row = plan_of(size, dtype), 2 * width_of(dtype)
    threads = min(torch.get_num_threads(), pieces)
    blocks = -(-features // row)
    few = max(min(TOGETHER // (row * steps), blocks), 1)
    rows = 2 * max(plan[:2]) + (1 + long) * size + few * steps
    fixed = (*given, *find_sequences(signals), steps, scales.numpy(), *results, plan)

    def work(begin: int, end: int) -> None:
        loop(*fixed, signals.new_empty(row * rows).numpy(), few, begin, end)

    share(work, pieces, threads)


def convolve_on_cpu(inputs: Tensor, spectrum: Tensor, outputs: Tensor, size: int) -> bool:
    """Write the convolutions of sequences with kernels.

    Args:
        inputs (units, copies, m, frequencies): the half spectra of real inputs.
        spectrum (m, p, frequencies): the half spectra of real kernels.
        outputs (units, copies, time, p): the result, with the numbers of a step side by side.
        size: n, the length of the transforms.

    Returns:
        Whether it ran: it does not if a kernel is not finite, which would spoil its partner.
    """
    scales = sizes_of(spectrum)
    if not scales.isfinite().all():
        return False
    kernels = lay_out_kernels(spectrum, scales, size)
    sequences = lay_out_signals(inputs / size, size)
    run(convolve, (sequences, kernels), outputs, scales, (), size, 0, len(sequences))
    return True


def correlate_on_cpu(spectrum: Tensor, gradient: Tensor, size: int) -> Tensor | None:
    """Compute the adjoint of the convolution in the inputs: their half spectra Σ H* G.

    Args:
        spectrum (m, p, frequencies): the half spectra of real kernels.
        gradient (units, copies, time, p): of any strides.
        size: n, the length of the transforms.

    Returns:
        `(units, copies, m, frequencies)`; None if kernels are not finite.
    """
    scales, signals = sizes_of(spectrum), side_by_side(gradient)
    if not scales.isfinite().all():
        return None
    kernels = lay_out_kernels(spectrum, scales, size)
    sums = signals.new_empty(*signals.shape[:2], len(spectrum), 2 * size)
    results = sums.flatten(0, 1)
    run(
        correlate,
        (kernels,),
        signals,
        scales,
        (results.numpy(),),
        size,
        len(spectrum),
        len(results),
    )
    return take_out_signals(sums, size)


def correlate_inputs_on_cpu(inputs: Tensor, gradient: Tensor, size: int) -> Tensor | None:
    """Compute the adjoint of the convolution in the kernels: their half spectra Σ U* G.

    Args:
        inputs (units, copies, m, frequencies): the half spectra of real inputs.
        gradient (units, copies, time, p): of any strides.
        size: n, the length of the transforms.

    Returns:
        `(m, p, frequencies)`; None if numbers are not finite, since one would spoil its partner.
    """
    signals, sequences = side_by_side(gradient), lay_out_signals(inputs.conj(), size)
    p, width = signals.shape[-1], width_of(signals.dtype)
    scales, blocks = signals.new_zeros(p, dtype=torch.float64), -(-p // (2 * width))
    sums = signals.new_zeros(blocks, inputs.shape[-2], 2 * width * size)
    run(correlate_inputs, (sequences,), signals, scales, (sums.numpy(),), size, 0, blocks)
    found = take_out_kernels(sums, size, p) * scales.to(sums.dtype).unsqueeze(-1)
    return found if torch.view_as_real(found).isfinite().all() else None


def side_by_side(signals: Tensor) -> Tensor:
    """Lay the numbers of a step side by side in memory."""
    signals = signals.detach().resolve_neg()
    return signals if signals.stride(-1) == 1 else signals.contiguous()
