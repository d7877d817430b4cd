"""Chunked scans of matrix states with feedback, as torch operations.

`torch.ops.linrec.delta_chunks` has a fake implementation and gradients of any order. The first
gradient is `torch.ops.linrec.delta_gradients`, in kernels too; higher ones use the loop over steps.
"""

import torch
from torch import Tensor

from linrec.kernels.chunks import plain_scan
from linrec.kernels.elementwise import launches
from linrec.kernels.gated import SERVED, register_gradient, shape_of_state


@torch.library.custom_op("linrec::delta_chunks", mutates_args=())
def delta_chunks(
    gates: Tensor,
    keys: Tensor,
    queries: Tensor,
    values: Tensor,
    lefts: Tensor,
    rights: Tensor,
    start: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Run systems with matrix states, feedback and one gate a step, in chunks.

        x_t = a_t x_{t-1} + l_t r_tᵀ x_{t-1} + k_t v_tᵀ        y_t = x_tᵀ q_t

    Args:
        gates (outer, inner, time): a.
        keys (outer, inner, time, n): k, of any strides, like all arguments.
        queries (outer, inner, time, n): q.
        values (outer, inner, time, columns): v.
        lefts, rights (outer, inner, time, n): l and r.
        start (outer·inner, n, columns): x before the first step, in float32. None: zeros.

    Returns:
        y (outer, inner, time, columns), in the dtype of v, and the last x (outer·inner, n,
        columns), in float32; for the gradients also x before each chunk, the fed-back terms, and
        the inverse that gives them.

    Numerical error: as for `gated_chunks`, plus the error of substitution in a chunk: a term that
    is fed back j times is a product of j (n + 3) more numbers or sums.

    Example:
        >>> import torch
        >>> from linrec.kernels.delta import delta_chunks
        >>> half, one = torch.full((1, 1, 3), 0.5), torch.ones(1, 1, 3, 1)
        >>> delta_chunks(half, one, one, one, one, one, None)[0].flatten()
        tensor([1.0000, 2.5000, 4.7500])
    """
    if launches(values) and values.dtype in SERVED:
        from linrec.kernels.delta_launch import launch_delta

        return launch_delta(gates, keys, queries, values, lefts, rights, start)
    outputs, last = plain_delta(gates, keys, queries, values, lefts, rights, start)
    states, fed, inverses = (last.new_empty(0) for _ in range(3))
    return outputs.to(values.dtype).contiguous(), last, states, fed, inverses


def plain_delta(
    gates: Tensor,
    keys: Tensor,
    queries: Tensor,
    values: Tensor,
    lefts: Tensor,
    rights: Tensor,
    start: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Run all steps in a loop, in float32 or more: the reference for the kernels."""
    least = torch.promote_types(values.dtype, torch.float32)
    given = (gates.unsqueeze(-1), keys, queries, values, lefts, rights)
    a, k, q, v, left, right = (each.to(least).flatten(0, 1) for each in given)
    outputs, last = plain_scan(a, k, q, v, left, right, start)
    return outputs.unflatten(0, gates.shape[:2]), last


@delta_chunks.register_fake
def _(gates, keys, queries, values, lefts, rights, start):  # type: ignore[no-untyped-def]
    (outer, inner, T, N), V = keys.shape, values.shape[-1]
    kind = torch.promote_types(values.dtype, torch.float32)
    last = values.new_empty(outer * inner, N, V, dtype=kind)
    states, fed, inverses = (last.new_empty(0) for _ in range(3))
    if launches(values) and values.dtype in SERVED:
        from linrec.kernels.delta_launch import steps_of_chunk

        size = steps_of_chunk()
        chunks = (T + size - 1) // size
        states = last.new_empty(outer * inner, chunks, N, V)
        fed = last.new_empty(outer * inner, T, V)
        inverses = last.new_empty(outer * inner, chunks, size, size)
    return values.new_empty(values.shape), last, states, fed, inverses


@torch.library.custom_op("linrec::delta_gradients", mutates_args=())
def delta_gradients(
    gates: Tensor,
    keys: Tensor,
    queries: Tensor,
    values: Tensor,
    lefts: Tensor,
    rights: Tensor,
    start: Tensor | None,
    states: Tensor,
    fed: Tensor,
    inverses: Tensor,
    to_outputs: Tensor,
    to_last: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of `delta_chunks` from its results `states`, `fed` and `inverses`.

    Args:
        gates, keys, queries, values, lefts, rights, start: the arguments of `delta_chunks`.
        states, fed, inverses: its results of these names.
        to_outputs (outer, inner, time, columns): the gradient in y.
        to_last (outer·inner, n, columns): the gradient in the last x. None: zeros.

    Returns:
        The gradients in the arguments, in their dtypes.
    """
    given = gates, keys, queries, values, lefts, rights
    if launches(values) and values.dtype in SERVED:
        from linrec.kernels.delta_launch import launch_delta_pull

        found = launch_delta_pull(*given, states, fed, inverses, to_outputs, to_last)
    else:
        found = pull_delta(*given, start, to_outputs, to_last)
    cast = (each.to(own.dtype) for each, own in zip(found, given, strict=False))
    # (Each gets new memory, in the layout of the fake implementation.)
    return *(each.clone(memory_format=torch.contiguous_format) for each in cast), found[6]  # type: ignore[return-value]  # seven


@delta_gradients.register_fake
def _(gates, keys, queries, values, lefts, rights, start, states, fed, inverses, *tangents):  # type: ignore[no-untyped-def]
    kind = torch.promote_types(values.dtype, torch.float32)
    given = gates, keys, queries, values, lefts, rights
    found = (each.new_empty(each.shape) for each in given)
    return *found, values.new_empty(shape_of_state(keys, values), dtype=kind)


def pull_delta(
    gates: Tensor,
    keys: Tensor,
    queries: Tensor,
    values: Tensor,
    lefts: Tensor,
    rights: Tensor,
    start: Tensor | None,
    to_outputs: Tensor,
    to_last: Tensor | None,
) -> tuple[Tensor, ...]:
    """Compute the gradients in a loop, in float32 or more and in differentiable operations.

    Like `pull_loop` of gated chunks. With w_t = x_{t-1}ᵀ r_t and z_t = λ_tᵀ l_t, the gradients in l
    and r are λ_t w_t and x_{t-1} z_t, and λ_{t-1} = a_t λ_t + r_t z_tᵀ.
    """
    least = torch.promote_types(values.dtype, torch.float32)
    given = (gates, keys, queries, values, lefts, rights, to_outputs)
    a, k, q, v, left, right, g = (each.to(least).flatten(0, 1) for each in given)
    state = k[:, 0, :, None] * v[:, 0, None, :] * 0 if start is None else start
    states, fed = [state], []
    for step in range(k.shape[1]):
        fed.append((right[:, step, :, None] * state).sum(1))
        state = a[:, step, None, None] * state + k[:, step, :, None] * v[:, step, None, :]
        state = state + left[:, step, :, None] * fed[-1][:, None, :]
        states.append(state)
    to_state = state * 0 if to_last is None else to_last
    found = []
    for step in reversed(range(k.shape[1])):
        to_state = to_state + q[:, step, :, None] * g[:, step, None, :]
        back = (to_state * left[:, step, :, None]).sum(1)
        to_a = (to_state * states[step]).sum((1, 2))
        to_k = (to_state * v[:, step, None, :]).sum(2)
        to_q = (states[step + 1] * g[:, step, None, :]).sum(2)
        to_v = (to_state * k[:, step, :, None]).sum(1)
        to_left = (to_state * fed[step][:, None, :]).sum(2)
        to_right = (states[step] * back[:, None, :]).sum(2)
        found.append((to_a, to_k, to_q, to_v, to_left, to_right))
        to_state = a[:, step, None, None] * to_state + right[:, step, :, None] * back[:, None, :]
    pulled = (torch.stack(each[::-1], 1) for each in zip(*found, strict=True))
    return *(each.unflatten(0, gates.shape[:2]) for each in pulled), to_state


register_gradient(delta_chunks, delta_gradients, pull_delta)
