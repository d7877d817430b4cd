"""A matrix product whose result lies in memory in the order in which it is used."""

from typing import Any

import torch
from torch import Tensor


def ordered_product(rows: Tensor, block: Tensor) -> Tensor:
    """Multiply every row by every matrix of a stack, and write the results matrix first.

        y[b, c, k] = rows[b, k] · block[c]

    One product of all rows by all matrices would write them row first, and putting them in order
    would copy them all once more. That is what the chunks of many channels ask for: b counts
    chunks, c the steps of a chunk, and the channels k of a step are to lie side by side.

    Args:
        rows (B, k, K): the rows.
        block (L, K, p): the matrices.

    Returns:
        The products, `(B, L, k, p)`, contiguous.
    """
    if torch.compiler.is_compiling():  # Dynamo writes to no strided `out`, and orders by itself
        return torch.einsum("bki,cip->bckp", rows, block)
    return OrderedProduct.apply(rows, block)  # type: ignore[return-value]  # apply is untyped


class OrderedProduct(torch.autograd.Function):
    """The product with its gradient: autograd has no derivative of writing into a slice."""

    @staticmethod
    def forward(rows: Tensor, block: Tensor) -> Tensor:
        """Write each step of all chunks in one batched product."""
        results = rows.new_empty(rows.shape[0], block.shape[0], rows.shape[1], block.shape[2])
        for step, matrix in enumerate(block):
            torch.bmm(rows, matrix.expand(rows.shape[0], -1, -1), out=results[:, step])
        return results

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        """Keep the factors."""
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Multiply by the other factor; in plain operations, to be differentiated again."""
        rows, block = ctx.saved_tensors
        (gradient,) = gradients
        to_rows = to_block = None
        if ctx.needs_input_grad[0]:
            to_rows = sum(
                step @ matrix.mH for step, matrix in zip(gradient.unbind(1), block, strict=True)
            )
        if ctx.needs_input_grad[1]:
            flat = rows.flatten(0, 1).mH
            to_block = torch.stack([flat @ step.flatten(0, 1) for step in gradient.unbind(1)])
        return to_rows, to_block  # type: ignore[return-value]  # the sum begins with a tensor

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        """Move one factor at a time."""
        rows, block = ctx.saved_tensors
        to_rows, to_block = tangents
        parts = [] if to_rows is None else [ordered_product(to_rows, block)]
        parts += [] if to_block is None else [ordered_product(rows, to_block)]
        return torch.stack(parts).sum(0)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, Any], rows: Tensor, block: Tensor
    ) -> tuple[Tensor, int]:
        """Give up the order: a mapped axis lies wherever vmap puts it."""
        rows = rows.unsqueeze(0) if in_dims[0] is None else rows.movedim(in_dims[0], 0)
        block = block.unsqueeze(0) if in_dims[1] is None else block.movedim(in_dims[1], 0)
        return torch.einsum("vbki,vcip->vbckp", rows, block), 0
