"""Launchers of the kernels of gated chunks: strides and a few configurations."""

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from linrec.kernels.gated_kernels import (
    carry,
    contribute,
    decays,
    pull_gates,
    pull_rows,
    pull_values,
    read,
)
from linrec.kernels.launch import INTERPRETED, call

# Steps of a chunk, and matrix columns of a program.
STEPS, VALUES = 64, 64

# Numbers that a program carries from chunk to chunk, and chunks for which a program makes tables.
WIDTH, MANY = 256, 8

# Number of bfloat16 parts of a factor in float32.
PARTS = 3

PRECISION = "ieee" if INTERPRETED else "tf32x3"
LEAST = 16  # the smallest side of a product of tiles

# Warps of each kernel: for matrices of at most 64 rows, and for larger ones.
WARPS = {
    "contribute": (4, 8),
    "read": (4, 4),
    "pull_values": (4, 4),
    "pull_rows": (4, 8),
    "pull_gates": (4, 4),
}


@dataclass(frozen=True)
class Sizes:
    """The sizes of a call, and the constants of its kernels.

    Args:
        G, H: the number of systems, and the length of the inner of their two axes.
        T, N, V: the numbers of steps, rows and columns.
        constants: the constants of the kernels that multiply.
    """

    G: int
    H: int
    T: int
    N: int
    V: int
    constants: dict[str, Any]

    @staticmethod
    def of(keys: Tensor, values: Tensor, steps: int | None = None) -> "Sizes":
        """Describe k and v to the kernels, for chunks of `steps` steps."""
        steps = STEPS if steps is None else steps
        (outer, H, T, N), V = keys.shape, values.shape[-1]
        states = max(triton.next_power_of_2(N), LEAST)
        given = {
            "STATES": states,
            "VALUES": min(VALUES, max(triton.next_power_of_2(V), LEAST)),
            "STEPS": steps,
            "LEVELS": levels(steps),
            "PARTS": PARTS if keys.dtype == torch.bfloat16 else 0,
            "PRECISION": PRECISION,
        }
        return Sizes(outer * H, H, T, N, V, given)

    @property
    def chunks(self) -> int:
        """The number of chunks of a system."""
        return triton.cdiv(self.T, self.constants["STEPS"])

    @property
    def across(self) -> int:
        """The number of programs that share the columns of a matrix."""
        return triton.cdiv(self.V, self.constants["VALUES"])

    def options(self, name: str) -> dict[str, Any]:
        """Return the constants of a kernel and its number of warps."""
        warps = WARPS[name][self.constants["STATES"] > 64]
        return {**self.constants, "num_warps": warps, "num_stages": 1}


def levels(steps: int) -> int:
    """Count the doublings from one step to a chunk."""
    return steps.bit_length() - 1


def launch_tables(gates: Tensor, steps: int | None = None) -> Tensor:
    """Write the tables `(G, chunks, rows, steps)` of products of gates `(outer, H, T)`."""
    steps = STEPS if steps is None else steps
    outer, H, T = gates.shape
    chunks, rows = triton.cdiv(T, steps), 2 * (levels(steps) + 1)
    tables = gates.new_empty(outer * H, chunks, rows, steps, dtype=torch.float32)
    call(
        decays, outer * H * triton.cdiv(chunks, MANY), gates, tables, T, H, chunks,
        *gates.stride(), STEPS=steps, LEVELS=levels(steps), MANY=MANY, num_warps=4,
    )  # fmt: skip
    return tables


def launch_states(
    keys: Tensor, values: Tensor, tables: Tensor, start: Tensor | None, reverse: bool
) -> tuple[Tensor, Tensor]:
    """Compute the states before all chunks and the last state, or the gradients in those after.

    Args:
        keys, values (outer, H, T, n), (outer, H, T, V): k and v; or q and the gradient in y.
        tables: products of gates.
        start (G, n, V): the state to start from. None: zeros.
        reverse: whether to go from the last chunk to the first.

    Returns:
        `(G, chunks, n, V)` and `(G, n, V)`.
    """
    added = launch_added(keys, values, tables, reverse)
    G, chunks, N, V = added.shape
    last, steps = tables.new_empty(G, N, V), tables.shape[-1]
    begin = last if start is None else start
    call(
        carry, G * triton.cdiv(N * V, WIDTH), added, tables, begin, last, chunks, N * V,
        STEPS=steps, LEVELS=levels(steps), WIDTH=WIDTH, STARTED=start is not None, REVERSE=reverse,
        num_warps=WIDTH // 64,
    )  # fmt: skip
    return added, last


def launch_added(keys: Tensor, values: Tensor, tables: Tensor, reverse: bool) -> Tensor:
    """Compute the contribution of each chunk to its last state; arguments as for
    `launch_states`."""
    sizes = Sizes.of(keys, values, tables.shape[-1])
    G, N, V, chunks = sizes.G, sizes.N, sizes.V, sizes.chunks
    added, last = tables.new_empty(G, chunks, N, V), sizes.constants["LEVELS"]
    call(
        contribute, G * chunks * sizes.across, keys, values, tables, added, sizes.T, sizes.H, N,
        V, chunks, *keys.stride(), *values.stride(), ROW=last if reverse else 2 * last + 1,
        **sizes.options("contribute"),
    )  # fmt: skip
    return added


def launch_gated(
    gates: Tensor, keys: Tensor, queries: Tensor, values: Tensor, start: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run all steps, as `gated_chunks` does."""
    start = None if start is None else start.contiguous()
    tables = launch_tables(gates)
    states, last = launch_states(keys, values, tables, start, False)
    outputs = launch_read(keys, queries, values, states, tables)
    return outputs, last, states, tables


def launch_read(
    keys: Tensor,
    queries: Tensor,
    values: Tensor,
    states: Tensor,
    tables: Tensor,
    lefts: Tensor | None = None,
    fed: Tensor | None = None,
) -> Tensor:
    """Compute the outputs of all chunks; `lefts (G, T, n)` and `fed (G, T, V)` are more k and v."""
    sizes = Sizes.of(keys, values, tables.shape[-1])
    outputs = torch.empty(values.shape, dtype=values.dtype, device=values.device)
    more = (keys, values) if lefts is None or fed is None else (lefts, fed)
    call(
        read, sizes.G * sizes.chunks * sizes.across, keys, queries, values, *more, tables, states,
        outputs, sizes.T, sizes.H, sizes.N, sizes.V, sizes.chunks, *keys.stride(),
        *queries.stride(), *values.stride(), FED=fed is not None, **sizes.options("read"),
    )  # fmt: skip
    return outputs


def launch_pull(
    keys: Tensor,
    queries: Tensor,
    values: Tensor,
    states: Tensor,
    tables: Tensor,
    to_outputs: Tensor,
    to_last: Tensor | None,
    pairs: bool = False,
) -> tuple[Tensor, ...]:
    """Compute the gradients in gates, keys, queries, values and start, as `gated_gradients` does.

    With `pairs`, steps 2t and 2t + 1 are one step with two keys and two queries; the second gate
    is 1.
    """
    sizes = Sizes.of(keys, values)
    begin = None if to_last is None else to_last.contiguous()
    to_states, to_start = launch_states(queries, to_outputs, tables, begin, True)
    to_keys, to_queries, to_values = (
        torch.empty(each.shape, dtype=each.dtype, device=each.device)
        for each in (keys, queries, values)
    )
    G, chunks, N, V = states.shape
    shape, strides = (sizes.T, sizes.H, N, V, chunks), (*keys.stride(), *queries.stride())
    call(
        pull_values, G * chunks * sizes.across, keys, queries, to_outputs, tables, to_states,
        to_values, *shape, *strides, *to_outputs.stride(), PAIR=int(pairs),
        **sizes.options("pull_values"),
    )  # fmt: skip
    strides = (*strides, *values.stride(), *to_outputs.stride())
    to_edges = tables.new_empty(G, chunks, 2, tables.shape[-1])
    call(
        pull_rows, G * chunks, keys, queries, values, to_outputs, tables, states, to_states,
        to_keys, to_queries, to_edges, *shape, *strides, PAIR=int(pairs),
        **sizes.options("pull_rows"),
    )  # fmt: skip
    to_gates = tables.new_empty(keys.shape[:-1])
    call(
        pull_gates, G * chunks, keys, queries, values, to_outputs, tables, to_edges, to_gates,
        *shape, *strides, **sizes.options("pull_gates"),
    )  # fmt: skip
    return to_gates, to_keys, to_queries, to_values, to_start
