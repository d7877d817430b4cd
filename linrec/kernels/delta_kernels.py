"""Triton kernels of chunks with feedback, x_t = a_t x_{t-1} + l_t r_tᵀ x_{t-1} + k_t v_tᵀ.

Imported only where Triton is installed. Let w_t = x_{t-1}ᵀ r_t be the fed-back term, and X the
state before a chunk. Substitution in the chunk gives all its w at once: with R and P as in
`gated_kernels`, and R⁻, P⁻ for the step before,

    (I - G) W = F V + (P⁻ ∘ r) X,        G = (r lᵀ) ∘ R⁻,    F = (r kᵀ) ∘ R⁻

G is strictly triangular, and (I - G)⁻¹ is found by substitution, row by row. So W = W₀ + M X, where
W₀ and M depend on the chunk alone (the WY form of Bischof and Van Loan). `advance` takes the state
from chunk to chunk, with two products for each: w, and the contribution of l wᵀ to the state.

The backward pass runs the same system with l and r, k and q, v and the gradient g exchanged. With
λ_t the gradient in x_t and z_t = l_tᵀ λ_t,

    (I - Gᵀ) Z = ((q lᵀ) ∘ R)ᵀ g + (E ∘ l) Λ

so the inverse is used again. Once w and z are known, there is no feedback left: l and w are further
keys and values, r and z further queries and gradients, for the kernels of gated chunks.

References:
    Bischof and Van Loan 1987, The WY representation for products of Householder matrices.
    Yang, Wang, Zhang, Shen and Kim 2024, Parallelizing linear transformers with the delta rule.
"""

# pyright: reportArgumentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false
# (Kernel arguments become Triton constants, which pyright does not know.)

import triton
import triton.language as tl

from linrec.kernels.gated_kernels import between
from linrec.kernels.tile_products import given_rows


@triton.jit
def solve(
    keys, values, lefts, rights, tables, inverses, ways, fed, T, N, V, chunks,
    STATES: tl.constexpr, VALUES: tl.constexpr, STEPS: tl.constexpr, LEVELS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute (I - G)⁻¹, M and W₀ of a chunk."""
    place = tl.program_id(0).to(tl.int64)
    system, chunk = place // chunks, place % chunks
    n, lane = tl.arange(0, STATES), tl.arange(0, STEPS)
    t = chunk * STEPS + lane
    left = given_rows(lefts, system, t, n, T, N, 0)
    right = given_rows(rights, system, t, n, T, N, 0)
    table = tables + place * (2 * (LEVELS + 1) * STEPS)
    none = tl.zeros((STEPS, STEPS), tl.float32)
    # (Transposed, so that a row of the inverse is computed from a column.)
    fall = tl.dot(left, tl.trans(right), none, input_precision=PRECISION)
    fall *= tl.trans(between(table, lane, lane, 1, 0, STEPS, LEVELS))
    fall = tl.where(lane[:, None] < lane[None, :], fall, 0.0)
    inverse = tl.where(lane[:, None] == lane[None, :], 1.0, 0.0)
    for i in range(1, STEPS):
        row = tl.sum(tl.where(lane[None, :] == i, fall, 0.0), 1)
        more = tl.sum(row[:, None] * inverse, 0)
        inverse += tl.where(lane[:, None] == i, more[None, :], 0.0)
    at = inverses + (place * STEPS + lane[:, None]) * STEPS + lane[None, :]
    tl.store(at, inverse)
    # (Loaded again, because the registers have no room for it during the loop.)
    right = given_rows(rights, system, t, n, T, N, 0)
    before = tl.load(table + LEVELS * STEPS + lane - 1, mask=lane > 0, other=1.0)
    way = tl.zeros((STEPS, STATES), tl.float32)
    way = tl.dot(inverse, right * before[:, None], way, input_precision=PRECISION)
    here = (t < T)[:, None]
    tl.store(ways + (system * T + t[:, None]) * N + n[None, :], way, mask=here & (n < N)[None, :])
    k = given_rows(keys, system, t, n, T, N, 0)
    shown = tl.dot(right, tl.trans(k), none, input_precision=PRECISION)
    shown *= between(table, lane, lane, 1, 0, STEPS, LEVELS)
    shown = tl.where(lane[:, None] > lane[None, :], shown, 0.0)
    shown = tl.dot(inverse, shown, none, input_precision=PRECISION)
    for part in range(0, tl.cdiv(V, VALUES)):
        v = part * VALUES + tl.arange(0, VALUES)
        u = given_rows(values, system, t, v, T, V, 0)
        w = tl.zeros((STEPS, VALUES), tl.float32)
        w = tl.dot(shown, u, w, input_precision=PRECISION)
        to_w = fed + (system * T + t[:, None]) * V + v[None, :]
        tl.store(to_w, w, mask=here & (v < V)[None, :])


@triton.jit
def solve_back(
    queries, gradient, lefts, tables, inverses, ways, fed, T, N, V, chunks,
    STATES: tl.constexpr, VALUES: tl.constexpr, STEPS: tl.constexpr, LEVELS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute the terms of Λ and g in Z: (I - Gᵀ)⁻¹ (E ∘ l), and (I - Gᵀ)⁻¹ ((q lᵀ) ∘ R)ᵀ g."""
    place = tl.program_id(0).to(tl.int64)
    system, chunk = place // chunks, place % chunks
    n, lane = tl.arange(0, STATES), tl.arange(0, STEPS)
    t = chunk * STEPS + lane
    q = given_rows(queries, system, t, n, T, N, 0)
    left = given_rows(lefts, system, t, n, T, N, 0)
    table = tables + place * (2 * (LEVELS + 1) * STEPS)
    inverse = tl.load(inverses + (place * STEPS + lane[:, None]) * STEPS + lane[None, :])
    none = tl.zeros((STEPS, STEPS), tl.float32)
    shown = tl.dot(q, tl.trans(left), none, input_precision=PRECISION)
    shown *= between(table, lane, lane, 0, 0, STEPS, LEVELS)
    shown = tl.where(lane[:, None] >= lane[None, :], shown, 0.0)
    shown = tl.trans(tl.dot(shown, inverse, none, input_precision=PRECISION))
    to_end = tl.load(table + (2 * LEVELS + 1) * STEPS + lane)
    way = tl.zeros((STEPS, STATES), tl.float32)
    way = tl.dot(tl.trans(inverse), left * to_end[:, None], way, input_precision=PRECISION)
    here = (t < T)[:, None]
    tl.store(ways + (system * T + t[:, None]) * N + n[None, :], way, mask=here & (n < N)[None, :])
    for part in range(0, tl.cdiv(V, VALUES)):
        v = part * VALUES + tl.arange(0, VALUES)
        g = given_rows(gradient, system, t, v, T, V, 0)
        z = tl.zeros((STEPS, VALUES), tl.float32)
        z = tl.dot(shown, g, z, input_precision=PRECISION)
        to_z = fed + (system * T + t[:, None]) * V + v[None, :]
        tl.store(to_z, z, mask=here & (v < V)[None, :])


@triton.jit
def advance(
    states, rows, ways, fed, tables, start, last, T, N, V, chunks,
    STATES: tl.constexpr, VALUES: tl.constexpr, STEPS: tl.constexpr, LEVELS: tl.constexpr,
    PRECISION: tl.constexpr, STARTED: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """Advance some columns of the state from chunk to chunk, X' = a X + (E ∘ l)ᵀ W + additions.

    The state before a chunk overwrites the chunk's addition, and W = W₀ + M X overwrites W₀. With
    `REVERSE`, Λ goes from the last chunk to the first, with P⁻ ∘ r in place of E ∘ l.
    """
    program, across = tl.program_id(0).to(tl.int64), tl.cdiv(V, VALUES)
    system, v = program // across, (program % across) * VALUES + tl.arange(0, VALUES)
    n, lane = tl.arange(0, STATES), tl.arange(0, STEPS)
    own = (n < N)[:, None] & (v < V)[None, :]
    at = n[:, None] * V + v[None, :]
    state = tl.zeros((STATES, VALUES), tl.float32)
    if STARTED:
        state = tl.load(start + system * N * V + at, mask=own, other=0.0)
    for index in range(0, chunks):
        chunk = chunks - 1 - index if REVERSE else index
        place = system * chunks + chunk
        t = chunk * STEPS + lane
        table = tables + place * (2 * (LEVELS + 1) * STEPS)
        if REVERSE:
            weights = tl.load(table + LEVELS * STEPS + lane - 1, mask=lane > 0, other=1.0)
        else:
            weights = tl.load(table + (2 * LEVELS + 1) * STEPS + lane)
        total = tl.load(table + LEVELS * STEPS + STEPS - 1)
        way = given_rows(ways, system, t, n, T, N, 0)
        row = given_rows(rows, system, t, n, T, N, 0) * weights[:, None]
        w = given_rows(fed, system, t, v, T, V, 0)
        added = tl.load(states + place * N * V + at, mask=own, other=0.0)
        tl.store(states + place * N * V + at, state, mask=own)
        w = tl.dot(way, state, w, input_precision=PRECISION)
        to_w = fed + (system * T + t[:, None]) * V + v[None, :]
        tl.store(to_w, w, mask=(t < T)[:, None] & (v < V)[None, :])
        state = tl.dot(tl.trans(row), w, state * total + added, input_precision=PRECISION)
    tl.store(last + system * N * V + at, state, mask=own)
