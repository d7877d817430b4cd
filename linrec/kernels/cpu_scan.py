"""Loops of the elementwise scan x_t = a_t x_{t-1} + b_t, compiled for the processor by Numba.

Imported only where Numba is installed. Each loop reads decays and drives once and writes the states
once, in the order of the scan. Products and sums are rounded separately, since Numba fuses them
only on request: the states equal those of the plain loop bit for bit.

- A loop over rows needs the features of a step side by side in memory and takes them as vectors;
  the decays of a step may be one number. Where a step lies below the one before it in memory, its
  features are traversed downwards too: a processor reads ahead along one direction, but not along
  rows that are read upwards and follow one another downwards.
- A loop over lanes takes any strides. A lane is one feature of one sequence; a few are run
  together, since each step waits for the one before it.

Each tensor is passed as its memory and its strides, `(start, sequence, step, feature)` in numbers;
for a scan backwards in time, the stride of a step is negative. The features of a sequence are cut
into pieces; a call scans the pieces from `begin` to `end` of all sequences.

The gradient goes through the steps from the last one of the scan to the first:

    λ_t = g_t + a*_{t+1} λ_{t+1}        ga_t = λ_t x*_{t-1}
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUntypedFunctionDecorator=false
# (Numba has no type annotations, and the loops are written in its own language.)

from typing import Any

import numba
import numpy as np

# Lanes run together. More would need more cache lines than fit if the distance between steps is a
# power of two.
LANES = 8


def compile_loop(function: Any) -> Any:
    """Compile a loop at its first call with each dtype; cache the code if there is a folder."""
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # there is no folder
        return numba.njit(nogil=True)(function)


@compile_loop
def scan_rows(a, a_at, b, b_at, s, s_at, x, x_at, steps, features, width, begin, end):
    """Write the states `x` from decays, drives and state, by rows of at most `width` features."""
    pieces = (features + width - 1) // width
    repeated = np.empty(width, x.dtype)
    for piece in range(begin, end):
        n, left = piece // pieces, piece % pieces * width
        size = min(width, features - left)
        i, j = a_at[0] + n * a_at[1] + left * a_at[3], b_at[0] + n * b_at[1] + left
        k, first = x_at[0] + n * x_at[1] + left, s_at[0] + n * s_at[1] + left
        before = s[first : first + size]
        for _ in range(steps):
            drive, now = b[j : j + size], x[k : k + size]
            if a_at[3]:
                decay = a[i : i + size]
            else:
                repeated[:] = a[i]
                decay = repeated[:size]
            if x_at[2] > 0:
                for f in range(size):
                    now[f] = decay[f] * before[f] + drive[f]
            else:
                for f in range(size - 1, -1, -1):
                    now[f] = decay[f] * before[f] + drive[f]
            before = now
            i, j, k = i + a_at[2], j + b_at[2], k + x_at[2]


@compile_loop
def scan_lanes(a, a_at, b, b_at, s, s_at, x, x_at, steps, features, width, begin, end):
    """Write the states as `scan_rows` does, for any strides."""
    pieces = (features + width - 1) // width
    now = np.empty(width, x.dtype)
    for piece in range(begin, end):
        n, left = piece // pieces, piece % pieces * width
        size = min(width, features - left)
        i, j = a_at[0] + n * a_at[1] + left * a_at[3], b_at[0] + n * b_at[1] + left * b_at[3]
        k, first = x_at[0] + n * x_at[1] + left * x_at[3], s_at[0] + n * s_at[1] + left * s_at[3]
        for lane in range(size):
            now[lane] = s[first + lane * s_at[3]]
        for _ in range(steps):
            for lane in range(size):
                value = a[i + lane * a_at[3]] * now[lane] + b[j + lane * b_at[3]]
                now[lane] = value
                x[k + lane * x_at[3]] = value
            i, j, k = i + a_at[2], j + b_at[2], k + x_at[2]


@compile_loop
def gradient_rows(
    a, a_at, g, g_at, s, s_at, x, x_at, to_b, to_a, to_at, steps, features, width, begin, end
):
    """Write the gradients in drives and decays by rows, given those in the states `x`."""
    pieces = (features + width - 1) // width
    later, repeated = np.empty(width, x.dtype), np.empty(width, x.dtype)
    for piece in range(begin, end):
        n, left = piece // pieces, piece % pieces * width
        size, last = min(width, features - left), steps - 1
        i = a_at[0] + n * a_at[1] + last * a_at[2] + left * a_at[3]
        j = g_at[0] + n * g_at[1] + last * g_at[2] + left
        k = x_at[0] + n * x_at[1] + last * x_at[2] + left
        m = to_at[0] + n * to_at[1] + last * to_at[2] + left
        first = s_at[0] + n * s_at[1] + left
        later[:] = 0
        for step in range(last, -1, -1):
            k -= x_at[2]
            before = x[k : k + size] if step else s[first : first + size]
            gradient, now, product = g[j : j + size], to_b[m : m + size], to_a[m : m + size]
            if a_at[3]:
                decay = a[i : i + size]
            else:
                repeated[:] = a[i]
                decay = repeated[:size]
            if to_at[2] > 0:  # (the steps go downwards)
                for f in range(size - 1, -1, -1):
                    value = gradient[f] + later[f]
                    now[f] = value
                    product[f] = value * np.conj(before[f])
                    later[f] = np.conj(decay[f]) * value
            else:
                for f in range(size):
                    value = gradient[f] + later[f]
                    now[f] = value
                    product[f] = value * np.conj(before[f])
                    later[f] = np.conj(decay[f]) * value
            i, j, m = i - a_at[2], j - g_at[2], m - to_at[2]


@compile_loop
def gradient_lanes(
    a, a_at, g, g_at, s, s_at, x, x_at, to_b, to_a, to_at, steps, features, width, begin, end
):
    """Write the gradients as `gradient_rows` does, for any strides."""
    pieces = (features + width - 1) // width
    now = np.empty(width, x.dtype)
    for piece in range(begin, end):
        n, left = piece // pieces, piece % pieces * width
        size, last = min(width, features - left), steps - 1
        i = a_at[0] + n * a_at[1] + last * a_at[2] + left * a_at[3]
        j = g_at[0] + n * g_at[1] + last * g_at[2] + left * g_at[3]
        k = x_at[0] + n * x_at[1] + last * x_at[2] + left * x_at[3]
        m = to_at[0] + n * to_at[1] + last * to_at[2] + left * to_at[3]
        first = s_at[0] + n * s_at[1] + left * s_at[3]
        for step in range(last, -1, -1):
            for lane in range(size):
                value = g[j + lane * g_at[3]]
                if step < last:
                    value += np.conj(a[i + lane * a_at[3]]) * now[lane]
                now[lane] = value
                to_b[m + lane * to_at[3]] = value
                if step:
                    before = x[k - x_at[2] + lane * x_at[3]]
                else:
                    before = s[first + lane * s_at[3]]
                to_a[m + lane * to_at[3]] = value * np.conj(before)
            if step < last:
                i -= a_at[2]
            j, k, m = j - g_at[2], k - x_at[2], m - to_at[2]
