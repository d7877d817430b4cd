"""A diagonal plus a low-rank correction: HiPPO in the form of S4, reflections, coupling."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from linrec._tensors.arguments import as_tensor
from linrec._tensors.full_precision import full_precision
from linrec._tensors.shapes import broadcast, broadcast_shapes, check_axes, show
from linrec.structures.base import OwnStructure, Structure, matvec, same_dtype
from linrec.structures.dense import Dense


@dataclass(frozen=True, eq=False)
class DiagonalPlusLowRank(OwnStructure):
    """A = diag(d) + U V*, V* being the conjugate transpose; applying it costs n(1 + 2r).

    Args:
        diagonal (*batch, n): d.
        left (*batch, n, r): U.
        right (*batch, n, r): V.

    Raises:
        ValueError: the shapes of the three do not fit together.

    Example:
        >>> import torch, linrec
        >>> ones = torch.ones(2, 1)
        >>> linrec.DiagonalPlusLowRank(torch.zeros(2), ones, ones).to_dense()
        tensor([[1., 1.],
                [1., 1.]])

    References:
        Gu, Goel and Ré 2022, Efficiently Modeling Long Sequences with Structured State Spaces,
        section 3.2 (there Λ - P Q*).
    """

    diagonal: Tensor
    left: Tensor
    right: Tensor
    core_axes: ClassVar[Mapping[str, int]] = {"diagonal": 1, "left": 2, "right": 2}

    def __post_init__(self) -> None:
        diagonal = as_tensor("diagonal", self.diagonal)
        left, right = as_tensor("left", self.left), as_tensor("right", self.right)
        check_axes("diagonal", diagonal, 1, "a vector (*batch, n)")
        check_axes("left", left, 2, "a matrix (*batch, n, r)")
        check_axes("right", right, 2, "a matrix (*batch, n, r)")
        states = diagonal.shape[-1]
        if left.shape[-2:] != right.shape[-2:] or left.shape[-2] != states:
            raise ValueError(
                f"`left` has shape {show(left.shape)} and `right` {show(right.shape)}, but "
                f"`diagonal` has {states} states: expected ({states}, rank) for both. "
                "If the axes are swapped then pass `left.mT`, `right.mT`."
            )
        # Equal batch axes, so that one index serves all three.
        batch = broadcast(
            diagonal=diagonal.shape[:-1], left=left.shape[:-2], right=right.shape[:-2]
        )
        object.__setattr__(self, "diagonal", diagonal.expand(*batch, -1))
        # (A tensor that needs no more axes stays the same object: it may also be a recurrence's B.)
        for name, factor in (("left", left), ("right", right)):
            same = factor.shape[:-2] == batch
            object.__setattr__(self, name, factor if same else factor.expand(*batch, -1, -1))

    @property
    def state_size(self) -> int:
        """The number of states, n."""
        return self.diagonal.shape[-1]

    def apply(self, states: Tensor) -> Tensor:
        """Multiply: d x + U (V* x) for `states (*batch, n)`."""
        return self.diagonal * states + matvec(self.left, matvec(self.right.mH, states))

    def compose(self, earlier: Structure) -> Structure:
        """Multiply the matrices: this one after `earlier`; the ranks add up.

        (d₁ + U₁V₁*)(d₂ + U₂V₂*) = d₁d₂ + [U₁, d₁U₂ + U₁(V₁*U₂)] [d₂*V₁, V₂]*; once the rank
        reaches n, a dense matrix is smaller.
        """
        other = earlier.as_diagonal_plus_low_rank()
        if other is None or self.left.shape[-1] + other[1].shape[-1] >= self.state_size:
            return Dense(self.to_dense()).compose(earlier)
        dtype = torch.promote_types(self.dtype, earlier.dtype)
        later, (diagonal, left, right) = self.to(dtype), (part.to(dtype) for part in other)
        after = later.diagonal.unsqueeze(-1) * left
        with full_precision(left):
            after = after + later.left @ (later.right.mH @ left)
        before = diagonal.conj().unsqueeze(-1) * later.right
        batch = broadcast_shapes(later.batch_shape, earlier.batch_shape)
        return DiagonalPlusLowRank(
            later.diagonal * diagonal,
            torch.cat([later.left.expand(*batch, -1, -1), after], -1),
            torch.cat([before, right.expand(*batch, -1, -1)], -1),
        )

    def as_diagonal(self) -> Tensor | None:
        """Return d where the rank is 0; None otherwise."""
        return self.diagonal if self.left.shape[-1] == 0 else None

    def as_diagonal_plus_low_rank(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return d, U and V."""
        return self.diagonal, self.left, self.right

    def adjoint(self) -> "DiagonalPlusLowRank":
        """Transpose and conjugate: d* + V U*."""
        return DiagonalPlusLowRank(self.diagonal.conj(), self.right, self.left)

    def to_dense(self) -> Tensor:
        """Write the matrix out, `(*batch, n, n)`."""
        left, right = same_dtype(self.left, self.right.mH)
        with full_precision(left):
            return torch.diag_embed(self.diagonal) + left @ right
