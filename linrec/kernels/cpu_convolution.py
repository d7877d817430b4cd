"""Convolutions of sequences with many kernels, and their gradients, compiled by Numba.

Two real signals a and b form one complex signal a + i b, whose transform needs no shuffling; so do
two kernels. Products with the spectrum of a real signal keep the two apart:

    F(h_a * u) + i F(h_b * u) = (H_a + i H_b) U

Both have rounding errors of the larger one, so kernels and gradients are divided by powers of two
near their norms before they are combined.

A block is two vectors of outputs: in its rows, the first vector holds the real parts and the second
the imaginary parts. A long transform of n = n_1 n_2 numbers consists of n_1 short ones, of columns
of n_2 numbers that are n_1 apart; products with e^(-2πi jk / n); and n_2 short ones, of the rows of
the results (Cooley and Tukey 1965). So a short transform works in the nearest cache. The inverse
swaps n_1 and n_2, and so reads the frequencies in the order in which the transform writes them:
f = j + n_2 i is at place j n_1 + i.

A few blocks share a buffer of T rows. Numbers are copied between it and the memory of outputs or
gradients in the order of that memory. (Copied block by block, each row would wait for a line of
memory.)

Imported only where Numba is installed.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUntypedFunctionDecorator=false
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false
# pyright: reportUnknownArgumentType=false
# (Numba has no type annotations, and the loops are written in its own language.)

import math

import numpy as np

from linrec.kernels.cpu_scan import compile_loop
from linrec.kernels.cpu_transforms import inlined, plus, read, times, transform, write
from linrec.kernels.cpu_vectors import load, spread, store, width

# The smallest scale: the reciprocal of a smaller one would exceed float32's range.
SMALLEST = 2.0**-126


@inlined
def times_conjugate(a, b):
    """Compute a* b."""
    return a[0] * b[0] + a[1] * b[1], a[0] * b[1] - a[1] * b[0]


@inlined
def swap(a):
    """Swap real and imaginary parts, which turns a transform into its inverse."""
    return a[1], a[0]


@inlined
def transform_column(a, b, j, middle, columns, radices, roots, turns):
    """Transform column j, given in `a`; turn it and write it into the rows of `middle`."""
    row = 2 * width(a)
    done = b if transform(a, b, radices, roots) else a
    for i in range(len(roots) // 2):
        value = times(a, read(done, i * row), turns, i * j)
        write(middle, (i * columns + j) * row, value)


@inlined
def transform_row(i, middle, b, radices, roots):
    """Transform row i of `middle`, with `b` as scratch memory; return where the result is."""
    size = len(roots) * width(b)
    row = middle[i * size : (i + 1) * size]
    return b if transform(row, b, radices, roots) else row


@inlined
def transform_columns(given, across, steps, a, b, middle, plan):
    """Transform the columns of a block of real signals: T given rows, then zeros."""
    n_1, n_2, _, radices, _, roots, turns = plan
    row, zero = 2 * width(a), spread(a, 0)
    for j in range(n_1):
        for i in range(n_2):
            step = i * n_1 + j
            if step < steps:
                write(a, i * row, read(given, step * across))
            else:
                write(a, i * row, (zero, zero))
        transform_column(a, b, j, middle, n_1, radices, roots, turns)


@inlined
def multiply(source, start, scales, target, place):
    """Write the products of scales and the numbers of `source` from `start` on."""
    size = len(scales)
    whole = size - size % width(target)
    for f in range(0, whole, width(target)):
        store(target, place + f, load(source, start + f) * load(scales, f))
    for f in range(whole, size):
        target[place + f] = source[start + f] * scales[f]


@inlined
def copy_to(given, across, signals, start, apart, steps, scales):
    """Copy scaled steps of signals into a buffer, padded with zeros to a width."""
    for step in range(steps):
        multiply(signals, start + step * apart, scales, given, step * across)
        for f in range(len(scales), across):
            given[step * across + f] = 0


@inlined
def share_room(room, plan):
    """Split scratch memory into parts: two short transforms, a long one, and the rest."""
    row = 2 * width(room)
    short, n = max(plan[0], plan[1]) * row, plan[0] * plan[1] * row
    a, b = room[:short], room[short : 2 * short]
    return a, b, room[2 * short : 2 * short + n], room[2 * short + n :]


@compile_loop
def arrange_kernels(spectra, factors, half, mirrored, kernels, begin, end):
    """Arrange the spectra of some blocks of kernels for the loops, in pairs H_a + i H_b.

    The mirror image of a pair is H*_a + i H*_b.

    Args:
        spectra (m, p, frequencies, 2): the half spectra of real kernels.
        factors (p): numbers to multiply the kernels by.
        half (n), mirrored (n): the order of frequencies (`Order`).
        kernels (blocks, m, 2 width n): the result, zeros before the call.
        begin, end: the range of blocks.
    """
    lanes = kernels.shape[2] // (2 * len(half))
    for block in range(begin, end):
        first = 2 * lanes * block
        second, last = first + lanes, min(first + 2 * lanes, len(factors))
        for channel in range(len(spectra)):
            target, source = kernels[block, channel], spectra[channel]
            for place in range(len(half)):
                f, start = half[place], 2 * lanes * place
                for a in range(first, min(second, last)):
                    real, imaginary = source[a, f, 0] * factors[a], source[a, f, 1] * factors[a]
                    target[start + a - first] = real
                    target[start + a - first + lanes] = -imaginary if mirrored[place] else imaginary
                for b in range(second, last):
                    real, imaginary = source[b, f, 0] * factors[b], source[b, f, 1] * factors[b]
                    target[start + b - second] += imaginary if mirrored[place] else -imaginary
                    target[start + b - second + lanes] += real


@compile_loop
def convolve(inputs, kernels, signals, at, apart, steps, scales, plan, room, few, begin, end):
    """Write the convolutions of some sequences with all kernels.

    Args:
        inputs (sequences, m, 2 n): the spectra of the inputs, divided by n.
        kernels (blocks, m, 2 width n): the spectra of the kernels, two as one.
        signals: the flat memory of the outputs.
        at (sequences): the start of each sequence in `signals`.
        apart: the distance between steps in `signals`.
        steps: T.
        scales (p): the divisors of the kernels.
        plan: n_1, n_2, their radices and roots of unity, and the roots of n (`plan_of`).
        room: a flat memory for two short transforms, a long one and a few blocks.
        few: the number of blocks that share a buffer.
        begin, end: the range of sequences.
    """
    n_1, n_2, radices, radices_2, roots, roots_2, turns = plan
    a, b, middle, found = share_room(room, plan)
    row = 2 * width(room)
    for sequence in range(begin, end):
        for left in range(0, len(kernels), few):
            right = min(left + few, len(kernels))
            across = (right - left) * row
            for block in range(left, right):
                for j in range(n_2):
                    for i in range(n_1):
                        place = j * n_1 + i
                        value = read(kernels[block, 0], place * row)
                        value = times(room, value, inputs[sequence, 0], place)
                        for channel in range(1, inputs.shape[1]):
                            more = read(kernels[block, channel], place * row)
                            more = times(room, more, inputs[sequence, channel], place)
                            value = plus(value, more)
                        write(a, i * row, swap(value))
                    transform_column(a, b, j, middle, n_2, radices, roots, turns)
                for i in range(n_1):
                    done = transform_row(i, middle, b, radices_2, roots_2)
                    for j in range(n_2):
                        step = i + n_1 * j
                        if step < steps:
                            place = step * across + (block - left) * row
                            write(found, place, swap(read(done, j * row)))
            some = scales[left * row : right * row]
            for step in range(steps):
                start = at[sequence] + step * apart + left * row
                multiply(found, step * across, some, signals, start)


@compile_loop
def correlate(kernels, signals, at, apart, steps, scales, sums, plan, room, few, begin, end):
    """Write the spectra Σ H* G of some sequences, the adjoint of the convolution.

    Args:
        kernels, at, apart, steps, scales, plan, few, begin, end: as for `convolve`.
        signals: the flat memory of the gradients in the outputs, G transformed.
        sums (sequences, m, 2 n): the result; only the part of each sum that is the spectrum of a
            real signal counts.
        room: as for `convolve`, with space for m more long transforms.
    """
    n_1, n_2, radices, _, roots, _, _ = plan
    a, b, middle, rest = share_room(room, plan)
    row, channels = 2 * width(room), kernels.shape[1]
    total, given = rest[: channels * n_1 * n_2 * row], rest[channels * n_1 * n_2 * row :]
    for sequence in range(begin, end):
        total[:] = 0
        for left in range(0, len(kernels), few):
            right = min(left + few, len(kernels))
            across, start = (right - left) * row, at[sequence] + left * row
            some = scales[left * row : right * row]
            copy_to(given, across, signals, start, apart, steps, some)
            for block in range(left, right):
                one = given[(block - left) * row :]
                transform_columns(one, across, steps, a, b, middle, plan)
                for j in range(n_2):
                    done = transform_row(j, middle, b, radices, roots)
                    for channel in range(channels):
                        for i in range(n_1):
                            place = (j * n_1 + i) * row
                            more = read(kernels[block, channel], place)
                            more = times_conjugate(more, read(done, i * row))
                            place += channel * n_1 * n_2 * row
                            write(total, place, plus(read(total, place), more))
        for channel in range(channels):
            for place in range(2 * n_1 * n_2):
                number, lanes = room[0] * 0, (2 * channel * n_1 * n_2 + place) * width(room)
                for lane in range(width(room)):
                    number += total[lanes + lane]
                sums[sequence, channel, place] = number


@inlined
def measure(signals, at, apart, steps, left, scales):
    """Fill `scales` with powers of two near the norms of signals, or zeros in double precision."""
    for start in at:
        for step in range(steps):
            source = signals[start + step * apart + left :]
            for f in range(len(scales)):
                scales[f] += np.float64(source[f]) ** 2
    for f in range(len(scales)):
        if scales[f] < np.inf:
            scales[f] = max(math.ldexp(1.0, math.frexp(math.sqrt(scales[f]))[1]), SMALLEST)


@compile_loop
def correlate_inputs(inputs, signals, at, apart, steps, scales, sums, plan, room, few, begin, end):
    """Write the spectra Σ U* G of some blocks, the adjoint of the convolution in the kernels.

    Args:
        inputs (sequences, m, 2 n): the conjugated spectra U* of the inputs.
        signals: the flat memory of the gradients in the outputs, G transformed.
        at, apart, steps, plan, room, few: as for `convolve`.
        scales (p): zeros in double precision, overwritten with the divisors of the gradients.
        sums (blocks, m, 2 width n): the result, zeros before the call.
        begin, end: the range of blocks.
    """
    n_1, n_2, radices, _, roots, _, _ = plan
    a, b, middle, given = share_room(room, plan)
    row = 2 * width(room)
    for left in range(begin, end, few):
        right = min(left + few, end)
        across, some = (right - left) * row, scales[left * row : right * row]
        measure(signals, at, apart, steps, left * row, some)
        factors = (1 / some).astype(signals.dtype)
        for sequence in range(len(inputs)):
            start = at[sequence] + left * row
            copy_to(given, across, signals, start, apart, steps, factors)
            for block in range(left, right):
                one = given[(block - left) * row :]
                transform_columns(one, across, steps, a, b, middle, plan)
                for j in range(n_2):
                    done = transform_row(j, middle, b, radices, roots)
                    for channel in range(inputs.shape[1]):
                        total = sums[block, channel]
                        for i in range(n_1):
                            place = j * n_1 + i
                            more = times(
                                room, read(done, i * row), inputs[sequence, channel], place
                            )
                            write(total, place * row, plus(read(total, place * row), more))
