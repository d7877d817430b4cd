"""Chunked scans of matrix states with one gate per step, as torch operations.

`torch.ops.linrec.gated_chunks` has a fake implementation and gradients of any order. The first
gradient is `torch.ops.linrec.gated_gradients`, in kernels too; higher ones use the loop over steps.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from linrec.kernels.chunks import MOST_STATES, plain_scan
from linrec.kernels.elementwise import launches, serves

SERVED = (torch.float32, torch.bfloat16, torch.float16)


def runs_gated(values: Tensor, states: int, rank: int) -> bool:
    """Return whether there are kernels for this number of states and this rank of feedback."""
    return serves(values) and values.dtype in SERVED and states <= MOST_STATES and rank <= 1


@torch.library.custom_op("linrec::gated_chunks", mutates_args=())
def gated_chunks(
    gates: Tensor, keys: Tensor, queries: Tensor, values: Tensor, start: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run systems with matrix states and one gate a step, in chunks.

        x_t = a_t x_{t-1} + k_t v_tᵀ        y_t = x_tᵀ q_t

    Args:
        gates (outer, inner, time): a.
        keys (outer, inner, time, n): k, of any strides, like all arguments.
        queries (outer, inner, time, n): q.
        values (outer, inner, time, columns): v.
        start (outer·inner, n, columns): x before the first step, in float32. None: zeros.

    Returns:
        y (outer, inner, time, columns), in the dtype of v, and the last x (outer·inner, n,
        columns), in float32; for the gradients also x before each chunk and products of gates.

    Numerical error: a term of y is a product of n + 3 numbers or sums, and its gates are multiplied
    one by one: n + t + 3 roundings of float32, and one for each chunk through which a state is
    carried. Factors in float32 have 22 bits or more in a product. Half-precision numbers are taken
    exactly, and y is rounded once.

    Example:
        >>> import torch
        >>> from linrec.kernels.gated import gated_chunks
        >>> half, one = torch.full((1, 1, 3), 0.5), torch.ones(1, 1, 3, 1)
        >>> gated_chunks(half, one, one, one, None)[0].flatten()
        tensor([1.0000, 1.5000, 1.7500])
    """
    if launches(values) and values.dtype in SERVED:
        from linrec.kernels.gated_launch import launch_gated

        return launch_gated(gates, keys, queries, values, start)
    outputs, last = plain_gated(gates, keys, queries, values, start)
    none = last.new_empty(0)
    return outputs.to(values.dtype).contiguous(), last, none, none.clone()


def plain_gated(
    gates: Tensor, keys: Tensor, queries: Tensor, values: Tensor, start: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Run all steps in a loop, in float32 or more: the reference for the kernels."""
    least = torch.promote_types(values.dtype, torch.float32)
    flat = [each.to(least).flatten(0, 1) for each in (gates.unsqueeze(-1), keys, queries, values)]
    outputs, last = plain_scan(*flat, None, None, start)  # type: ignore[arg-type]  # four of them
    return outputs.unflatten(0, gates.shape[:2]), last


@gated_chunks.register_fake
def _(gates, keys, queries, values, start):  # type: ignore[no-untyped-def]  # as torch calls it
    (outer, inner, T, N), V = keys.shape, values.shape[-1]
    kind = torch.promote_types(values.dtype, torch.float32)
    last = values.new_empty(outer * inner, N, V, dtype=kind)
    states, tables = last.new_empty(0), last.new_empty(0)
    if launches(values) and values.dtype in SERVED:
        from linrec.kernels.gated_launch import STEPS, levels

        chunks = (T + STEPS - 1) // STEPS
        states = last.new_empty(outer * inner, chunks, N, V)
        tables = last.new_empty(outer * inner, chunks, 2 * (levels(STEPS) + 1), STEPS)
    return values.new_empty(values.shape), last, states, tables


@torch.library.custom_op("linrec::gated_gradients", mutates_args=())
def gated_gradients(
    gates: Tensor,
    keys: Tensor,
    queries: Tensor,
    values: Tensor,
    start: Tensor | None,
    states: Tensor,
    tables: Tensor,
    to_outputs: Tensor,
    to_last: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of `gated_chunks` from its results `states` and `tables`.

    Args:
        gates, keys, queries, values, start: the arguments of `gated_chunks`.
        states, tables: its results of these names.
        to_outputs (outer, inner, time, columns): the gradient in y.
        to_last (outer·inner, n, columns): the gradient in the last x. None: zeros.

    Returns:
        The gradients in gates, keys, queries and values, in their dtypes, and in the start.
    """
    if launches(values) and values.dtype in SERVED:
        from linrec.kernels.gated_launch import launch_pull

        given = keys, queries, values, states, tables, to_outputs, to_last
        to_gates, *others = launch_pull(*given)
        return to_gates.to(gates.dtype), *others  # type: ignore[return-value]  # five of them
    loop = pull_loop(gates, keys, queries, values, start, to_outputs, to_last)
    given = gates, keys, queries, values
    found = (each.to(own.dtype) for each, own in zip(loop, given, strict=False))
    return *(each.contiguous() for each in found), loop[4]  # type: ignore[return-value]  # five of them


def shape_of_state(keys: Tensor, values: Tensor) -> tuple[int, int, int]:
    """Return the shape of a state."""
    return keys.shape[0] * keys.shape[1], keys.shape[-1], values.shape[-1]


@gated_gradients.register_fake
def _(gates, keys, queries, values, start, states, tables, to_outputs, to_last):  # type: ignore[no-untyped-def]
    kind = torch.promote_types(values.dtype, torch.float32)
    found = (each.new_empty(each.shape) for each in (gates, keys, queries, values))
    return *found, values.new_empty(shape_of_state(keys, values), dtype=kind)


def pull_loop(
    gates: Tensor,
    keys: Tensor,
    queries: Tensor,
    values: Tensor,
    start: Tensor | None,
    to_outputs: Tensor,
    to_last: Tensor | None,
) -> tuple[Tensor, ...]:
    """Compute the gradients in a loop, in float32 or more and in differentiable operations.

        λ_t += q_t ḡ_tᵀ    ā_t = ⟨λ_t, x_{t-1}⟩    q̄_t = x_t ḡ_t    k̄_t = λ_t v_t    v̄_t = λ_tᵀ k_t

    and λ_{t-1} = a_t λ_t, with ḡ the gradient in y. Arguments as for `gated_gradients`.
    """
    least = torch.promote_types(values.dtype, torch.float32)
    a, k, q, v, g = (
        each.to(least).flatten(0, 1) for each in (gates, keys, queries, values, to_outputs)
    )
    state = k[:, 0, :, None] * v[:, 0, None, :] * 0 if start is None else start
    states = [state]
    for step in range(k.shape[1]):
        state = a[:, step, None, None] * state + k[:, step, :, None] * v[:, step, None, :]
        states.append(state)
    to_state = state * 0 if to_last is None else to_last
    found = []
    for step in reversed(range(k.shape[1])):
        to_state = to_state + q[:, step, :, None] * g[:, step, None, :]
        to_a = (to_state * states[step]).sum((1, 2))
        to_k = (to_state * v[:, step, None, :]).sum(2)
        to_q = (states[step + 1] * g[:, step, None, :]).sum(2)
        to_v = (to_state * k[:, step, :, None]).sum(1)
        found.append((to_a, to_k, to_q, to_v))
        to_state = a[:, step, None, None] * to_state
    pulled = (torch.stack(each[::-1], 1) for each in zip(*found, strict=True))
    return *(each.unflatten(0, gates.shape[:2]) for each in pulled), to_state


def register_gradient(
    operation: Any, by_kernels: Callable[..., Any], by_loop: Callable[..., Any]
) -> None:
    """Register the gradient of an operation on chunks, whose last argument is the initial state.

    Args:
        operation: returns y, the last x, and the further results that `by_kernels` needs.
        by_kernels: takes the arguments, these results, and the gradients in y and in the last x.
        by_loop: takes the arguments and both gradients; can be differentiated again.
    """

    def keep(ctx: Any, inputs: tuple[Tensor | None, ...], output: tuple[Tensor, ...]) -> None:
        ctx.set_materialize_grads(False)
        ctx.arguments = len(inputs)
        ctx.save_for_backward(*inputs, *output[2:])

    def pull(ctx: Any, to_outputs: Tensor | None, to_last: Tensor | None, *_: None) -> Any:
        count, saved = ctx.arguments, ctx.saved_tensors
        if to_outputs is None and to_last is None:
            return (None,) * count
        values, start = saved[3], saved[count - 1]
        if to_outputs is None:
            to_outputs = values.new_zeros(()).expand(values.shape)
        if torch.is_grad_enabled():
            *found, to_start = by_loop(*saved[:count], to_outputs, to_last)
        else:
            *found, to_start = by_kernels(*saved, to_outputs, to_last)
        return *found, None if start is None else to_start

    operation.register_autograd(pull, setup_context=keep)


register_gradient(gated_chunks, gated_gradients, pull_loop)
