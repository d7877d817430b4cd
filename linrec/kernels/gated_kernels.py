"""Triton kernels of chunks of x_t = a_t x_{t-1} + k_t v_tᵀ, y_t = x_tᵀ q_t: one number a_t a step.

Imported only where Triton is installed. Let R[i,j] = a_i … a_{j+1} between steps of a chunk, P[i]
the fraction left at step i of the state x before the chunk, and E[j] the fraction of step j left
after the chunk. Then

    a chunk's addition to the state = (E ∘ K)ᵀ V        y = P ∘ (Q x) + ((Q Kᵀ) ∘ R) V

and, with g the gradient in y, λ the gradient in the state after a chunk, and S = g Vᵀ,

    q̄ = P ∘ (g xᵀ) + (S ∘ R) K        k̄ = E ∘ (V λᵀ) + (S ∘ R)ᵀ Q
    v̄ = E ∘ (K λ) + ((Q Kᵀ) ∘ R)ᵀ g   ā_q = Σ_{i ≥ q > j} R̄[i,j] R[i,q] R[q-1,j],  R̄ = (Q Kᵀ) ∘ S

where j may also be the state before the chunk, and i the state after it. All chunks are computed at
once except in `carry`, which takes the states from one chunk to the next, number by number.

There are no divisions or logarithms, so a may be any number. If the blocks of 2^b steps of i and j
are the two halves of a block of twice the size, R[i,j] is the product of two numbers: the gates
from the start of i's block to i, and the gates after j to the end of j's block. `decays` stores
both for each b, so that a gate is multiplied at most as often as a chunk has steps.

References:
    Dao and Gu 2024, Transformers are SSMs, section 6 (chunks).
    Yang, Wang, Shen, Panda and Kim 2024, Gated Linear Attention Transformers, section 4.
"""

# pyright: reportArgumentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false
# (Kernel arguments become Triton constants, which pyright does not know.)

import triton
import triton.language as tl

from linrec.kernels.tile_products import (
    dot_left,
    dot_right,
    dot_whole,
    given_rows,
    product_of,
    rows_of,
)


@triton.jit
def decays(
    gates, tables, T, H, chunks, gates_outer, gates_head, gates_time,
    STEPS: tl.constexpr, LEVELS: tl.constexpr, MANY: tl.constexpr,
):  # fmt: skip
    """Write products of gates in blocks of 1, 2, 4, … steps, for some chunks of a system.

    Row b of a chunk's table holds, for each step, the product of gates from the start of its block
    of 2^b steps up to it; row LEVELS + 1 + b, the product after it to the end of the block.
    """
    program, groups = tl.program_id(0).to(tl.int64), tl.cdiv(chunks, MANY)
    system = program // groups
    chunk = (program % groups) * MANY + tl.arange(0, MANY)
    lane = tl.arange(0, STEPS)
    own = (chunk < chunks)[:, None]
    base = gates + (system // H) * gates_outer + (system % H) * gates_head
    t = chunk[:, None] * STEPS + lane[None, :]
    a = tl.load(base + t * gates_time, mask=t < T, other=1.0).to(tl.float32)
    # From the end: lane j has the gate after step STEPS - 1 - j.
    t = chunk[:, None] * STEPS + (STEPS - lane)[None, :]
    seen = (t < T) & (lane > 0)[None, :]
    after = tl.load(base + t * gates_time, mask=seen, other=1.0).to(tl.float32)
    table = tables + (system * chunks + chunk[:, None]) * (2 * (LEVELS + 1) * STEPS)
    for level in tl.static_range(LEVELS + 1):
        at = table + level * STEPS + lane[None, :]
        tl.store(at, running(a, level, MANY, STEPS), mask=own)
        if level > 0:
            shown = tl.where((lane % (1 << level) == 0)[None, :], 1.0, after)
            at = table + (LEVELS + 1 + level) * STEPS + (STEPS - 1 - lane)[None, :]
            tl.store(at, running(shown, level, MANY, STEPS), mask=own)


@triton.jit
def running(gates, level: tl.constexpr, MANY: tl.constexpr, STEPS: tl.constexpr):
    """Compute running products of the gates in each block of 2^level steps."""
    if level == 0:
        return gates
    cut = tl.reshape(gates, (MANY * STEPS // (1 << level), 1 << level))
    return tl.reshape(tl.associative_scan(cut, 1, product_of), (MANY, STEPS))


@triton.jit
def between(
    table, rows, columns, EARLIER: tl.constexpr, PAIR: tl.constexpr, STEPS: tl.constexpr,
    LEVELS: tl.constexpr,
):  # fmt: skip
    """Compute R[i - EARLIER, j] for steps i of `rows` and j of `columns`; 0 for i - EARLIER < j.

    With a `PAIR` of 1, rows 2i and 2i + 1 belong to one step: each sees the other.
    """
    rows -= EARLIER
    here = rows >= 0
    later, apart = rows[:, None] > columns[None, :], rows[:, None] ^ columns[None, :]
    left = tl.where(rows[:, None] >> PAIR == columns[None, :] >> PAIR, 1.0, 0.0)
    for level in tl.static_range(LEVELS):
        upto = tl.load(table + level * STEPS + rows, mask=here, other=0.0)
        each = tl.broadcast_to(upto[:, None], left.shape)
        if level > 0:
            each *= tl.load(table + (LEVELS + 1 + level) * STEPS + columns)[None, :]
        if level >= PAIR:
            left = tl.where(later & ((apart >> level) == 1), each, left)
    return left


@triton.jit
def contribute(
    keys, values, tables, added, T, H, N, V, chunks,
    keys_outer, keys_head, keys_time, keys_state,
    values_outer, values_head, values_time, values_value,
    ROW: tl.constexpr, STATES: tl.constexpr, VALUES: tl.constexpr, STEPS: tl.constexpr,
    LEVELS: tl.constexpr, PARTS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute Σ_j w_j k_j v_jᵀ of a chunk, with weights w from a row of its table."""
    program, across = tl.program_id(0).to(tl.int64), tl.cdiv(V, VALUES)
    place, v = program // across, (program % across) * VALUES + tl.arange(0, VALUES)
    system, chunk = place // chunks, place % chunks
    n, lane = tl.arange(0, STATES), tl.arange(0, STEPS)
    t = chunk * STEPS + lane
    k = rows_of(
        keys, system, t, n, T, N, H, keys_outer, keys_head, keys_time, keys_state, PARTS
    )  # fmt: skip
    u = rows_of(
        values, system, t, v, T, V, H, values_outer, values_head, values_time, values_value, PARTS
    )  # fmt: skip
    weights = tl.load(tables + (place * 2 * (LEVELS + 1) + ROW) * STEPS + lane)
    sums = tl.zeros((STATES, VALUES), tl.float32)
    sums = dot_right(
        tl.trans(k), u.to(tl.float32) * weights[:, None], sums, PARTS, PRECISION
    )  # fmt: skip
    at = added + (place * N + n[:, None]) * V + v[None, :]
    tl.store(at, sums, mask=(n < N)[:, None] & (v < V)[None, :])


@triton.jit
def carry(
    states, tables, start, last, chunks, M,
    STEPS: tl.constexpr, LEVELS: tl.constexpr, WIDTH: tl.constexpr, STARTED: tl.constexpr,
    REVERSE: tl.constexpr,
):  # fmt: skip
    """Write the state before each chunk over the chunk's contribution, for some numbers.

    With `REVERSE`, write the gradient in the state after each, from the last chunk to the first.
    """
    program, across = tl.program_id(0).to(tl.int64), tl.cdiv(M, WIDTH)
    system, m = program // across, (program % across) * WIDTH + tl.arange(0, WIDTH)
    own = m < M
    state = tl.zeros((WIDTH,), tl.float32)
    if STARTED:
        state = tl.load(start + system * M + m, mask=own, other=0.0)
    first = system * chunks
    step, table = 1, 2 * (LEVELS + 1) * STEPS
    if REVERSE:
        first += chunks - 1
        step = -1
    at = states + first * M + m
    # The product of all gates of a chunk, for each number.
    gate = tables + first * table + LEVELS * STEPS + STEPS - 1 + 0 * m
    # (Contributions of four chunks are loaded at once, to wait for memory a fourth as often.)
    for chunk in range(0, chunks, 4):
        rest = tl.where(own, chunks - chunk, 0)
        b0 = tl.load(at, mask=own, other=0.0)
        b1 = tl.load(at + step * M, mask=rest > 1, other=0.0)
        b2 = tl.load(at + 2 * step * M, mask=rest > 2, other=0.0)
        b3 = tl.load(at + 3 * step * M, mask=rest > 3, other=0.0)
        a0 = tl.load(gate, mask=own, other=1.0)
        a1 = tl.load(gate + step * table, mask=rest > 1, other=1.0)
        a2 = tl.load(gate + 2 * step * table, mask=rest > 2, other=1.0)
        a3 = tl.load(gate + 3 * step * table, mask=rest > 3, other=1.0)
        tl.store(at, state, mask=own)
        state = a0 * state + b0
        tl.store(at + step * M, state, mask=rest > 1)
        state = a1 * state + b1
        tl.store(at + 2 * step * M, state, mask=rest > 2)
        state = a2 * state + b2
        tl.store(at + 3 * step * M, state, mask=rest > 3)
        state = a3 * state + b3
        at += 4 * step * M
        gate += 4 * step * table
    tl.store(last + system * M + m, state, mask=own)


@triton.jit
def read(
    keys, queries, values, lefts, fed, tables, states, outputs, T, H, N, V, chunks,
    keys_outer, keys_head, keys_time, keys_state,
    queries_outer, queries_head, queries_time, queries_state,
    values_outer, values_head, values_time, values_value,
    STATES: tl.constexpr, VALUES: tl.constexpr, STEPS: tl.constexpr, LEVELS: tl.constexpr,
    PARTS: tl.constexpr, PRECISION: tl.constexpr, FED: tl.constexpr,
):  # fmt: skip
    """Compute the outputs of a chunk, for some of the columns of its matrix.

    With `FED`, rows l_t and w_t of `lefts` and `fed` are used like k_t and v_t, in addition.
    """
    program, across = tl.program_id(0).to(tl.int64), tl.cdiv(V, VALUES)
    place, v = program // across, (program % across) * VALUES + tl.arange(0, VALUES)
    system, chunk = place // chunks, place % chunks
    n, lane = tl.arange(0, STATES), tl.arange(0, STEPS)
    own_n, own_v = n < N, v < V
    t = chunk * STEPS + lane
    k = rows_of(
        keys, system, t, n, T, N, H, keys_outer, keys_head, keys_time, keys_state, PARTS
    )  # fmt: skip
    q = rows_of(
        queries, system, t, n, T, N, H, queries_outer, queries_head, queries_time, queries_state,
        PARTS,
    )  # fmt: skip
    u = rows_of(
        values, system, t, v, T, V, H, values_outer, values_head, values_time, values_value, PARTS
    )  # fmt: skip
    at = states + (place * N + n[:, None]) * V + v[None, :]
    state = tl.load(at, mask=own_n[:, None] & own_v[None, :], other=0.0)
    table = tables + place * (2 * (LEVELS + 1) * STEPS)
    since = tl.load(table + LEVELS * STEPS + lane)
    y = dot_right(q, state, tl.zeros((STEPS, VALUES), tl.float32), PARTS, PRECISION)
    y *= since[:, None]
    scores = dot_whole(q, tl.trans(k), tl.zeros((STEPS, STEPS), tl.float32), PARTS, PRECISION)
    left = between(table, lane, lane, 0, 0, STEPS, LEVELS)
    scores = tl.where(lane[:, None] >= lane[None, :], scores * left, 0.0)
    y = dot_left(scores, u, y, PARTS, PRECISION)
    if FED:
        k = given_rows(lefts, system, t, n, T, N, PARTS)
        scores = dot_whole(q, tl.trans(k), tl.zeros((STEPS, STEPS), tl.float32), PARTS, PRECISION)
        scores = tl.where(lane[:, None] >= lane[None, :], scores * left, 0.0)
        w = given_rows(fed, system, t, v, T, V, 0)
        y = tl.dot(scores, w, y, input_precision=PRECISION)
    at = outputs + (system * T + t[:, None]) * V + v[None, :]
    tl.store(at, y, mask=(t < T)[:, None] & own_v[None, :])


@triton.jit
def pull_values(
    keys, queries, gradient, tables, to_states, to_values, T, H, N, V, chunks,
    keys_outer, keys_head, keys_time, keys_state,
    queries_outer, queries_head, queries_time, queries_state,
    gradient_outer, gradient_head, gradient_time, gradient_value,
    STATES: tl.constexpr, VALUES: tl.constexpr, STEPS: tl.constexpr, LEVELS: tl.constexpr,
    PARTS: tl.constexpr, PRECISION: tl.constexpr, PAIR: tl.constexpr,
):  # fmt: skip
    """Compute the gradients in the values of a chunk, for some of the columns of its matrix."""
    program, across = tl.program_id(0).to(tl.int64), tl.cdiv(V, VALUES)
    place, v = program // across, (program % across) * VALUES + tl.arange(0, VALUES)
    system, chunk = place // chunks, place % chunks
    n, lane = tl.arange(0, STATES), tl.arange(0, STEPS)
    own_n, own_v = n < N, v < V
    t = chunk * STEPS + lane
    k = rows_of(
        keys, system, t, n, T, N, H, keys_outer, keys_head, keys_time, keys_state, PARTS
    )  # fmt: skip
    q = rows_of(
        queries, system, t, n, T, N, H, queries_outer, queries_head, queries_time, queries_state,
        PARTS,
    )  # fmt: skip
    g = rows_of(
        gradient, system, t, v, T, V, H, gradient_outer, gradient_head, gradient_time,
        gradient_value, PARTS,
    )  # fmt: skip
    at = to_states + (place * N + n[:, None]) * V + v[None, :]
    to_state = tl.load(at, mask=own_n[:, None] & own_v[None, :], other=0.0)
    table = tables + place * (2 * (LEVELS + 1) * STEPS)
    to_end = tl.load(table + (2 * LEVELS + 1) * STEPS + lane)
    to_u = dot_right(k, to_state, tl.zeros((STEPS, VALUES), tl.float32), PARTS, PRECISION)
    to_u *= to_end[:, None]
    # (Transposed: rows are the steps that are seen.)
    scores = dot_whole(k, tl.trans(q), tl.zeros((STEPS, STEPS), tl.float32), PARTS, PRECISION)
    left = between(table, lane, lane, 0, PAIR, STEPS, LEVELS)
    scores = tl.where((lane | PAIR)[None, :] >= lane[:, None], scores * tl.trans(left), 0.0)
    to_u = dot_left(scores, g, to_u, PARTS, PRECISION)
    at = to_values + (system * T + t[:, None]) * V + v[None, :]
    tl.store(at, to_u, mask=(t < T)[:, None] & own_v[None, :])


@triton.jit
def pull_rows(
    keys, queries, values, gradient, tables, states, to_states,
    to_keys, to_queries, to_edges, T, H, N, V, chunks,
    keys_outer, keys_head, keys_time, keys_state,
    queries_outer, queries_head, queries_time, queries_state,
    values_outer, values_head, values_time, values_value,
    gradient_outer, gradient_head, gradient_time, gradient_value,
    STATES: tl.constexpr, VALUES: tl.constexpr, STEPS: tl.constexpr, LEVELS: tl.constexpr,
    PARTS: tl.constexpr, PRECISION: tl.constexpr, PAIR: tl.constexpr,
):  # fmt: skip
    """Compute the gradients in a chunk's keys and queries, and sums for those in its gates.

    The sums are R̄ for j the state before the chunk, and for i the state after it.
    """
    place = tl.program_id(0).to(tl.int64)
    system, chunk = place // chunks, place % chunks
    n, lane = tl.arange(0, STATES), tl.arange(0, STEPS)
    own_n = n < N
    t = chunk * STEPS + lane
    here = t < T
    table = tables + place * (2 * (LEVELS + 1) * STEPS)
    back = tl.zeros((STEPS, STEPS), tl.float32)
    to_q = tl.zeros((STEPS, STATES), tl.float32)
    to_k = tl.zeros((STEPS, STATES), tl.float32)
    through = tl.zeros((STATES,), tl.float32)
    for part in range(0, tl.cdiv(V, VALUES)):
        v = part * VALUES + tl.arange(0, VALUES)
        u = rows_of(
            values, system, t, v, T, V, H, values_outer, values_head, values_time, values_value,
            PARTS,
        )  # fmt: skip
        g = rows_of(
            gradient, system, t, v, T, V, H, gradient_outer, gradient_head, gradient_time,
            gradient_value, PARTS,
        )  # fmt: skip
        at = (place * N + n[:, None]) * V + v[None, :]
        own = own_n[:, None] & (v < V)[None, :]
        state = tl.load(states + at, mask=own, other=0.0)
        to_state = tl.load(to_states + at, mask=own, other=0.0)
        through += tl.sum(state * to_state, 1)
        back = dot_whole(g, tl.trans(u), back, PARTS, PRECISION)
        to_q = dot_right(g, tl.trans(state), to_q, PARTS, PRECISION)
        to_k = dot_right(u, tl.trans(to_state), to_k, PARTS, PRECISION)
    since = tl.load(table + LEVELS * STEPS + lane)
    to_end = tl.load(table + (2 * LEVELS + 1) * STEPS + lane)
    left = between(table, lane, lane, 0, PAIR, STEPS, LEVELS)
    weighed = tl.where((lane | PAIR)[:, None] >= lane[None, :], back * left, 0.0)
    at = (system * T + t[:, None]) * N + n[None, :]
    own = here[:, None] & own_n[None, :]
    k = rows_of(
        keys, system, t, n, T, N, H, keys_outer, keys_head, keys_time, keys_state, PARTS
    )  # fmt: skip
    q = rows_of(
        queries, system, t, n, T, N, H, queries_outer, queries_head, queries_time, queries_state,
        PARTS,
    )  # fmt: skip
    by_start = tl.sum(q.to(tl.float32) * to_q, 1)
    to_last = tl.sum(k.to(tl.float32) * to_k, 1)
    to_q = dot_left(weighed, k, to_q * since[:, None], PARTS, PRECISION)
    tl.store(to_queries + at, to_q, mask=own)
    to_k = dot_left(tl.trans(weighed), q, to_k * to_end[:, None], PARTS, PRECISION)
    tl.store(to_keys + at, to_k, mask=own)
    by_start += tl.where(lane == STEPS - 1, tl.sum(through, 0), 0.0)
    at = to_edges + place * 2 * STEPS + lane
    tl.store(at, by_start)
    tl.store(at + STEPS, to_last)


@triton.jit
def pull_gates(
    keys, queries, values, gradient, tables, to_edges, to_gates, T, H, N, V, chunks,
    keys_outer, keys_head, keys_time, keys_state,
    queries_outer, queries_head, queries_time, queries_state,
    values_outer, values_head, values_time, values_value,
    gradient_outer, gradient_head, gradient_time, gradient_value,
    STATES: tl.constexpr, VALUES: tl.constexpr, STEPS: tl.constexpr, LEVELS: tl.constexpr,
    PARTS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute the gradients in the gates of a chunk."""
    place = tl.program_id(0).to(tl.int64)
    system, chunk = place // chunks, place % chunks
    n, lane = tl.arange(0, STATES), tl.arange(0, STEPS)
    t = chunk * STEPS + lane
    table = tables + place * (2 * (LEVELS + 1) * STEPS)
    back = tl.zeros((STEPS, STEPS), tl.float32)
    for part in range(0, tl.cdiv(V, VALUES)):
        v = part * VALUES + tl.arange(0, VALUES)
        u = rows_of(
            values, system, t, v, T, V, H, values_outer, values_head, values_time, values_value,
            PARTS,
        )  # fmt: skip
        g = rows_of(
            gradient, system, t, v, T, V, H, gradient_outer, gradient_head, gradient_time,
            gradient_value, PARTS,
        )  # fmt: skip
        back = dot_whole(g, tl.trans(u), back, PARTS, PRECISION)
    k = rows_of(
        keys, system, t, n, T, N, H, keys_outer, keys_head, keys_time, keys_state, PARTS
    )  # fmt: skip
    q = rows_of(
        queries, system, t, n, T, N, H, queries_outer, queries_head, queries_time, queries_state,
        PARTS,
    )  # fmt: skip
    scores = dot_whole(q, tl.trans(k), tl.zeros((STEPS, STEPS), tl.float32), PARTS, PRECISION)
    edges = to_edges + place * 2 * STEPS + lane
    by_start, to_last = tl.load(edges), tl.load(edges + STEPS)
    left = between(table, lane, lane, 0, 0, STEPS, LEVELS)
    same = lane[:, None] >= lane[None, :]
    # R̄; the path to the state after the chunk goes through its last step.
    bars = tl.where(same, scores * back, 0.0)
    bars += tl.where((lane == STEPS - 1)[:, None], to_last[None, :], 0.0)
    before = tl.load(table + LEVELS * STEPS + lane - 1, mask=lane > 0, other=1.0)
    to_a = tl.sum(tl.where(same, left * by_start[:, None], 0.0), 0) * before
    none = tl.zeros((STEPS, STEPS), tl.float32)
    inner = tl.dot(tl.trans(left), bars, none, input_precision=PRECISION)
    until = between(table, lane, lane, 1, 0, STEPS, LEVELS)
    to_a += tl.sum(tl.where(lane[:, None] > lane[None, :], inner * until, 0.0), 1)
    tl.store(to_gates + system * T + t, to_a, mask=t < T)
