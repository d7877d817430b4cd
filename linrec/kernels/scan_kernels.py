"""Triton kernels of the elementwise scan x_t = a_t x_{t-1} + b_t.

Imported only where Triton is installed. Three kernels, of few fixed configurations:

- `walk`: a program owns some features of one sequence and goes through its steps. It multiplies no
  decays together, so it overflows only where the recurrence itself does. Each thread has all steps
  of its features in a tile (a warp is as wide as the tile), and later tiles are loaded ahead.
- `tile`: a program owns one feature of one sequence, with the steps side by side in memory. It
  scans a tile of steps at a time, with the state in a register from tile to tile.
- `gather`: the effect of a chunk of steps on the state before it. For few long sequences, it is
  followed by a walk over the chunks and a walk over the steps of all chunks. The order of sums is
  fixed.

Steps are numbered in the order of the scan, s = t or T - 1 - t. A scan with `SHIFT` multiplies by
the decay of the step before, and so starts from nothing. The sensitivities

    λ_t = g_t + a*_{t+1} λ_{t+1}        ga_t = λ_t x*_{t-1}

are a shifted scan of conjugated decays, against the direction of the first; with `GRADIENT` it also
writes ga. Offsets have 64 bits, but those within a tile of `walk` and `gather` 32 where they fit.
Masked lanes load b = 0, and in `tile` the identity a = 1, in the other two a = 0. Complex numbers
are pairs of real ones.

References:
    Blelloch 1990, Prefix sums and their applications, section 1.4.
    Merrill and Garland 2016, Single-pass parallel prefix scan with decoupled look-back (section 2
    has the three passes used here; the order of look-back's sums depends on timing).
"""

# pyright: reportArgumentType=false, reportGeneralTypeIssues=false
# (Kernel arguments become Triton constants, which pyright does not know.)

import triton
import triton.language as tl


@triton.jit
def load(pointer, mask, other: tl.constexpr, COMPLEX: tl.constexpr, SUM: tl.constexpr):
    """Load numbers in the precision of sums; real ones have an imaginary part of 0."""
    real = tl.load(pointer, mask=mask, other=other).to(SUM)
    imaginary = tl.zeros_like(real)
    if COMPLEX:
        imaginary = tl.load(pointer + 1, mask=mask, other=0.0).to(SUM)
    return real, imaginary


@triton.jit
def load_step(
    a, b, here, at, CONJUGATE: tl.constexpr, SHIFT: tl.constexpr, COMPLEX: tl.constexpr,
    SUM: tl.constexpr,
):  # fmt: skip
    """Load decay and drive of steps `at`; a step that is not `here` is the identity."""
    ar, ai = load(a, here & (at >= SHIFT), 1.0, COMPLEX, SUM)
    br, bi = load(b, here, 0.0, COMPLEX, SUM)
    if CONJUGATE:
        ai = -ai
    return ar, ai, br, bi


@triton.jit
def store(pointer, real, imaginary, mask, COMPLEX: tl.constexpr):
    """Store numbers, rounded once."""
    tl.store(pointer, real.to(pointer.dtype.element_ty), mask=mask)
    if COMPLEX:
        tl.store(pointer + 1, imaginary.to(pointer.dtype.element_ty), mask=mask)


@triton.jit
def times(ar, ai, br, bi, COMPLEX: tl.constexpr):
    """Multiply two numbers."""
    real = ar * br
    imaginary = ai
    if COMPLEX:
        real = ar * br - ai * bi
        imaginary = ar * bi + ai * br
    return real, imaginary


@triton.jit
def after(ar, ai, br, bi, cr, ci, dr, di):
    """Combine two complex steps, (c, d) after (a, b)."""
    return cr * ar - ci * ai, cr * ai + ci * ar, cr * br - ci * bi + dr, cr * bi + ci * br + di


@triton.jit
def after_real(a, b, c, d):
    """Combine two real steps, (c, d) after (a, b)."""
    return c * a, c * b + d


@triton.jit
def row_of(tile, row, i: tl.constexpr, BITS: tl.constexpr):
    """Return row i of a tile, bit for bit.

    (This costs nothing: the register of a row is known when the kernel is compiled, and compilers
    leave out a sum with 0 of integers, though not of floating-point numbers.)
    """
    bits = tl.where(row == i, tile.to(BITS, bitcast=True), 0)
    return tl.sum(bits, 0).to(tile.dtype, bitcast=True)


@triton.jit
def load_row(pointer, own, row, COMPLEX: tl.constexpr, SUM: tl.constexpr, BITS: tl.constexpr):
    """Load one step's numbers as the first row of a tile, in the threads of the tile's columns."""
    r, i = load(pointer[None, :] + 0 * row, own[None, :] & (row == 0), 0.0, COMPLEX, SUM)
    return row_of(r, row, 0, BITS), row_of(i, row, 0, BITS)


@triton.jit
def walk(
    decay, drive, start, states, before, to_decay, T, F, chunks, size,
    decay_batch, decay_time, decay_feature, drive_batch, drive_time, drive_feature,
    start_batch, start_chunk, start_feature, states_batch, states_time, states_feature,
    before_batch, before_time, before_feature, first, first_batch, first_feature,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, STAGES: tl.constexpr, COMPLEX: tl.constexpr,
    CONJUGATE: tl.constexpr, REVERSE: tl.constexpr, SHIFT: tl.constexpr, STARTED: tl.constexpr,
    GRADIENT: tl.constexpr, PRODUCTS: tl.constexpr, SUM: tl.constexpr, BITS: tl.constexpr,
    OFFSET: tl.constexpr,
):  # fmt: skip
    """Go through the steps of some features of one chunk of one sequence.

    Tiles of `ROWS` steps are loaded whole, with `STAGES` of them under way together: with stores
    between loads, each load would wait for the one before. The cost of a step is everything but
    the sum itself, so offsets within a tile have dtype `OFFSET` and are the same for all tiles.
    (Beyond the end, decays are 0, not 1: nothing follows.)
    """
    program, across = tl.program_id(0).to(tl.int64), tl.cdiv(F, WIDTH)
    f = (program % across).to(tl.int32) * WIDTH + tl.arange(0, WIDTH)
    chunk, batch = (program // across) % chunks, program // across // chunks
    own, row = f < F, tl.arange(0, ROWS)[:, None]
    begin = chunk * size
    steps = (tl.minimum(begin + size, T) - begin).to(tl.int32)
    xr, xi = tl.zeros((WIDTH,), SUM), tl.zeros((WIDTH,), SUM)
    zr, zi = xr, xi
    if STARTED:
        place = start + batch * start_batch + chunk * start_chunk + f * start_feature
        xr, xi = load_row(place, own, row, COMPLEX, SUM, BITS)
    if GRADIENT:
        place = first + batch * first_batch + f * first_feature
        zr, zi = load_row(place, own, row, COMPLEX, SUM, BITS)
    way, rows, columns = 1, row.to(OFFSET), f[None, :].to(OFFSET)
    if REVERSE:
        way, rows = -1, -rows
    of_decay = rows * decay_time + columns * decay_feature
    of_drive = rows * drive_time + columns * drive_feature
    of_states = rows * states_time + columns * states_feature
    of_before = rows * before_time + columns * before_feature
    for part in tl.range(0, tl.cdiv(steps, ROWS), num_stages=STAGES):
        s = begin + part * ROWS
        t = s
        if REVERSE:
            t = T - 1 - s
        left = steps - part * ROWS
        here = (row < left) & own[None, :]
        a = decay + batch * decay_batch + (t - way * SHIFT) * decay_time
        b = drive + batch * drive_batch + t * drive_time
        there = here
        if SHIFT:  # (rows are known when the kernel is compiled: only one has this test)
            there = here & ((row > 0) | (row + s > 0))
        ar, ai = load(a + of_decay, there, 0.0, COMPLEX, SUM)
        br, bi = load(b + of_drive, here, 0.0, COMPLEX, SUM)
        if CONJUGATE:
            ai = -ai
        yr, yi = br, bi
        for i in tl.static_range(ROWS):
            pr, pi = times(
                row_of(ar, row, i, BITS), row_of(ai, row, i, BITS), xr, xi, COMPLEX
            )  # fmt: skip
            if PRODUCTS:  # products that overflowed, times 0, are NaN
                nothing = (xr == 0) & (xi == 0)
                pr, pi = tl.where(nothing, 0.0, pr), tl.where(nothing, 0.0, pi)
            xr, xi = pr + row_of(br, row, i, BITS), pi + row_of(bi, row, i, BITS)
            yr, yi = tl.where(row == i, xr[None, :], yr), tl.where(row == i, xi[None, :], yi)
        out = batch * states_batch + t * states_time
        store(states + out + of_states, yr, yi, here, COMPLEX)
        if GRADIENT:
            p = before + batch * before_batch + (t + way) * before_time
            inner = (row < tl.minimum(left, T - 1 - s)) & own[None, :]
            pr, pi = load(p + of_before, inner, 0.0, COMPLEX, SUM)
            qr, qi = times(yr, yi, pr, -pi, COMPLEX)
            store(to_decay + out + of_states, qr, qi, here, COMPLEX)
    if GRADIENT:  # the last step, which follows the first state
        if begin + steps == T:
            end = T - 1
            if REVERSE:
                end = end * 0
            at = batch * states_batch + end * states_time + f * states_feature
            lr, li = load_row(states + at, own, row, COMPLEX, SUM, BITS)
            lr, li = times(lr, li, zr, -zi, COMPLEX)
            one, alone = to_decay + at[None, :] + 0 * row, own[None, :] & (row == 0)
            store(one, lr[None, :] + 0 * row, li[None, :] + 0 * row, alone, COMPLEX)


@triton.jit
def gather(
    decay, drive, products, ends, F, chunks, size,
    decay_batch, decay_time, decay_feature, drive_batch, drive_time, drive_feature, T,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, STAGES: tl.constexpr, COMPLEX: tl.constexpr,
    CONJUGATE: tl.constexpr, REVERSE: tl.constexpr, SHIFT: tl.constexpr, SUM: tl.constexpr,
    BITS: tl.constexpr, OFFSET: tl.constexpr,
):  # fmt: skip
    """Compute the product of a chunk's decays, and its last state from a zero state.

    Chunks consist of whole tiles of `ROWS` steps. A decay of 0 makes the product 0, even if it has
    overflowed before.
    """
    program, across = tl.program_id(0).to(tl.int64), tl.cdiv(F, WIDTH)
    f = (program % across).to(tl.int32) * WIDTH + tl.arange(0, WIDTH)
    chunk, batch = (program // across) % chunks, program // across // chunks
    own, row = f < F, tl.arange(0, ROWS)[:, None]
    here = own[None, :] & (row >= 0)
    begin = chunk * size
    xr, xi = tl.zeros((WIDTH,), SUM), tl.zeros((WIDTH,), SUM)
    wr, wi = tl.zeros((WIDTH,), SUM) + 1, tl.zeros((WIDTH,), SUM)
    way, rows, columns = 1, row.to(OFFSET), f[None, :].to(OFFSET)
    if REVERSE:
        way, rows = -1, -rows
    of_decay = rows * decay_time + columns * decay_feature
    of_drive = rows * drive_time + columns * drive_feature
    for part in tl.range(0, size // ROWS, num_stages=STAGES):
        s = begin + part * ROWS
        t = s
        if REVERSE:
            t = T - 1 - s
        a = decay + batch * decay_batch + (t - way * SHIFT) * decay_time
        b = drive + batch * drive_batch + t * drive_time
        there = here
        if SHIFT:
            there = here & ((row > 0) | (row + s > 0))
        ar, ai = load(a + of_decay, there, 0.0, COMPLEX, SUM)
        br, bi = load(b + of_drive, here, 0.0, COMPLEX, SUM)
        if CONJUGATE:
            ai = -ai
        for i in tl.static_range(ROWS):
            cr, ci = row_of(ar, row, i, BITS), row_of(ai, row, i, BITS)
            pr, pi = times(cr, ci, xr, xi, COMPLEX)
            xr, xi = pr + row_of(br, row, i, BITS), pi + row_of(bi, row, i, BITS)
            vr, vi = times(cr, ci, wr, wi, COMPLEX)
            gone = (cr == 0) & (ci == 0)
            wr, wi = tl.where(gone, 0.0, vr), tl.where(gone, 0.0, vi)
    place = (batch * chunks + chunk) * F + f
    if COMPLEX:
        place = 2 * place
    store(products + place, wr, wi, own, COMPLEX)
    store(ends + place, xr, xi, own, COMPLEX)


@triton.jit
def tile(
    decay, drive, start, states, before, to_decay, T, F,
    decay_batch, decay_time, decay_feature, drive_batch, drive_time, drive_feature,
    start_batch, start_feature, states_batch, states_time, states_feature,
    before_batch, before_time, before_feature, first, first_batch, first_feature,
    STEPS: tl.constexpr, COMPLEX: tl.constexpr, CONJUGATE: tl.constexpr, REVERSE: tl.constexpr,
    SHIFT: tl.constexpr, STARTED: tl.constexpr, GRADIENT: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """Scan one feature of one sequence, a tile of steps at a time."""
    program = tl.program_id(0).to(tl.int64)
    f, batch = program % F, program // F
    lane = tl.arange(0, STEPS)
    xr, xi = tl.zeros((1,), SUM), tl.zeros((1,), SUM)
    all_lanes = lane < STEPS
    if STARTED:
        here = tl.arange(0, 1)
        place = start + batch * start_batch + f * start_feature + here
        xr, xi = load(place, here < 1, 0.0, COMPLEX, SUM)
    for s in tl.range(0, T, STEPS):
        own = all_lanes & (s + lane < T)
        t, way = (s + lane).to(tl.int64), 1
        if REVERSE:
            t, way = T - 1 - (s + lane).to(tl.int64), -1
        a = decay + batch * decay_batch + (t - way * SHIFT) * decay_time + f * decay_feature
        b = drive + batch * drive_batch + t * drive_time + f * drive_feature
        ar, ai, br, bi = load_step(a, b, own, s + lane, CONJUGATE, SHIFT, COMPLEX, SUM)
        spoilt = (lane == 0) & ((ar != ar) | (ai != ai))  # NaN times a state of 0 is NaN
        br = tl.where(spoilt, ar + ai, br)
        if COMPLEX:
            ar, ai, br, bi = tl.associative_scan((ar, ai, br, bi), 0, after)
        else:
            ar, br = tl.associative_scan((ar, br), 0, after_real)
        yr, yi = times(ar, ai, xr, xi, COMPLEX)
        nothing = (xr == 0) & (xi == 0)  # overflowed products times 0 are NaN
        yr, yi = tl.where(nothing, 0.0, yr) + br, tl.where(nothing, 0.0, yi) + bi
        out = batch * states_batch + t * states_time + f * states_feature
        store(states + out, yr, yi, own, COMPLEX)
        if GRADIENT:
            p = before + batch * before_batch + (t + way) * before_time + f * before_feature
            pr, pi = load(p, own & (s + lane + 1 < T), 0.0, COMPLEX, SUM)
            place = first + batch * first_batch + f * first_feature + 0 * lane
            zr, zi = load(place, own & (s + lane + 1 == T), 0.0, COMPLEX, SUM)
            qr, qi = times(yr, yi, pr + zr, -(pi + zi), COMPLEX)
            store(to_decay + out, qr, qi, own, COMPLEX)
        # The last state of the tile; masked lanes beyond the end carry it on.
        last = lane == STEPS - 1
        xr = tl.sum(tl.where(last, yr, 0.0), 0, keep_dims=True)
        xi = tl.sum(tl.where(last, yi, 0.0), 0, keep_dims=True)
