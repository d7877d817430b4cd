"""How the kernels of chunks are launched: strides and few configurations."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from linrec.kernels.chunk_kernels import gated, multiply, walk_matrices
from linrec.kernels.launch import call

# Rows, columns and depth of a tile of a product, its warps, and tiles that are under way. (Measured
# on an H200: of nine configurations the fastest in 9 of 11 shapes.)
HIGH, WIDE, DEEP, WARPS, STAGES = 256, 64, 32, 8, 3

# Columns of a matrix that a program has, where it walks and in chunks of so many steps.
WALKED, TILED, STEPS = 16, 64, 32

PRECISION = "tf32x3"
LEAST = 16  # the least side of a product of tiles


def launch_product(inputs: Tensor, before: Tensor, block: Tensor) -> Tensor:
    """Multiply `[inputs (R, K), before (R, n)]` with `block (K + n, N)`, all in float32."""
    R, N = len(inputs), block.shape[1]
    outputs = torch.empty(R, N, dtype=inputs.dtype, device=inputs.device)
    strides = (*inputs.stride(), *before.stride(), *block.stride(), N)
    call(
        multiply, triton.cdiv(R, HIGH) * triton.cdiv(N, WIDE), inputs, before, block, outputs,
        R, N, inputs.shape[1], before.shape[1], *strides,
        HIGH=HIGH, WIDE=WIDE, DEEP=DEEP, PRECISION=PRECISION, num_warps=WARPS, num_stages=STAGES,
    )  # fmt: skip
    return outputs


def launch_matrices(
    gates: Tensor,
    keys: Tensor,
    queries: Tensor,
    values: Tensor,
    lefts: Tensor | None,
    rights: Tensor | None,
    start: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Run systems whose states are matrices; arguments as of `matrix_scan`."""
    (G, T, N), V = keys.shape, values.shape[-1]
    made = {"dtype": values.dtype, "device": values.device}
    outputs, last = torch.empty(G, T, V, **made), torch.empty(G, N, V, **made)
    begin = last if start is None else start.contiguous()
    states = max(triton.next_power_of_2(N), LEAST)
    shared = gates.shape[-1] == 1 or gates.stride(-1) == 0
    sizes = {"STATES": states, "STARTED": start is not None}
    if shared and lefts is None and values.dtype == torch.float32:
        large = states > 64  # of which a program has fewer columns, and more warps
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
