"""Compilation of the kernels to the machine code of a GPU that need not be present.

`python -m tests.linrec.compiled_kernels` compiles all of them for compute capability 9.0 (an H100):
the interpreter, in which they run in tests, knows no registers, shared memory or layouts.
"""

import sys
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from linrec.kernels import chunk_kernels, delta_launch, gated_launch, scan_kernels
from linrec.kernels.chunk_launch import HIGH, PRECISION, STEPS, TILED, WALKED, WIDE
from linrec.kernels.launch import ROWS, STAGES, TILE, TILE_WARPS
from linrec.kernels.launch import WARPS as WALK_WARPS

TARGET, SHARED = GPUTarget("cuda", 90, 32), 227 << 10  # bytes that a program may share there
POINTERS = {
    *("first", "second", "parts", "outputs", "gates", "keys", "queries", "values", "start"),
    *("last", "lefts", "rights", "decay", "drive", "states", "to_decay", "first", "products"),
    "ends",
}


def kernels() -> Iterator[tuple[Any, dict[str, Any], int]]:
    """List the kernels with their constants and warps, as they are launched."""
    for left in (True, False):
        yield chunk_kernels.split, {"HIGH": HIGH, "WIDE": WIDE, "LEFT": left}, 4
    for states, values, warps, precision in (
        (16, TILED, 4, "ieee"),
        (64, TILED, 4, PRECISION),
        (128, TILED // 2, 8, PRECISION),
    ):
        sizes = {"STATES": states, "VALUES": values, "STEPS": STEPS, "PRECISION": precision}
        yield chunk_kernels.gated, sizes | {"STARTED": states == 64}, warps
    for rank, number in ((False, tl.float32), (True, tl.float32), (True, tl.float64)):
        sizes = {"STATES": 128, "VALUES": WALKED, "STARTED": rank, "RANK": rank, "SUM": number}
        yield chunk_kernels.walk_matrices, sizes, 2
    for back in (False, True):
        flags = {"COMPLEX": back, "CONJUGATE": back, "REVERSE": back, "SHIFT": int(back)}
        flags |= {"SUM": tl.float32}
        whole = {"STARTED": not back, "GRADIENT": back}
        walked = flags | {"WIDTH": 128, "ROWS": ROWS, "STAGES": STAGES, "BITS": tl.int32}
        walked["OFFSET"] = tl.int64 if back else tl.int32
        yield scan_kernels.walk, walked | whole | {"PRODUCTS": False}, WALK_WARPS
        yield scan_kernels.gather, walked, WALK_WARPS
        yield scan_kernels.tile, flags | whole | {"STEPS": TILE}, TILE_WARPS


def launched() -> Iterator[tuple[Any, dict[str, Any], dict[str, str], int]]:
    """List the kernels of gates and of delta rules, with constants, kinds and warps."""
    found: dict[tuple[str, ...], tuple[Any, dict[str, Any], dict[str, str], int]] = {}
    pointers = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}

    def record(kernel: Any, _: int, *given: Any, **options: Any) -> None:
        warps = options.pop("num_warps")
        options.pop("num_stages", None)
        kinds = {
            name: pointers[each.dtype] if isinstance(each, torch.Tensor) else "i32"
            for name, each in zip(kernel.arg_names, given, strict=False)
        }
        kinds |= dict.fromkeys(options, "constexpr")
        key = (kernel.__name__, *map(str, options.items()), *kinds.values())
        found.setdefault(key, (kernel, options, kinds, warps))

    with (
        mock.patch.object(gated_launch, "call", record),
        mock.patch.object(delta_launch, "call", record),
    ):
        for size, dtype in ((64, torch.bfloat16), (128, torch.bfloat16), (64, torch.float16)):
            a, start = torch.ones(1, 1, 70, dtype=dtype), torch.ones(1, size, size)
            k, q, v, left, right = torch.ones(5, 1, 1, 70, size, dtype=dtype)
            _, last, states, tables = gated_launch.launch_gated(a, k, q, v, start)
            gated_launch.launch_pull(k, q, v, states, tables, v, last)
            given = a, k, q, v, left, right
            _, last, states, fed, inverses = delta_launch.launch_delta(*given, start)
            delta_launch.launch_delta_pull(*given, states, fed, inverses, v, last)
    yield from found.values()


def exchanges(made: Any) -> int:
    """Count how often threads exchange what they hold."""
    return made.asm["ttgir"].count("convert_layout")


def main() -> int:
    """Compile each, and say what it shares."""
    wrong = 0
    for kernel, constants, warps in kernels():
        numbers = "*fp64" if constants.get("SUM") is tl.float64 else "*fp32"
        kinds = {
            name: "constexpr" if name in constants else numbers if name in POINTERS else "i32"
            for name in kernel.arg_names
        }
        even = {}
        walks = kernel in (scan_kernels.walk, scan_kernels.gather)
        if walks:  # features lie side by side: a stride of 1 is known to the compiler
            constants |= {name: 1 for name in kernel.arg_names if name.endswith("_feature")}
            kinds |= dict.fromkeys((name for name in kinds if name in constants), "constexpr")
            places = (i for i, kind in enumerate(kinds.values()) if kind != "constexpr")
            even = {(i,): [["tt.divisibility", 16]] for i in places}
        source = ASTSource(fn=kernel, signature=kinds, constexprs=constants, attrs=even)
        options = {"num_warps": warps, "num_stages": 3}
        made = triton.compile(source, target=TARGET, options=options)
        fits = made.metadata.shared <= SHARED and "cubin" in made.asm
        # Threads that exchange what they have in every step take five times as long.
        fits &= not (walks and not constants["COMPLEX"] and exchanges(made) >= ROWS)
        wrong += not fits
        print(kernel.__name__, constants, f"{made.metadata.shared} bytes", "" if fits else "WRONG")
    for kernel, constants, kinds, warps in launched():
        source = ASTSource(fn=kernel, signature=kinds, constexprs=constants, attrs={})
        options = {"num_warps": warps, "num_stages": 1}
        made = triton.compile(source, target=TARGET, options=options)
        fits = made.metadata.shared <= SHARED and "cubin" in made.asm
        wrong += not fits
        print(kernel.__name__, constants, f"{made.metadata.shared} bytes", "" if fits else "WRONG")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
