"""A block-diagonal transition matrix: groups of states that do not touch each other."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from linrec._tensors.annotated import unflatten
from linrec._tensors.arguments import as_tensor
from linrec._tensors.full_precision import full_precision
from linrec._tensors.open_sizes import is_open
from linrec._tensors.shapes import check_axes, show
from linrec.structures.base import OwnStructure, Structure, same_dtype
from linrec.structures.dense import Dense


@dataclass(frozen=True, eq=False)
class BlockDiagonal(OwnStructure):
    """Equal-sized blocks on the diagonal; applying it costs n·b multiplications.

    Args:
        blocks (*batch, k, b, b): the blocks, n = k·b states.

    Raises:
        ValueError: the blocks are not square, or there is no axis of blocks.

    Example:
        >>> import torch, linrec
        >>> turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
        >>> linrec.BlockDiagonal(torch.stack([turn, turn.mT])).apply(torch.tensor([1.0, 0, 1, 0]))
        tensor([ 0.,  1.,  0., -1.])
    """

    blocks: Tensor
    core_axes: ClassVar[Mapping[str, int]] = {"blocks": 3}

    def __post_init__(self) -> None:
        blocks = as_tensor("blocks", self.blocks)
        check_axes("blocks", blocks, 3, "square blocks (*batch, k, b, b)")
        if blocks.shape[-1] != blocks.shape[-2]:
            raise ValueError(
                f"`blocks` has shape {show(blocks.shape)}: expected square blocks "
                "(*batch, k, b, b)."
            )
        if blocks.shape[-1] * blocks.shape[-3] == 0:
            raise ValueError("`blocks` has 0 states: expected one or more.")
        object.__setattr__(self, "blocks", blocks)

    @property
    def state_size(self) -> int:
        """The number of states, n = k·b."""
        return self.blocks.shape[-3] * self.blocks.shape[-1]

    def apply(self, states: Tensor) -> Tensor:
        """Multiply each block by its own states, `states (*batch, n)`."""
        apart = unflatten(states, -1, self.blocks.shape[-3:-1])
        blocks, grouped = same_dtype(self.blocks, apart)
        if is_open(*states.shape[:-1]):  # a matrix product would merge these into one axis
            return (blocks * grouped.unsqueeze(-2)).sum(-1).flatten(-2)
        return torch.einsum("...kij,...kj->...ki", blocks, grouped).flatten(-2)

    def compose(self, earlier: Structure) -> Structure:
        """Multiply the matrices: this one after `earlier`."""
        if (
            isinstance(earlier, BlockDiagonal)
            and earlier.blocks.shape[-3:] == self.blocks.shape[-3:]
        ):
            later, earlier_blocks = same_dtype(self.blocks, earlier.blocks)
            with full_precision(later):
                return BlockDiagonal(later @ earlier_blocks)
        return Dense(self.to_dense()).compose(earlier)

    def adjoint(self) -> "BlockDiagonal":
        """Transpose and conjugate each block."""
        return BlockDiagonal(self.blocks.mH)

    def as_diagonal(self) -> Tensor | None:
        """Return the diagonal `(*batch, k)` if blocks have one state; None if they are larger."""
        return self.blocks.squeeze((-1, -2)) if self.blocks.shape[-1] == 1 else None

    def magnitude(self) -> Tensor:
        """Return |A|, `(*batch, n, n)`."""
        return self.to_dense().abs()

    def as_block_diagonal(self) -> Tensor:
        """Return the blocks."""
        return self.blocks

    def to_dense(self) -> Tensor:
        """Write the matrix out, `(*batch, n, n)`."""
        # diag_embed on the block axis gives (*batch, b, b, k, k); the matrix is (k, b) by (k, b).
        spread = torch.diag_embed(self.blocks.movedim(-3, -1))
        return spread.movedim((-2, -1), (-4, -2)).flatten(-4, -3).flatten(-2)
