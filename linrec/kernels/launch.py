"""Launchers of the elementwise scan's kernels: layouts, strides and a few configurations."""

import math
import os
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from linrec.kernels.scan_kernels import gather, tile, walk

# Whether kernels run on the CPU, line by line. It must be set before Triton is imported.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

# In a walk: the bytes of features that a thread loads at once, and the threads of a warp.
BYTES, LANES = 16, 32

# Steps that a walk loads together as a tile, tiles under way (without and with states to read), and
# its warps. Of 16 configurations measured on an H200, this is the fastest for large sizes.
ROWS, STAGES, GRADIENT_STAGES, WARPS = 16, 4, 4, 1

# Steps of a tile, and its warps: for many sequences, and for fewer than `FEW_TILES`.
TILE, TILE_WARPS, LONG_TILE, LONG_WARPS, FEW_TILES = 1024, 4, 4096, 8, 264

# Time is split if there are fewer programs than `FEW_PROGRAMS`, into chunks of at least
# `SHORT_CHUNK` steps. (A split reads twice: 64 programs without it were faster than 512 with it.)
FEW_PROGRAMS, SHORT_CHUNK = 64, 64

# Offsets in a tile have 32 bits if they are below this.
FAR = 1 << 31


def launch(
    decay: Tensor,
    drive: Tensor,
    state: Tensor | None,
    *,
    reverse: bool,
    shift: bool = False,
    before: Tensor | None = None,
    first: Tensor | None = None,
    way: str | None = None,
    products: bool = False,
    states: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Scan `(batch, time, features)`.

    Args:
        decay, drive, state: as for `elementwise_scan`.
        reverse: whether to scan from the last step to the first.
        shift: whether to multiply by the conjugate of the decay of the step before.
        before, first: the states and the initial state of the scan that this one differentiates;
            the gradient in that scan's decays is then returned too.
        way: "walk", "tile" or "split". None: chosen by the layout and the sizes.
        states: the memory for the result, laid out like the rest. None: new memory.
        products: whether decays are products of decays, which may have overflowed (a walk).
    """
    B, T, F = drive.shape
    if states is None:
        states = torch.empty_like(drive, memory_format=torch.contiguous_format)
    read = [each for each in (decay, drive, before) if each is not None]
    if way is None and all(F == 1 or each.stride(1) < each.stride(2) for each in read):
        way = "tile"
    to_decay = None if before is None else torch.empty_like(states)
    complex_, wide = drive.is_complex(), drive.dtype in (torch.float64, torch.complex128)
    numbers = tl.float64 if wide else tl.float32
    sums = torch.float64 if wide else torch.float32
    flags = {
        "COMPLEX": complex_,
        "CONJUGATE": complex_ and shift,
        "REVERSE": reverse,
        "SHIFT": int(shift),
        "SUM": numbers,
    }
    stages = STAGES if before is None else GRADIENT_STAGES
    state, first = (None if each is None else each.contiguous() for each in (state, first))
    if way != "tile":
        # Threads share a tile by the features' order in memory. If one tensor has another order,
        # threads would have to exchange numbers in every step.
        decay, drive = side_by_side(decay), side_by_side(drive)
        before = None if before is None else side_by_side(before)
    a, b, x = parts(decay), parts(drive), parts(states)
    own = [*a[1], *b[1]]
    start, begins = (b[0], [0, 0]) if state is None else parts(state)
    p, before_strides = (b[0], [0, 0, 0]) if before is None else parts(before)
    g = b[0] if to_decay is None else parts(to_decay)[0]
    z, first_strides = (b[0], [0, 0]) if first is None else parts(first)
    whole = {"STARTED": state is not None, "GRADIENT": before is not None}
    if way == "tile":
        few = B * F < FEW_TILES
        steps = min(LONG_TILE if few else TILE, triton.next_power_of_2(T))
        warps = LONG_WARPS if few and steps == LONG_TILE else TILE_WARPS
        call(
            tile, B * F, a[0], b[0], start, x[0], p, g, T, F, *own, *begins, *x[1],
            *before_strides, z, *first_strides, STEPS=steps, **whole, **flags,
            num_warps=warps if steps >= 512 else 1,
        )  # fmt: skip
        return states, to_decay
    # Each thread has all rows of its features, so that no step waits for another thread.
    width = max(LANES * WARPS * (BYTES // drive.element_size()), 1)
    far = any(
        ROWS * each[1] + width * each[2] >= FAR for each in (a[1], b[1], x[1], before_strides)
    )
    walked = {
        "ROWS": ROWS, "STAGES": stages, "BITS": tl.int64 if wide else tl.int32,
        "OFFSET": tl.int64 if far else tl.int32, "WIDTH": width, **flags, "num_warps": WARPS,
    }  # fmt: skip
    programs, chunks = B * ceil_div(F, width), 1
    if way == "split" or (way is None and programs < FEW_PROGRAMS):
        # Two walks over a chunk and one over the chunks are shortest with √(2 T) chunks.
        chunks = max(FEW_PROGRAMS // programs, math.isqrt(2 * T))
        chunks = max(min(chunks, T // SHORT_CHUNK), 1)
    size = ROWS * ceil_div(ceil_div(T, chunks), ROWS)
    chunks, starts = ceil_div(T, size), [begins[0], 0, begins[1]]
    if chunks > 1:
        kind = sums.to_complex() if complex_ else sums
        made = {"dtype": kind, "device": drive.device}
        wholes, ends = torch.empty(2, B, chunks - 1, F, **made)
        carried = torch.empty(B, chunks, F, **made)
        call(
            gather, programs * (chunks - 1), a[0], b[0], parts(wholes)[0], parts(ends)[0], F,
            chunks - 1, size, *own, T, **walked,
        )  # fmt: skip
        carried[:, 0] = 0 if state is None else state
        launch(wholes, ends, state, reverse=False, way="walk", products=True, states=carried[:, 1:])
        start, starts = parts(carried)
        whole["STARTED"] = True
    call(
        walk, programs * chunks, a[0], b[0], start, x[0], p, g, T, F, chunks, size, *own,
        *starts, *x[1], *before_strides, z, *first_strides, PRODUCTS=products, **whole, **walked,
    )  # fmt: skip
    return states, to_decay


def ceil_div(count: int, size: int) -> int:
    """Divide, rounding up. (Triton's own takes 20 times as long outside of a kernel.)"""
    return -(-count // size)


def side_by_side(tensor: Tensor) -> Tensor:
    """Lay features side by side in memory."""
    return tensor if tensor.stride(2) == 1 or tensor.shape[2] == 1 else tensor.contiguous()


def parts(tensor: Tensor) -> tuple[Tensor, list[int]]:
    """Return a tensor as real numbers, complex ones as pairs, and its strides in these."""
    if not tensor.is_complex():
        return tensor, list(tensor.stride())
    pairs = torch.view_as_real(tensor.resolve_conj())
    return pairs, list(pairs.stride()[:-1])


def call(kernel: Any, programs: int, *given: Any, **options: Any) -> None:
    """Launch a kernel with all programs on the first axis, the only one with room for 2³¹."""
    device = given[0].device
    if device.type == "cuda" and device.index != torch.cuda.current_device():
        with torch.cuda.device(device):
            kernel[(programs,)](*given, **options)
    else:
        kernel[(programs,)](*given, **options)
