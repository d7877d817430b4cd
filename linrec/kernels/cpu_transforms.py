"""Fourier transforms of short complex signals, many at a time, compiled by Numba.

    X_k = Σ_j e^(-2πi jk / n) x_j

A row has one number of each of as many signals as a vector holds: their real parts, then their
imaginary parts. Numbers never move within a vector. Rows follow one another, `(n, 2, width)`.

Stages of radix r = 2, 3, 4, 5 and 8 go from one memory to another and sort the results on the way
(Stockham's algorithm: Van Loan 1992, Computational Frameworks for the Fast Fourier Transform,
section 1.7). Earlier stages have split a signal into `stride` signals; a stage of n = r m splits
each of these:

    y[q + stride (r p + k)] = e^(-2πi pk / n) Σ_j e^(-2πi jk / r) x[q + stride (p + m j)]

Imported only where Numba is installed.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUntypedFunctionDecorator=false
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false
# pyright: reportUnknownArgumentType=false
# (Numba has no type annotations, and the loops are written in its own language.)

import math

import numba

from linrec.kernels.cpu_vectors import load, spread, store, width

HALF_ROOT = math.sqrt(0.5)
SINE_3 = math.sin(2 * math.pi / 3)
COSINE_5, COSINE_5_2 = math.cos(2 * math.pi / 5), math.cos(4 * math.pi / 5)
SINE_5, SINE_5_2 = math.sin(2 * math.pi / 5), math.sin(4 * math.pi / 5)

inlined = numba.njit(nogil=True, forceinline=True)


@inlined
def read(memory, start):
    """Read the row at `start`: the real parts and the imaginary parts."""
    return load(memory, start), load(memory, start + width(memory))


@inlined
def write(memory, start, value):
    """Write a row at `start`."""
    store(memory, start, value[0])
    store(memory, start + width(memory), value[1])


@inlined
def plus(a, b):
    """Compute a + b."""
    return a[0] + b[0], a[1] + b[1]


@inlined
def minus(a, b):
    """Compute a - b."""
    return a[0] - b[0], a[1] - b[1]


@inlined
def plus_i(a, b):
    """Compute a + i b."""
    return a[0] - b[1], a[1] + b[0]


@inlined
def minus_i(a, b):
    """Compute a - i b."""
    return a[0] + b[1], a[1] - b[0]


@inlined
def times(memory, a, numbers, place):
    """Multiply a row by one complex number of `numbers`."""
    real, imaginary = spread(memory, numbers[2 * place]), spread(memory, numbers[2 * place + 1])
    return a[0] * real - a[1] * imaginary, a[0] * imaginary + a[1] * real


@inlined
def write_turned(memory, start, value, roots, place):
    """Write a row, times a root of unity unless that is 1."""
    write(memory, start, times(memory, value, roots, place) if place else value)


@inlined
def transform_four(a, b, c, d):
    """Transform four rows."""
    even, odd = plus(a, c), minus(a, c)
    sums, differences = plus(b, d), minus(b, d)
    return plus(even, sums), minus_i(odd, differences), minus(even, sums), plus_i(odd, differences)


@inlined
def by_two(x, y, n, stride, roots):
    """Take a stage of radix 2."""
    m, row = n // 2, 2 * width(x)
    step, apart = stride * row, stride * m * row
    for p in range(m):
        for q in range(stride):
            i, o, w = (q + stride * p) * row, (q + stride * 2 * p) * row, stride * p
            a, b = read(x, i), read(x, i + apart)
            write(y, o, plus(a, b))
            write_turned(y, o + step, minus(a, b), roots, w)


@inlined
def by_three(x, y, n, stride, roots):
    """Take a stage of radix 3."""
    m, row = n // 3, 2 * width(x)
    step, apart = stride * row, stride * m * row
    half, sine = spread(x, -0.5), spread(x, SINE_3)
    for p in range(m):
        for q in range(stride):
            i, o, w = (q + stride * p) * row, (q + stride * 3 * p) * row, stride * p
            a, b, c = read(x, i), read(x, i + apart), read(x, i + 2 * apart)
            total, left = plus(b, c), minus(b, c)
            middle = (a[0] + half * total[0], a[1] + half * total[1])
            turned = (sine * left[0], sine * left[1])
            write(y, o, plus(a, total))
            write_turned(y, o + step, minus_i(middle, turned), roots, w)
            write_turned(y, o + 2 * step, plus_i(middle, turned), roots, 2 * w)


@inlined
def by_four(x, y, n, stride, roots):
    """Take a stage of radix 4."""
    m, row = n // 4, 2 * width(x)
    step, apart = stride * row, stride * m * row
    for p in range(m):
        for q in range(stride):
            i, o, w = (q + stride * p) * row, (q + stride * 4 * p) * row, stride * p
            a, b = read(x, i), read(x, i + apart)
            c, d = read(x, i + 2 * apart), read(x, i + 3 * apart)
            a, b, c, d = transform_four(a, b, c, d)
            write(y, o, a)
            write_turned(y, o + step, b, roots, w)
            write_turned(y, o + 2 * step, c, roots, 2 * w)
            write_turned(y, o + 3 * step, d, roots, 3 * w)


@inlined
def by_five(x, y, n, stride, roots):
    """Take a stage of radix 5."""
    m, row = n // 5, 2 * width(x)
    step, apart = stride * row, stride * m * row
    near, far = spread(x, COSINE_5), spread(x, COSINE_5_2)
    sine, sine_2 = spread(x, SINE_5), spread(x, SINE_5_2)
    for p in range(m):
        for q in range(stride):
            i, o, w = (q + stride * p) * row, (q + stride * 5 * p) * row, stride * p
            a = read(x, i)
            b, e = read(x, i + apart), read(x, i + 4 * apart)
            c, d = read(x, i + 2 * apart), read(x, i + 3 * apart)
            outer, outer_left = plus(b, e), minus(b, e)
            inner, inner_left = plus(c, d), minus(c, d)
            one = (
                a[0] + near * outer[0] + far * inner[0],
                a[1] + near * outer[1] + far * inner[1],
            )
            two = (
                a[0] + far * outer[0] + near * inner[0],
                a[1] + far * outer[1] + near * inner[1],
            )
            one_left = (
                sine * outer_left[0] + sine_2 * inner_left[0],
                sine * outer_left[1] + sine_2 * inner_left[1],
            )
            two_left = (
                sine_2 * outer_left[0] - sine * inner_left[0],
                sine_2 * outer_left[1] - sine * inner_left[1],
            )
            write(y, o, plus(a, plus(outer, inner)))
            write_turned(y, o + step, minus_i(one, one_left), roots, w)
            write_turned(y, o + 2 * step, minus_i(two, two_left), roots, 2 * w)
            write_turned(y, o + 3 * step, plus_i(two, two_left), roots, 3 * w)
            write_turned(y, o + 4 * step, plus_i(one, one_left), roots, 4 * w)


@inlined
def by_eight(x, y, n, stride, roots):
    """Take a stage of radix 8: two of radix 4, the second turned by eighths of a circle."""
    m, row = n // 8, 2 * width(x)
    step, apart = stride * row, stride * m * row
    root = spread(x, HALF_ROOT)
    for p in range(m):
        for q in range(stride):
            i, o, w = (q + stride * p) * row, (q + stride * 8 * p) * row, stride * p
            a, c = read(x, i), read(x, i + 2 * apart)
            e, g = read(x, i + 4 * apart), read(x, i + 6 * apart)
            a, c, e, g = transform_four(a, c, e, g)
            b, d = read(x, i + apart), read(x, i + 3 * apart)
            f, h = read(x, i + 5 * apart), read(x, i + 7 * apart)
            b, d, f, h = transform_four(b, d, f, h)
            d = ((d[0] + d[1]) * root, (d[1] - d[0]) * root)  # times (1 - i) / √2
            h = ((h[0] - h[1]) * root, (h[0] + h[1]) * root)  # times (1 + i) / √2
            write(y, o, plus(a, b))
            write_turned(y, o + step, plus(c, d), roots, w)
            write_turned(y, o + 2 * step, minus_i(e, f), roots, 2 * w)
            write_turned(y, o + 3 * step, minus(g, h), roots, 3 * w)
            write_turned(y, o + 4 * step, minus(a, b), roots, 4 * w)
            write_turned(y, o + 5 * step, minus(c, d), roots, 5 * w)
            write_turned(y, o + 6 * step, plus_i(e, f), roots, 6 * w)
            write_turned(y, o + 7 * step, plus(g, h), roots, 7 * w)


@numba.njit(nogil=True)
def transform(x, y, radices, roots):
    """Transform the rows of `x`, with `y` as scratch memory.

    Args:
        x, y (n, 2, width): flat memories; both are overwritten.
        radices: factors of n among 2, 3, 4, 5 and 8.
        roots (n, 2): e^(-2πi j / n), flat.

    Returns:
        Whether the transform is in `y` instead of `x`.
    """
    n, stride, in_y = len(roots) // 2, 1, False
    for radix in radices:
        if radix == 8:
            by_eight(x, y, n, stride, roots)
        elif radix == 5:
            by_five(x, y, n, stride, roots)
        elif radix == 4:
            by_four(x, y, n, stride, roots)
        elif radix == 3:
            by_three(x, y, n, stride, roots)
        else:
            by_two(x, y, n, stride, roots)
        n, stride, in_y = n // radix, stride * radix, not in_y
        x, y = y, x
    return in_y


def radices_of(n: int) -> tuple[int, ...]:
    """Factor n = 2^a 3^b 5^c into few radices."""
    found: list[int] = []
    for radix in (5, 3, 8, 4, 2):
        # (16 = 4 · 4 is faster than 8 · 2.)
        while n % radix == 0 and (radix, n) != (8, 16):
            found.append(radix)
            n //= radix
    return tuple(found)
