"""Launching of the elementwise scan's kernels: layouts, strides and a few configurations."""

import math
import os
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from linrec.kernels.scan_kernels import gather, tile, walk

# Asked for before Triton is imported; kernels then run on the CPU, line by line.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

# Bytes of features that a thread loads at once, and threads of a warp, where a program walks.
BYTES, LANES = 16, 32

# Steps that a walk loads together, tiles of them that are under way (fewer where states are read
# too), and its warps. Measured on an H200: of 16 configurations the fastest of large sizes.
ROWS, STAGES, GRADIENT_STAGES, WARPS = 16, 4, 4, 1

# Steps of a tile, and its warps: of many sequences, and of fewer than `FEW_TILES`.
TILE, TILE_WARPS, LONG_TILE, LONG_WARPS, FEW_TILES = 1024, 4, 4096, 8, 264

# Time is split where there are fewer programs than this, into chunks of so many steps or more.
# (It is read twice then: 64 programs alone were faster than 512 of a split one.)
FEW_PROGRAMS, SHORT_CHUNK = 64, 64

# Places in a tile are numbers of 32 bits where they are below this.
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
        reverse: whether the last step is the first.
        shift: whether to multiply by the conjugate of the decay of the step before.
        before, first: the states and the first state of the scan that this one is the gradient of;
            the gradient in its decays is then returned too.
        way: "walk", "tile" or "split". None: chosen by the layout and the sizes.
        states: the memory for the result, laid out like the rest. None: new memory.
        products: whether decays are products of decays, which may have left the range (a walk).
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
        # Threads share a tile as its features lie in memory: if one tensor's do not, threads would
        # have to exchange what they read in every step.
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
        # Two walks over a chunk and one over the chunks are shortest at √(2 T) of them.
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
    """Return a tensor of real numbers and the strides in them, of a complex one its pairs."""
    if not tensor.is_complex():
        return tensor, list(tensor.stride())
    pairs = torch.view_as_real(tensor.resolve_conj())
    return pairs, list(pairs.stride()[:-1])


def call(kernel: Any, programs: int, *given: Any, **options: Any) -> None:
    """Launch a kernel; all programs are on the first axis, which alone has room for 2³¹ of them."""
    device = given[0].device
    if device.type == "cuda" and device.index != torch.cuda.current_device():
        with torch.cuda.device(device):
            kernel[(programs,)](*given, **options)
    else:
        kernel[(programs,)](*given, **options)
