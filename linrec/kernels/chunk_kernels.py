"""Triton kernels of chunks: products of rows with a block, and states that are matrices.

Imported only where Triton is installed. Three kernels, of few fixed configurations:

- `split`: the factors of a product in TF32 parts, for [inputs of a chunk, state before] · block,
  the outputs of chunks of a dense system.
- `gated`: x_t = a_t x_{t-1} + k_t v_tᵀ, y_t = x_tᵀ q_t with one number a_t for the whole matrix x,
  as products over chunks. Decays from step j to step i are running products along i of a matrix
  that is 1 up to the diagonal, so there is no division, and a may be any number.
- `walk_matrices`: the same with a number for each row, and with l_t r_tᵀ x_{t-1} (delta rules). A
  program steps through time with a part of the matrix in registers.

Products are in `PRECISION`: "tf32x3" is three products of TF32 parts, which keep 22 bits of each
factor; "ieee" keeps all. Plain TF32 would keep 11, truncated instead of rounded, which adds up to a
bias.

References:
    Dao and Gu 2024, Transformers are SSMs, section 6 (chunks).
    Yang, Wang, Shen, Panda and Kim 2024, Gated Linear Attention Transformers, section 4.
    Ootomo and Yokota 2022, Recovering single precision accuracy from Tensor Cores, section 3.
"""

# pyright: reportArgumentType=false, reportGeneralTypeIssues=false
# (Kernel arguments become Triton constants, which pyright does not know.)

import triton
import triton.language as tl


@triton.jit
def nearest(numbers):
    """Round to the nearest TF32 number (11 of the 24 bits); towards 0 from 2¹²⁷ on."""
    bits = numbers.to(tl.int32, bitcast=True)
    huge = (bits & 0x7F800000) >= 0x7F000000  # (rounded up, it might not be finite)
    return (tl.where(huge, bits, bits + 0x1000) & -0x2000).to(tl.float32, bitcast=True)


@triton.jit
def split(
    first, second, parts, R, K, K_first,
    first_row, first_column, second_row, second_column, parts_row, parts_column, part,
    HIGH: tl.constexpr, WIDE: tl.constexpr, LEFT: tl.constexpr,
):  # fmt: skip
    """Write two matrices side by side, three times: rounded to TF32, the remainder, rounded again.

    For a right factor (not `LEFT`) the remainder comes last, so that the product of two factors is
    rounded · rounded + remainder · rounded + rounded · remainder.
    """
    program, across = tl.program_id(0).to(tl.int64), tl.cdiv(K, WIDE)
    rows = ((program // across) * HIGH + tl.arange(0, HIGH))[:, None]
    columns = ((program % across) * WIDE + tl.arange(0, WIDE))[None, :]
    own = (rows < R) & (columns < K)
    a = first + rows * first_row + columns * first_column
    b = second + rows * second_row + (columns - K_first) * second_column
    numbers = tl.load(a, mask=own & (columns < K_first), other=0.0)
    numbers += tl.load(b, mask=own & (columns >= K_first), other=0.0)
    near = nearest(numbers)
    rest = nearest(numbers - near)
    place = parts + rows * parts_row + columns * parts_column
    tl.store(place, near, mask=own)
    tl.store(place + part, rest if LEFT else near, mask=own)
    tl.store(place + 2 * part, near if LEFT else rest, mask=own)


@triton.jit
def product_of(a, b):
    """Multiply two numbers, for a running product."""
    return a * b


@triton.jit
def gated(
    gates, keys, queries, values, start, outputs, last, T, N, V,
    gates_system, gates_time, keys_system, keys_time, keys_state,
    queries_system, queries_time, queries_state, values_system, values_time, values_value,
    STATES: tl.constexpr, VALUES: tl.constexpr, STEPS: tl.constexpr, STARTED: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Run one system chunk by chunk, for some of the columns of its matrix."""
    program, across = tl.program_id(0).to(tl.int64), tl.cdiv(V, VALUES)
    system, v = program // across, (program % across) * VALUES + tl.arange(0, VALUES)
    n, lane = tl.arange(0, STATES), tl.arange(0, STEPS)
    own_n, own_v = n < N, v < V
    state = tl.zeros((STATES, VALUES), tl.float32)
    held = (system * N + n[:, None]) * V + v[None, :]
    own = own_n[:, None] & own_v[None, :]
    if STARTED:
        state = tl.load(start + held, mask=own, other=0.0)
    later, same = lane[:, None] > lane[None, :], lane[:, None] >= lane[None, :]
    end = lane == STEPS - 1
    for chunk in range(0, tl.cdiv(T, STEPS)):
        t = (chunk * STEPS + lane).to(tl.int64)
        here = t < T
        a = tl.load(gates + system * gates_system + t * gates_time, mask=here, other=1.0)
        at_k = keys + system * keys_system + t[:, None] * keys_time + n[None, :] * keys_state
        at_q = queries + system * queries_system + t[:, None] * queries_time
        at_q += n[None, :] * queries_state
        at_v = values + system * values_system + t[:, None] * values_time
        at_v += v[None, :] * values_value
        k = tl.load(at_k, mask=here[:, None] & own_n[None, :], other=0.0)
        q = tl.load(at_q, mask=here[:, None] & own_n[None, :], other=0.0)
        u = tl.load(at_v, mask=here[:, None] & own_v[None, :], other=0.0)
        # The fraction left at step i (a row) of the input at step j (a column).
        each = tl.broadcast_to(a[:, None], (STEPS, STEPS))
        left = tl.associative_scan(tl.where(later, each, 1.0), 0, product_of)
        left = tl.where(same, left, 0.0)
        since = tl.associative_scan(a, 0, product_of)  # the fraction left of the state before
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * left
        y = tl.dot(q, state, input_precision=PRECISION) * since[:, None]
        y = tl.dot(scores, u, y, input_precision=PRECISION)
        place = outputs + (system * T + t[:, None]) * V + v[None, :]
        tl.store(place, y, mask=here[:, None] & own_v[None, :])
        kept = tl.sum(tl.where(end[:, None], left, 0.0), 0)
        state = state * tl.sum(tl.where(end, since, 0.0), 0)
        state = tl.dot(tl.trans(k * kept[:, None]), u, state, input_precision=PRECISION)
    tl.store(last + held, state, mask=own)


@triton.jit
def walk_matrices(
    gates, keys, queries, values, lefts, rights, start, outputs, last, T, N, V,
    gates_system, gates_time, gates_state, keys_system, keys_time, keys_state,
    queries_system, queries_time, queries_state, values_system, values_time, values_value,
    lefts_system, lefts_time, lefts_state, rights_system, rights_time, rights_state,
    STATES: tl.constexpr, VALUES: tl.constexpr, STARTED: tl.constexpr, RANK: tl.constexpr,
    SUM: tl.constexpr,
):  # fmt: skip
    """Run one system step by step, for some of the columns of its matrix."""
    program, across = tl.program_id(0).to(tl.int64), tl.cdiv(V, VALUES)
    system, v = program // across, (program % across) * VALUES + tl.arange(0, VALUES)
    n = tl.arange(0, STATES)
    own_n, own_v = n < N, v < V
    state = tl.zeros((STATES, VALUES), SUM)
    held = (system * N + n[:, None]) * V + v[None, :]
    own = own_n[:, None] & own_v[None, :]
    if STARTED:
        state = tl.load(start + held, mask=own, other=0.0)
    a = gates + system * gates_system + n * gates_state
    k = keys + system * keys_system + n * keys_state
    q = queries + system * queries_system + n * queries_state
    u = values + system * values_system + v * values_value
    y = outputs + system * T * V + v
    left = lefts + system * lefts_system + n * lefts_state
    right = rights + system * rights_system + n * rights_state
    for _ in range(0, T):
        now = tl.load(a, mask=own_n, other=0.0)[:, None] * state
        if RANK:
            fed = tl.sum(tl.load(right, mask=own_n, other=0.0)[:, None] * state, 0)
            now += tl.load(left, mask=own_n, other=0.0)[:, None] * fed[None, :]
            left += lefts_time
            right += rights_time
        driven = tl.load(u, mask=own_v, other=0.0)[None, :]
        state = now + tl.load(k, mask=own_n, other=0.0)[:, None] * driven
        read = tl.sum(tl.load(q, mask=own_n, other=0.0)[:, None] * state, 0)
        tl.store(y, read, mask=own_v)
        a += gates_time
        k += keys_time
        q += queries_time
        u += values_time
        y += V
    tl.store(last + held, state, mask=own)
