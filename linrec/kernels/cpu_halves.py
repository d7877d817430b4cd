"""The elementwise scan of half-precision numbers, with sums in float32, compiled by Numba.

Numbers are widened as they are read and rounded as they are written; each is read and written once.
Numba supports neither format on a CPU, so the bits of float16 are passed as signed integers and the
bits of bfloat16, the upper half of a float32, as unsigned integers. The state of a scan stays in
float32 from step to step.

The gradient needs the states in float32 too. The scan saves the state before every `BLOCK` steps as
a mark; in the backward pass a block is scanned again from its mark, then traversed from its end:

    λ_t = g_t + a_{t+1} λ_{t+1}        ga_t = λ_t x_{t-1}

Imported only where Numba is installed.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUntypedFunctionDecorator=false
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false
# pyright: reportUnknownArgumentType=false
# (Numba has no type annotations, and the loops are written in its own language.)

from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, types

from linrec.kernels.cpu_scan import compile_loop

# Steps between marks.
BLOCK = 64

BITS, FLOAT, HALF = ir.IntType(32), ir.FloatType(), ir.HalfType()

intrinsic: Any = extending.intrinsic  # (its functions are called without the first argument)


@intrinsic
def widen(typing, memory, place):
    """Read `memory[place]`, the bits of a half-precision number, as float32."""

    def write_code(context, builder, signature, values):
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        at = builder.gep(data, [values[1]])
        if memory.dtype == types.int16:
            return builder.fpext(builder.bitcast(builder.load(at), HALF), FLOAT)
        bits = builder.zext(builder.load(at), BITS)
        return builder.bitcast(builder.shl(bits, ir.Constant(BITS, 16)), FLOAT)

    return types.float32(memory, types.intp), write_code


@intrinsic
def narrow(typing, memory, place, number):
    """Write a float32 number to `memory[place]`, rounded to the nearest, ties to even."""

    def write_code(context, builder, signature, values):
        where, place, value = values
        data = context.make_array(signature.args[0])(context, builder, where).data
        at = builder.gep(data, [place])
        if memory.dtype == types.int16:
            builder.store(builder.bitcast(builder.fptrunc(value, HALF), ir.IntType(16)), at)
            return context.get_dummy_value()
        bits, sixteen = builder.bitcast(value, BITS), ir.Constant(BITS, 16)
        # Add half a unit, less one bit if the unit is even.
        odd = builder.and_(builder.lshr(bits, sixteen), ir.Constant(BITS, 1))
        rounded = builder.add(builder.add(bits, ir.Constant(BITS, 0x7FFF)), odd)
        quiet = builder.or_(bits, ir.Constant(BITS, 0x400000))
        chosen = builder.select(builder.fcmp_unordered("uno", value, value), quiet, rounded)
        builder.store(builder.trunc(builder.lshr(chosen, sixteen), ir.IntType(16)), at)
        return context.get_dummy_value()

    return types.void(memory, types.intp, types.float32), write_code


@compile_loop
def scan_halves(a, a_at, b, b_at, marks, x, x_at, steps, features, width, begin, end):
    """Write states by rows of at most `width` features, and the marks.

    Args:
        a, b, x: the flat memories of decays, drives and states; the numbers of a step are side by
            side.
        a_at, b_at, x_at: the strides of sequences and of steps.
        marks (blocks, batch, features): the states before each block; the first is given, the
            others are written.
        steps, features: T and the number of features.
        width: the number of features of a piece.
        begin, end: the range of pieces of all sequences.
    """
    # (Compilers vectorise loops over slices, but few loops over indices.)
    pieces = (features + width - 1) // width
    state = np.empty(width, np.float32)
    for piece in range(begin, end):
        n, left = piece // pieces, piece % pieces * width
        size = min(width, features - left)
        i, j, k = n * a_at[0] + left, n * b_at[0] + left, n * x_at[0] + left
        for f in range(size):
            state[f] = marks[0, n, left + f]
        for step in range(steps):
            if step and step % BLOCK == 0:
                for f in range(size):
                    marks[step // BLOCK, n, left + f] = state[f]
            decay, drive, now = a[i : i + size], b[j : j + size], x[k : k + size]
            for f in range(size):
                state[f] = widen(decay, f) * state[f] + widen(drive, f)
            for f in range(size):
                narrow(now, f, state[f])
            i, j, k = i + a_at[1], j + b_at[1], k + x_at[1]


@compile_loop
def differentiate_halves(
    a,
    a_at,
    b,
    b_at,
    marks,
    g,
    g_at,
    to_a,
    to_b,
    to_at,
    to_state,
    steps,
    features,
    width,
    begin,
    end,
):
    """Write the gradients in decays, drives and the first state, given those in the states.

    Args:
        a, a_at, b, b_at, marks, steps, features, width, begin, end: as for `scan_halves`.
        g, g_at: the gradient in the states.
        to_a, to_b, to_at: the gradients in decays and drives, laid out alike.
        to_state (batch, features): the gradient in the first state.
    """
    pieces = (features + width - 1) // width
    states = np.empty((BLOCK + 1, width), np.float32)
    decays, sums = np.empty((BLOCK, width), np.float32), np.empty((BLOCK, width), np.float32)
    later = np.empty(width, np.float32)
    for piece in range(begin, end):
        n, left = piece // pieces, piece % pieces * width
        size = min(width, features - left)
        later[:] = 0
        for block in range((steps - 1) // BLOCK, -1, -1):
            # Memory is read and written upwards, as processors read ahead; only the rows of this
            # block, which are in the cache, are traversed against the direction of time.
            first = block * BLOCK
            length = min(BLOCK, steps - first)
            i = n * a_at[0] + first * a_at[1] + left
            j = n * b_at[0] + first * b_at[1] + left
            k = n * g_at[0] + first * g_at[1] + left
            for f in range(size):
                states[0, f] = marks[block, n, left + f]
            for step in range(length):
                decay, drive, gradient = a[i : i + size], b[j : j + size], g[k : k + size]
                before, now = states[step], states[step + 1]
                factor, total = decays[step], sums[step]
                for f in range(size):
                    factor[f] = widen(decay, f)
                for f in range(size):
                    now[f] = factor[f] * before[f] + widen(drive, f)
                for f in range(size):
                    total[f] = widen(gradient, f)
                i, j, k = i + a_at[1], j + b_at[1], k + g_at[1]
            for step in range(length - 1, -1, -1):
                before, factor, total = states[step], decays[step], sums[step]
                for f in range(size):
                    total[f] += later[f]
                    later[f] = factor[f] * total[f]
                    before[f] *= total[f]
            k = n * to_at[0] + first * to_at[1] + left
            for step in range(length):
                product, total = states[step], sums[step]
                of_decay, of_drive = to_a[k : k + size], to_b[k : k + size]
                for f in range(size):
                    narrow(of_drive, f, total[f])
                for f in range(size):
                    narrow(of_decay, f, product[f])
                k += to_at[1]
        for f in range(size):
            to_state[n, left + f] = later[f]
