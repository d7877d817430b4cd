"""How the kernels of gated chunks are launched: strides and few configurations."""

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

# Steps of a chunk, and columns of a matrix that a program has.
STEPS, VALUES = 64, 64

# Numbers that a program carries from chunk to chunk, and chunks of whose gates one makes tables.
WIDTH, MANY = 256, 8

# Parts of bfloat16 that a factor in float32 is cut into.
PARTS = 3

PRECISION = "ieee" if INTERPRETED else "tf32x3"
LEAST = 16  # the least side of a product of tiles

# Warps of each kernel, for matrices of 64 rows at most and for larger ones.
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
        G, H: systems, and those of the inner of their two axes.
        T, N, V: steps, rows and columns.
        constants: of the kernels that multiply.
    """

    G: int
    H: int
    T: int
    N: int
    V: int
    constants: dict[str, Any]

    @staticmethod
    def of(keys: Tensor, values: Tensor) -> "Sizes":
        """Look at k and v."""
        (outer, H, T, N), V = keys.shape, values.shape[-1]
        states = max(triton.next_power_of_2(N), LEAST)
        given = {
            "STATES": states,
            "VALUES": min(VALUES, max(triton.next_power_of_2(V), LEAST)),
            "STEPS": STEPS,
            "LEVELS": levels(),
            "PARTS": PARTS if keys.dtype == torch.bfloat16 else 0,
            "PRECISION": PRECISION,
        }
        return Sizes(outer * H, H, T, N, V, given)

    @property
    def chunks(self) -> int:
        """The chunks of a system."""
        return triton.cdiv(self.T, STEPS)

    @property
    def across(self) -> int:
        """The programs that share the columns of a matrix."""
        return triton.cdiv(self.V, self.constants["VALUES"])

    def options(self, name: str) -> dict[str, Any]:
        """The constants of a kernel, and its warps."""
        warps = WARPS[name][self.constants["STATES"] > 64]
        return {**self.constants, "num_warps": warps, "num_stages": 1}


def levels() -> int:
    """The doublings that make a chunk of one step."""
    return STEPS.bit_length() - 1


def launch_tables(gates: Tensor) -> Tensor:
    """Write products of gates `(outer, H, T)` of each chunk, `(G, chunks, rows, STEPS)`."""
    outer, H, T = gates.shape
    chunks, rows = triton.cdiv(T, STEPS), 2 * (levels() + 1)
    tables = gates.new_empty(outer * H, chunks, rows, STEPS, dtype=torch.float32)
    call(
        decays, outer * H * triton.cdiv(chunks, MANY), gates, tables, T, H, chunks,
        *gates.stride(), STEPS=STEPS, LEVELS=levels(), MANY=MANY, num_warps=4,
    )  # fmt: skip
    return tables


def launch_states(
    keys: Tensor, values: Tensor, tables: Tensor, start: Tensor | None, reverse: bool
) -> tuple[Tensor, Tensor]:
    """Compute the states before all chunks, and the last; or the gradients in those after them.

    Args:
        keys, values (outer, H, T, n), (outer, H, T, V): k and v; or q and the gradient in y.
        tables: products of gates.
        start (G, n, V): the state to start from. None: zeros.
        reverse: whether to go from the last chunk to the first.

    Returns:
        `(G, chunks, n, V)` and `(G, n, V)`.
    """
    sizes = Sizes.of(keys, values)
    G, N, V, chunks = sizes.G, sizes.N, sizes.V, sizes.chunks
    states, last = tables.new_empty(G, chunks, N, V), tables.new_empty(G, N, V)
    call(
        contribute, G * chunks * sizes.across, keys, values, tables, states, sizes.T, sizes.H, N,
        V, chunks, *keys.stride(), *values.stride(),
        ROW=levels() if reverse else 2 * levels() + 1, **sizes.options("contribute"),
    )  # fmt: skip
    begin = last if start is None else start
    call(
        carry, G * triton.cdiv(N * V, WIDTH), states, tables, begin, last, chunks, N * V,
        STEPS=STEPS, LEVELS=levels(), WIDTH=WIDTH, STARTED=start is not None, REVERSE=reverse,
        num_warps=WIDTH // 64,
    )  # fmt: skip
    return states, last


def launch_gated(
    gates: Tensor, keys: Tensor, queries: Tensor, values: Tensor, start: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run all steps; as `gated_chunks`."""
    sizes = Sizes.of(keys, values)
    start = None if start is None else start.contiguous()
    tables = launch_tables(gates)
    states, last = launch_states(keys, values, tables, start, False)
    outputs = torch.empty(values.shape, dtype=values.dtype, device=values.device)
    call(
        read, sizes.G * sizes.chunks * sizes.across, keys, queries, values, tables, states,
        outputs, sizes.T, sizes.H, sizes.N, sizes.V, sizes.chunks, *keys.stride(),
        *queries.stride(), *values.stride(), **sizes.options("read"),
    )  # fmt: skip
    return outputs, last, states, tables


def launch_pull(
    keys: Tensor,
    queries: Tensor,
    values: Tensor,
    states: Tensor,
    tables: Tensor,
    to_outputs: Tensor,
    to_last: Tensor | None,
) -> tuple[Tensor, ...]:
    """Compute the gradients in gates, keys, queries, values and start; as `gated_gradients`."""
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
        to_values, *shape, *strides, *to_outputs.stride(), **sizes.options("pull_values"),
    )  # fmt: skip
    strides = (*strides, *values.stride(), *to_outputs.stride())
    to_edges = tables.new_empty(G, chunks, 2, STEPS)
    call(
        pull_rows, G * chunks, keys, queries, values, to_outputs, tables, states, to_states,
        to_keys, to_queries, to_edges, *shape, *strides, **sizes.options("pull_rows"),
    )  # fmt: skip
    to_gates = tables.new_empty(keys.shape[:-1])
    call(
        pull_gates, G * chunks, keys, queries, values, to_outputs, tables, to_edges, to_gates,
        *shape, *strides, **sizes.options("pull_gates"),
    )  # fmt: skip
    return to_gates, to_keys, to_queries, to_values, to_start
