"""Chunk products and matrix scans as torch operations, in Triton on CUDA.

`torch.ops.linrec.chunk_product` and `torch.ops.linrec.matrix_scan` have fake implementations and
gradients. `matrix_scan` has the gradients of its fallback, the loop over steps.
"""

import torch
from torch import Tensor

from linrec.kernels.elementwise import launches, serves

# The smallest side of a product with a kernel, and the longest matrix column with one.
LEAST, MOST_STATES = 16, 128


def multiplies(inputs: Tensor, before: Tensor) -> bool:
    """Return whether there is a kernel for a product of `inputs (R, K)` and `before (R, n)`."""
    if not serves(inputs) or inputs.dtype != torch.float32:
        return False
    return inputs.shape[-1] >= LEAST and before.shape[-1] >= LEAST


@torch.library.custom_op("linrec::chunk_product", mutates_args=())
def chunk_product(inputs: Tensor, before: Tensor, block: Tensor) -> Tensor:
    """Compute the outputs of chunks: [inputs of the chunk, state before it] · block.

    Args:
        inputs (rows, K): the inputs of each chunk.
        before (rows, n): the state before each chunk.
        block (K + n, N): a chunk's Toeplitz block, above the map from the state to the outputs.

    Returns:
        The products (rows, N).

    Numerical error: that of a sum of K + n products. If the product is computed in parts, factors
    have 22 bits, which adds 6·eps/2 of each term.

    Example:
        >>> import torch
        >>> from linrec.kernels.chunks import chunk_product
        >>> chunk_product(torch.ones(1, 1), torch.ones(1, 1), torch.tensor([[2.0], [3.0]]))
        tensor([[5.]])
    """
    return multiply_now(inputs, before, block)


def multiply_now(inputs: Tensor, before: Tensor, block: Tensor) -> Tensor:
    """Multiply as `chunk_product` does, outside of autograd, transforms and graphs."""
    if inputs.dtype == torch.float32 and launches(inputs):
        from linrec.kernels.chunk_launch import is_split, launch_product

        if is_split(inputs, before, block):
            return launch_product(inputs, before, block)
    return plain_product(inputs, before, block)


def plain_product(inputs: Tensor, before: Tensor, block: Tensor) -> Tensor:
    """Multiply with torch's own operations."""
    first, second = block.split([inputs.shape[-1], before.shape[-1]])
    return torch.addmm(inputs @ first, before, second)


@chunk_product.register_fake
def _(inputs: Tensor, before: Tensor, block: Tensor) -> Tensor:
    return inputs.new_empty(len(inputs), block.shape[1])


def keep_all(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]  # as torch calls it
    """Save the tensors of a gradient."""
    ctx.save_for_backward(*(each for each in inputs if isinstance(each, Tensor)))
    ctx.given = [isinstance(each, Tensor) for each in inputs]


def product_backward(ctx, gradient: Tensor):  # type: ignore[no-untyped-def]  # as torch calls it
    """Multiply the gradient with the block and with the rows."""
    inputs, before, block = ctx.saved_tensors
    rows = gradient @ block.mH
    to_block = torch.cat([inputs, before], -1).mH @ gradient
    return *rows.split([inputs.shape[-1], before.shape[-1]], -1), to_block


chunk_product.register_autograd(product_backward, setup_context=keep_all)


@chunk_product.register_vmap
def _(info, in_dims, inputs, before, block):  # type: ignore[no-untyped-def]  # as torch calls it
    size = info.batch_size
    if in_dims[2] is not None:  # one block each: batched products
        given = zip((inputs, before, block), in_dims, strict=True)
        rows, held, many = (t if d is None else t.movedim(d, 0) for t, d in given)
        first, second = many.split([rows.shape[-1], held.shape[-1]], -2)
        return rows @ first + held @ second, 0
    given = zip((inputs, before), in_dims[:2], strict=True)
    rows = [t.expand(size, *t.shape) if d is None else t.movedim(d, 0) for t, d in given]
    found = chunk_product(*(each.flatten(0, 1) for each in rows), block)
    return found.unflatten(0, (size, -1)), 0


def scans(values: Tensor, states: int, rank: int) -> bool:
    """Return whether there is a kernel for this number of states and this rank of feedback."""
    if not serves(values) or values.dtype not in (torch.float32, torch.float64):
        return False
    return rank <= 1 and states <= MOST_STATES


@torch.library.custom_op("linrec::matrix_scan", mutates_args=())
def matrix_scan(
    gates: Tensor,
    keys: Tensor,
    queries: Tensor,
    values: Tensor,
    lefts: Tensor | None,
    rights: Tensor | None,
    start: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Run systems whose states are matrices, as in linear attention and delta rules.

        x_t = diag(a_t) x_{t-1} + l_t r_tᵀ x_{t-1} + k_t v_tᵀ        y_t = x_tᵀ q_t

    Args:
        gates (systems, time, n): a. `(systems, time, 1)`, or expanded: one number for all rows.
        keys (systems, time, n): k.
        queries (systems, time, n): q.
        values (systems, time, columns): v.
        lefts, rights (systems, time, n): l and r. None: no such term.
        start (systems, n, columns): x before the first step. None: zeros.

    Returns:
        y (systems, time, columns) and the last x (systems, n, columns).

    Example:
        >>> import torch
        >>> from linrec.kernels.chunks import matrix_scan
        >>> half, one = torch.full((1, 3, 1), 0.5), torch.ones(1, 3, 1)
        >>> matrix_scan(half, one, one, one, None, None, None)[0].mT
        tensor([[[1.0000, 1.5000, 1.7500]]])
    """
    if launches(values) and not values.is_complex():
        from linrec.kernels.chunk_launch import launch_matrices

        return launch_matrices(gates, keys, queries, values, lefts, rights, start)
    outputs, last = plain_scan(gates, keys, queries, values, lefts, rights, start)
    return outputs, last


def plain_scan(
    gates: Tensor,
    keys: Tensor,
    queries: Tensor,
    values: Tensor,
    lefts: Tensor | None,
    rights: Tensor | None,
    start: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Scan in a loop over time: the reference for the kernels."""
    state = keys[:, 0, :, None] * values[:, 0, None, :] * 0 if start is None else start
    outputs = []
    for step in range(keys.shape[1]):
        now = gates[:, step, :, None] * state
        if lefts is not None and rights is not None:
            fed = (rights[:, step, :, None] * state).sum(1, keepdim=True)
            now = now + lefts[:, step, :, None] * fed
        state = now + keys[:, step, :, None] * values[:, step, None, :]
        outputs.append((queries[:, step, :, None] * state).sum(1))
    return torch.stack(outputs, 1), state.clone()


@matrix_scan.register_fake
def _(gates, keys, queries, values, lefts, rights, start):  # type: ignore[no-untyped-def]
    G, T, V = values.shape
    return values.new_empty(G, T, V), values.new_empty(G, keys.shape[-1], V)


def scan_backward(ctx, to_outputs: Tensor, to_last: Tensor):  # type: ignore[no-untyped-def]
    """Differentiate the loop."""
    saved = iter(ctx.saved_tensors)
    given = [next(saved) if there else None for there in ctx.given]
    with torch.enable_grad():
        leaves = [None if each is None else each.detach().requires_grad_() for each in given]
        outputs, last = plain_scan(*leaves)  # type: ignore[arg-type]  # seven of them
        wanted = [each for each in leaves if each is not None]
        found = iter(
            torch.autograd.grad([outputs, last], wanted, [to_outputs, to_last], allow_unused=True)
        )
    return tuple(None if each is None else next(found) for each in leaves)


matrix_scan.register_autograd(scan_backward, setup_context=keep_all)
