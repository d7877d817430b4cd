"""Products of tiles in Triton kernels, of given numbers and of sums in float32.

Imported only where Triton is installed.

Products of numbers in bfloat16 are exact in float32. A factor that was computed in float32 is cut
into `PARTS` numbers of bfloat16, each rounded with an error of at most 2^-8. Two parts have an
error of 2^-16 of a term, three have 2^-24, like float32's own rounding. Other dtypes multiply in
`PRECISION`.

Reference:
    Ootomo and Yokota 2022, Recovering single precision accuracy from Tensor Cores, section 3.
"""

# pyright: reportArgumentType=false, reportGeneralTypeIssues=false
# (Kernel arguments become Triton constants, which pyright does not know.)

import triton
import triton.language as tl


@triton.jit
def product_of(a, b):
    """Multiply two numbers, for a running product."""
    return a * b


@triton.jit
def rows_of(
    base, system, t, columns, T, C, H, outer, head, time, column, PARTS: tl.constexpr
):  # fmt: skip
    """Load rows of steps t, those past the end as zeros."""
    at = base + (system // H) * outer + (system % H) * head
    at += t[:, None] * time + columns[None, :] * column
    found = tl.load(at, mask=(t < T)[:, None] & (columns < C)[None, :], other=0.0)
    if PARTS == 0:
        found = found.to(tl.float32)
    return found


@triton.jit
def given_rows(base, system, t, columns, T, C, PARTS: tl.constexpr):
    """Load rows of steps t of `(G, T, C)`, contiguous; those past the end as zeros."""
    at = base + (system * T + t[:, None]) * C + columns[None, :]
    found = tl.load(at, mask=(t < T)[:, None] & (columns < C)[None, :], other=0.0)
    if PARTS == 0:
        found = found.to(tl.float32)
    return found


@triton.jit
def dot_halves(left, right, sums, PRECISION: tl.constexpr):
    """Add a product of numbers in bfloat16; "ieee" is the interpreter's only precision."""
    if PRECISION == "ieee":
        return tl.dot(
            left.to(tl.float32), right.to(tl.float32), sums, input_precision=PRECISION
        )  # fmt: skip
    return tl.dot(left, right, sums)


@triton.jit
def dot_whole(left, right, sums, PARTS: tl.constexpr, PRECISION: tl.constexpr):
    """Add a product of given numbers."""
    if PARTS == 0:
        return tl.dot(left, right, sums, input_precision=PRECISION)
    return dot_halves(left, right, sums, PRECISION)


@triton.jit
def dot_right(left, right, sums, PARTS: tl.constexpr, PRECISION: tl.constexpr):
    """Add a product of a given left factor and a right factor in float32."""
    if PARTS == 0:
        return tl.dot(left, right, sums, input_precision=PRECISION)
    for _ in tl.static_range(PARTS):
        part = right.to(tl.bfloat16)
        sums = dot_halves(left, part, sums, PRECISION)
        right -= part.to(tl.float32)
    return sums


@triton.jit
def dot_left(left, right, sums, PARTS: tl.constexpr, PRECISION: tl.constexpr):
    """Add a product of a left factor in float32 and a given right factor."""
    if PARTS == 0:
        return tl.dot(left, right, sums, input_precision=PRECISION)
    for _ in tl.static_range(PARTS):
        part = left.to(tl.bfloat16)
        sums = dot_halves(part, right, sums, PRECISION)
        left -= part.to(tl.float32)
    return sums
