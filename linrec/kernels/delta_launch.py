"""Launchers of the kernels of chunks with feedback."""

from typing import Any

import torch
import triton
from torch import Tensor

from linrec.kernels import gated_launch
from linrec.kernels.delta_kernels import advance, solve, solve_back
from linrec.kernels.gated_launch import (
    LEAST,
    PRECISION,
    Sizes,
    launch_added,
    launch_pull,
    launch_read,
    launch_tables,
)
from linrec.kernels.launch import call

# Columns of a matrix that a program takes from chunk to chunk, and warps of a program: for matrices
# of at most 64 rows, and for larger ones.
COLUMNS, WARPS = 16, (4, 8)


def steps_of_chunk() -> int:
    """Return the number of steps of a chunk: half a gated chunk's, as the gradient doubles them."""
    return gated_launch.STEPS // 2


def constants(sizes: Sizes, **changed: Any) -> dict[str, Any]:
    """Return the constants of this module's kernels."""
    kept = {name: sizes.constants[name] for name in ("STATES", "VALUES", "STEPS", "LEVELS")}
    warps = WARPS[sizes.constants["STATES"] > 64]
    return {**kept, "PRECISION": PRECISION, "num_warps": warps, "num_stages": 1, **changed}


def launch_delta(
    gates: Tensor,
    keys: Tensor,
    queries: Tensor,
    values: Tensor,
    lefts: Tensor,
    rights: Tensor,
    start: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Run all steps, as `delta_chunks` does."""
    keys, values, lefts, rights = (e.contiguous() for e in (keys, values, lefts, rights))
    start = None if start is None else start.contiguous()
    tables = launch_tables(gates, steps_of_chunk())
    sizes = Sizes.of(keys, values, steps_of_chunk())
    inverses = tables.new_empty(sizes.G, sizes.chunks, *(2 * [steps_of_chunk()]))
    ways, fed = (tables.new_empty(sizes.G, sizes.T, width) for width in (sizes.N, sizes.V))
    shape = (sizes.T, sizes.N, sizes.V, sizes.chunks)
    call(
        solve, sizes.G * sizes.chunks, keys, values, lefts, rights, tables, inverses, ways, fed,
        *shape, **constants(sizes),
    )  # fmt: skip
    states = launch_added(keys, values, tables, False)
    last = launch_advance(sizes, states, lefts, ways, fed, tables, start, False)
    outputs = launch_read(keys, queries, values, states, tables, lefts, fed)
    return outputs, last, states, fed, inverses


def launch_advance(
    sizes: Sizes,
    states: Tensor,
    rows: Tensor,
    ways: Tensor,
    fed: Tensor,
    tables: Tensor,
    start: Tensor | None,
    reverse: bool,
) -> Tensor:
    """Advance the state from chunk to chunk, in place (see `advance`); return the last one."""
    last = states.new_empty(sizes.G, sizes.N, sizes.V)
    width = min(COLUMNS, max(triton.next_power_of_2(sizes.V), LEAST))
    call(
        advance, sizes.G * triton.cdiv(sizes.V, width), states, rows, ways, fed, tables,
        last if start is None else start, last, sizes.T, sizes.N, sizes.V, sizes.chunks,
        STARTED=start is not None, REVERSE=reverse, **constants(sizes, VALUES=width),
    )  # fmt: skip
    return last


def launch_delta_pull(
    gates: Tensor,
    keys: Tensor,
    queries: Tensor,
    values: Tensor,
    lefts: Tensor,
    rights: Tensor,
    states: Tensor,
    fed: Tensor,
    inverses: Tensor,
    to_outputs: Tensor,
    to_last: Tensor | None,
) -> tuple[Tensor, ...]:
    """Compute the gradients in all arguments, in float32, as `delta_gradients` does.

    The fed-back terms z are computed first. Then each step becomes a pair: l and w, with the gate,
    come before k and v; the r and z of the next step, which see the same state as q, come before q
    and g.
    """
    sizes = Sizes.of(keys, values, steps_of_chunk())
    queries, to_outputs, lefts, rights = (
        each.contiguous() for each in (queries, to_outputs, lefts, rights)
    )
    begin = None if to_last is None else to_last.contiguous()
    tables = launch_tables(gates, steps_of_chunk())
    ways, back = (tables.new_empty(sizes.G, sizes.T, width) for width in (sizes.N, sizes.V))
    call(
        solve_back, sizes.G * sizes.chunks, queries, to_outputs, lefts, tables, inverses, ways,
        back, sizes.T, sizes.N, sizes.V, sizes.chunks, **constants(sizes),
    )  # fmt: skip
    to_states = launch_added(queries, to_outputs, tables, True)
    launch_advance(sizes, to_states, rights, ways, back, tables, begin, True)

    flat = (each.flatten(0, 1).float() for each in (gates, keys, queries, values, lefts, rights))
    a, k, q, v, left, right = flat
    g = to_outputs.flatten(0, 1).float()
    two = [(a, torch.ones_like(a)), (left, k), (ahead(right), q), (fed, v), (ahead(back), g)]
    a2, k2, q2, v2, g2 = (in_pairs(*each).unsqueeze(0) for each in two)
    doubled = launch_tables(a2)
    found = launch_pull(k2, q2, v2, states, doubled, g2, begin, pairs=True)
    to_a, to_k, to_q, to_v = (each[0].unflatten(1, (sizes.T, 2)) for each in found[:4])
    first = back[:, 0, None, :]  # z of the first step, which sees the initial state
    to_start = found[4] + right[:, 0, :, None] * first
    to_right = torch.cat([(states[:, 0] * first).sum(2).unsqueeze(1), to_q[:, :-1, 0]], 1)
    pulled = to_a[:, :, 0], to_k[:, :, 1], to_q[:, :, 1], to_v[:, :, 1], to_k[:, :, 0], to_right
    return *(each.unflatten(0, keys.shape[:2]) for each in pulled), to_start


def in_pairs(first: Tensor, second: Tensor) -> Tensor:
    """Interleave the steps of two tensors `(G, T, …)`: `(G, 2T, …)`."""
    return torch.stack([first, second], 2).flatten(1, 2)


def ahead(rows: Tensor) -> Tensor:
    """Shift rows `(G, T, …)` one step earlier; the last becomes zeros."""
    return torch.cat([rows[:, 1:], torch.zeros_like(rows[:, :1])], 1)
