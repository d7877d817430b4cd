"""The interface of all structures of A: five operations, which also act on stacks of matrices."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor

from linrec._tensors.annotated import is_tuple, unflatten
from linrec._tensors.arguments import check_cast
from linrec._tensors.autograd import is_already
from linrec._tensors.dtypes import common_dtype
from linrec._tensors.open_sizes import is_open
from linrec._tensors.shapes import SCALAR, broadcast

Value = TypeVar("Value")

# Copying fewer numbers than this takes less time than arranging vectors for one product each.
MANY = 1 << 14


def make_unchecked(kind: type[Value], **fields: object) -> Value:
    """Make a frozen dataclass from fields known to be valid, without its checks."""
    made = object.__new__(kind)
    for name, value in fields.items():  # (torch 2.9 traces this, but not `__dict__.update`)
        object.__setattr__(made, name, value)
    return made


def same_dtype(matrix: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Cast both to their common dtype: torch's products do not promote."""
    if matrix.dtype == vectors.dtype:
        return matrix, vectors
    dtype = torch.promote_types(matrix.dtype, vectors.dtype)
    return matrix.to(dtype), vectors.to(dtype)


def matvec(matrix: Tensor, vectors: Tensor) -> Tensor:
    """Multiply matrices by vectors, batch axes broadcasting.

    Vectors that share a matrix are multiplied in one matrix product instead of one by one: along
    the last batch axis, where it is 1 for the matrices, and along leading axes that only the
    vectors have. Single rows and columns are multiplied elementwise, since products of such small
    matrices would be computed one by one.

    Args:
        matrix (*batch, p, n): the matrices.
        vectors (*batch, n): the vectors.

    Returns:
        The products, `(*batch, p)`.
    """
    if matrix.dtype is not vectors.dtype:
        matrix, vectors = same_dtype(matrix, vectors)
    if matrix.ndim == 2:
        # (A single vector, as in a stream, needs no transposing.)
        return torch.mv(matrix, vectors) if vectors.ndim == 1 else vectors @ matrix.mT
    if matrix.shape[-3] == 1 and vectors.ndim > 1:
        return multiply_rows(vectors, matrix.squeeze(-3))
    if matrix.shape[-1] == 1:
        return matrix.squeeze(-1) * vectors
    if matrix.shape[-2] == 1 and vectors.ndim > 1:
        return (matrix.squeeze(-2) * vectors).sum(-1, keepdim=True)
    if vectors.ndim >= matrix.ndim:
        return multiply_rows(vectors.unsqueeze(-2), matrix).squeeze(-2)
    return (matrix @ vectors.unsqueeze(-1)).squeeze(-1)


def multiply_rows(rows: Tensor, matrix: Tensor) -> Tensor:
    """Multiply each row by the transpose of a matrix, with one product for each matrix.

    Torch would copy the matrices for every leading batch axis that they lack, and their gradient
    would be as large before it is summed.

    Args:
        rows (*batch, rows, n): the rows.
        matrix (*batch, p, n): the matrices, with as many batch axes or fewer.

    Returns:
        The products, `(*batch, rows, p)`.
    """
    # (Loops in graphs would treat `matrix.mT` as another input with the same memory.)
    columns, leading = matrix.transpose(-2, -1), rows.ndim - matrix.ndim
    if leading < 1 or matrix.ndim == 2 or is_open(*rows.shape):
        return rows @ columns
    copied = math.prod(rows.shape[:leading]) * matrix.numel()
    if copied < MANY or rows.shape[-2] > matrix.shape[-2]:  # fewer than there are rows to copy
        return rows @ columns
    together = rows.flatten(0, leading - 1).movedim(0, -3)  # (*batch, leading, rows, n)
    # (Rows whose numbers are not adjacent in memory would be copied for one matrix at a time.)
    products = together.flatten(-3, -2).contiguous() @ columns
    apart = unflatten(products, -2, together.shape[-3:-1]).movedim(-3, 0)
    return unflatten(apart, 0, rows.shape[:leading])


class Structure(ABC):
    """How the transition matrix A is stored and multiplied.

    A subclass is a frozen dataclass (`eq=False`) of tensors that implements five operations,
    `state_size`, `apply`, `compose`, `adjoint` and `to_dense`, and declares in `core_axes` how
    many of each tensor's last axes belong to the matrix. The axes before them are batch axes, so
    that a stack of matrices is one structure; slicing and casting follow from that declaration.

    Five capabilities have defaults: `as_diagonal`, `as_diagonal_plus_low_rank`,
    `as_block_diagonal`, `multiplications` and `magnitude`. No code outside a structure's own file
    checks its class: any structure that declares itself diagonal is run, discretised and estimated
    like `Diagonal`.
    """

    core_axes: ClassVar[Mapping[str, int]]

    @property
    @abstractmethod
    def state_size(self) -> int:
        """The number of states, n."""

    @abstractmethod
    def apply(self, states: Tensor) -> Tensor:
        """Multiply: A x for `states (*batch, n)`."""

    @abstractmethod
    def compose(self, earlier: "Structure") -> "Structure":
        """Multiply the matrices: this one after `earlier`, A·A_earlier."""

    @abstractmethod
    def adjoint(self) -> "Structure":
        """Transpose and conjugate: A*."""

    @abstractmethod
    def to_dense(self) -> Tensor:
        """Write the matrix out, `(*batch, n, n)`."""

    def as_diagonal(self) -> Tensor | None:
        """Return the diagonal `(*batch, n)` of a matrix that is diagonal by construction.

        Executors then scan it elementwise, and systems made from it stay diagonal.

        Returns:
            The diagonal. None: the matrix may have other entries.
        """
        return None

    def as_diagonal_plus_low_rank(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """Return d, U and V of a matrix diag(d) + U V* by construction, V* the conjugate transpose.

        Returns:
            `(*batch, n)`, `(*batch, n, r)` and `(*batch, n, r)`; r = 0 for a diagonal matrix. None:
            the matrix is not stored like this.
        """
        diagonal = self.as_diagonal()
        if diagonal is None:
            return None
        empty = diagonal.new_zeros(*diagonal.shape, 0)
        return diagonal, empty, empty

    def as_block_diagonal(self) -> Tensor | None:
        """Return the equal square blocks of a matrix that has no entries outside of them.

        Returns:
            The blocks, `(*batch, k, b, b)` with k·b = n. None: the matrix is not stored like this.
        """
        return None

    @property
    def multiplications(self) -> int:
        """Count the multiplications of applying one matrix: by default one per stored number."""
        count = 0
        for name, axes in self.core_axes.items():
            count += math.prod(getattr(self, name).shape[-axes:])
        return count

    def magnitude(self) -> Tensor | None:
        """Bound, entry by entry, the numbers that `apply` adds up: |d| + |U||V*| for d + U V*.

        Rounding errors of A x are then at most a small multiple of eps times this bound times |x|.

        Returns:
            The bound, `(*batch, n, n)`. None: it is unknown how `apply` adds, as for a transform,
            which spreads errors over all entries.
        """
        parts = self.as_diagonal_plus_low_rank()
        if parts is None:
            return None
        diagonal, left, right = (part.abs() for part in parts)
        left, right = same_dtype(left, right)
        return torch.diag_embed(diagonal) + left @ right.mT

    def form(self) -> tuple[object, ...]:
        """Return the class and the non-tensor fields, which identify the structure's form."""
        own = (value for name, value in vars(self).items() if name not in self.core_axes)
        return type(self), *(value for value in own if not isinstance(value, Tensor))

    def leaves(self) -> dict[str, Tensor]:
        """Return the structure's tensors, by field name."""
        return {name: getattr(self, name) for name in self.core_axes}

    def map(self, function: Callable[[Tensor, int], Tensor]) -> Self:
        """Make a new structure from `function(tensor, core_axes)` of each tensor."""
        changed: dict[str, Any] = {
            name: function(getattr(self, name), axes) for name, axes in self.core_axes.items()
        }
        return self.rebuilt(**changed)

    def rebuilt(self, **tensors: Tensor) -> Self:
        """Make the same kind of structure from other tensors of fitting shapes.

        By default the constructor is called, which checks them.
        """
        return type(self)(**tensors)

    @property
    def batch_shape(self) -> torch.Size:
        """The axes before the matrix's own."""
        shapes: dict[str, torch.Size] = {}
        for name, axes in self.core_axes.items():
            leaf: Tensor = getattr(self, name)
            if leaf.ndim > axes:
                shapes[name] = leaf.shape[: leaf.ndim - axes]
        return broadcast(**shapes) if shapes else SCALAR

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the matrix."""
        return common_dtype(*self.leaves().values())

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return getattr(self, next(iter(self.core_axes))).device

    def to(self, target: torch.dtype | torch.device | str) -> Self:
        """Cast or move every tensor.

        Raises:
            TypeError: a dtype that is neither floating-point nor complex.
            ValueError: a real dtype for a complex structure. For more digits type
                `.to(torch.complex128)`.
        """
        if is_already(target, self.leaves().values()):
            return self
        check_cast(self.dtype, target)
        return self.map(lambda tensor, _: tensor.to(target))

    def __getitem__(self, index: Any) -> Self:
        """Index the batch axes, as a tensor's: `A[..., None]`, `A[..., 3]`."""
        axes = index if is_tuple(index) else (index,)
        batch = self.batch_shape

        def take(tensor: Tensor, core: int) -> Tensor:
            whole = tensor.expand(*batch, *tensor.shape[tensor.ndim - core :])
            return whole[(*axes, *[slice(None)] * core)]

        return self.map(take)


class OwnStructure(Structure):
    """The base of the library's own structures, whose slices and casts are not checked again."""

    def rebuilt(self, **tensors: Tensor) -> Self:
        """Make the same kind of structure from other tensors, unchecked."""
        return make_unchecked(type(self), **tensors)
