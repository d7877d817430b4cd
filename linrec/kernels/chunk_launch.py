"""Launchers of the chunk kernels: strides and a few configurations."""

from collections.abc import Generator
from contextlib import contextmanager

import torch
import triton
import triton.language as tl
from torch import Tensor

from linrec.kernels.chunk_kernels import gated, split, walk_matrices
from linrec.kernels.launch import call, ceil_div

# Rows and columns of a tile in `split`.
HIGH, WIDE = 32, 64

# From this many products and this many columns on, parts in TF32 are faster than float32. (An H200
# computes 380 Tproducts a second in TF32, of which three parts leave a third, and 51 in float32;
# but all parts have to be written.)
MANY_PRODUCTS, MANY_COLUMNS = 1 << 30, 256

# Columns of a matrix per program, when walking and when running in chunks of this many steps.
WALKED, TILED, STEPS = 16, 64, 32

PRECISION = "tf32x3"
LEAST = 16  # the smallest side of a product of tiles


def launch_product(inputs: Tensor, before: Tensor, block: Tensor) -> Tensor:
    """Multiply `[inputs (R, K), before (R, n)]` with `block (K + n, N)`, all in float32.

    With x = x' + x'' of 11 bits each, rounded to nearest, and the same for y, the matrix units of a
    device compute x' y' + x'' y' + x' y'' exactly. The error is x'' y'' ≤ 2⁻²²|x y| plus the
    rounding of each factor, 2⁻²⁴: 6 unit roundoffs in all. The matrix units add eight products at a
    time and truncate, with 2 units each time: below K + n units for 3 (K + n) products.
    """
    (R, K), n, N = inputs.shape, before.shape[1], block.shape[1]
    rows = torch.empty(R, 3, K + n, dtype=inputs.dtype, device=inputs.device)
    columns = torch.empty(3, K + n, N, dtype=inputs.dtype, device=inputs.device)
    tiles = ceil_div(R, HIGH) * ceil_div(K + n, WIDE)
    call(
        split, tiles, inputs, before, rows, R, K + n, K, *inputs.stride(), *before.stride(),
        3 * (K + n), 1, K + n, HIGH=HIGH, WIDE=WIDE, LEFT=True,
    )  # fmt: skip
    tiles = ceil_div(K + n, HIGH) * ceil_div(N, WIDE)
    call(
        split, tiles, block, block, columns, K + n, N, N, *block.stride(), *block.stride(), N, 1,
        (K + n) * N, HIGH=HIGH, WIDE=WIDE, LEFT=False,
    )  # fmt: skip
    with matrix_units():
        return torch.mm(rows.flatten(1), columns.flatten(0, 1))


def is_split(inputs: Tensor, before: Tensor, block: Tensor) -> bool:
    """Return whether a product is large enough for parts and the device has matrix units."""
    products = len(inputs) * block.shape[0] * block.shape[1]
    if products < MANY_PRODUCTS or block.shape[1] < MANY_COLUMNS:
        return False
    return inputs.device.type == "cpu" or torch.cuda.get_device_capability(inputs.device) >= (8, 0)


@contextmanager
def matrix_units() -> Generator[None, None, None]:
    """Compute products of float32 numbers in TF32 within the context."""
    settings = torch.backends.cuda.matmul
    before = settings.fp32_precision
    settings.fp32_precision = "tf32"
    try:
        yield
    finally:
        settings.fp32_precision = before


def launch_matrices(
    gates: Tensor,
    keys: Tensor,
    queries: Tensor,
    values: Tensor,
    lefts: Tensor | None,
    rights: Tensor | None,
    start: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Run systems whose states are matrices; arguments as for `matrix_scan`."""
    (G, T, N), V = keys.shape, values.shape[-1]
    made = {"dtype": values.dtype, "device": values.device}
    outputs, last = torch.empty(G, T, V, **made), torch.empty(G, N, V, **made)
    begin = last if start is None else start.contiguous()
    states = max(triton.next_power_of_2(N), LEAST)
    shared = gates.shape[-1] == 1 or gates.stride(-1) == 0
    sizes = {"STATES": states, "STARTED": start is not None}
    if shared and lefts is None and values.dtype == torch.float32:
        large = states > 64  # fewer columns per program, and more warps
        width = min(TILED // 2 if large else TILED, max(triton.next_power_of_2(V), LEAST))
        call(
            gated, G * triton.cdiv(V, width), gates, keys, queries, values, begin, outputs, last,
            T, N, V, *gates.stride()[:2], *keys.stride(), *queries.stride(), *values.stride(),
            VALUES=width, STEPS=STEPS, PRECISION=PRECISION if N >= LEAST else "ieee", **sizes,
            num_warps=8 if large else 4,
        )  # fmt: skip
        return outputs, last
    width = min(WALKED, triton.next_power_of_2(V))
    strides = [0 if shared else gates.stride(2), *keys.stride(), *queries.stride()]
    low = (keys, keys) if lefts is None or rights is None else (lefts, rights)
    wide = values.dtype == torch.float64
    call(
        walk_matrices, G * triton.cdiv(V, width), gates, keys, queries, values, *low, begin,
        outputs, last, T, N, V, *gates.stride()[:2], *strides, *values.stride(),
        *low[0].stride(), *low[1].stride(), VALUES=width, RANK=lefts is not None,
        SUM=tl.float64 if wide else tl.float32, **sizes, num_warps=max(states * width // 1024, 1),
    )  # fmt: skip
    return outputs, last
