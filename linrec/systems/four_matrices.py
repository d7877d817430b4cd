"""The matrices A, B, C and D that both kinds of system share, and their checks."""

# pyright: reportConstantRedefinition=false
# (A, B, C and D are variables.)

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Size, Tensor

from linrec._tensors.arguments import as_tensor, device_of, holds_tensor, to_tensor
from linrec._tensors.dtypes import COMPUTED, common_dtype
from linrec._tensors.shapes import broadcast, show
from linrec.structures import Dense, Structure


@dataclass(frozen=True, eq=False, init=False)
class FourMatrices:
    """The base of `LinearRecurrence` and `StateSpace`: four matrices that fit each other."""

    A: Structure
    B: Tensor | None
    C: Tensor | None
    D: Tensor | None

    @property
    def batch_shape(self) -> torch.Size:
        """The batch axes of the system."""
        return batch_axes(self.A, *self.matrices())

    @property
    def state_size(self) -> int:
        """The number of states."""
        return self.A.state_size

    @property
    def input_size(self) -> int:
        """The number of inputs."""
        return self.A.state_size if self.B is None else self.B.shape[-1]

    @property
    def output_size(self) -> int:
        """The number of outputs."""
        return self.A.state_size if self.C is None else self.C.shape[-2]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that holds A, B, C and D."""
        return common_dtype(*self.tensors())

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.A.device

    def matrices(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """List B, C and D."""
        return self.B, self.C, self.D

    def tensors(self) -> list[Tensor]:
        """List the system's tensors, without names."""
        found = list(self.A.leaves().values())
        for matrix in (self.B, self.C, self.D):
            if matrix is not None:
                found.append(matrix)
        return found


class ListOptions(NamedTuple):
    """The options of `as_tensor` for nested lists: dtype and device of the tensors beside them."""

    least: torch.dtype | None = None
    device: torch.device | str | None = None


DEFAULTS = ListOptions()


def options_for_lists(**given: object) -> ListOptions:
    """Choose the options for nested lists among A, B, C and D; modules ask each time."""
    # (Before torch 2.12 Dynamo traces no union of types in `isinstance`.)
    if not any(isinstance(each, (list, tuple)) for each in given.values()):
        return DEFAULTS
    dtype = torch.get_default_dtype()
    for name, each in given.items():
        if isinstance(each, Structure) or holds_tensor(each):
            other = each.dtype if isinstance(each, Structure) else to_tensor(name, each).dtype
            if other in COMPUTED:
                dtype = torch.promote_types(dtype, other.to_real())
    arrays = "cpu" if any(map(holds_tensor, given.values())) else None
    return ListOptions(dtype, device_of(*given.values()) or arrays)


def as_structure(A: Structure | Tensor | object, options: ListOptions = DEFAULTS) -> Structure:
    """Return a structure unchanged, and anything else as a dense matrix."""
    return A if isinstance(A, Structure) else Dense(as_tensor("A", A, *options))


def batch_axes(A: Structure, B: Tensor | None, C: Tensor | None, D: Tensor | None) -> Size:
    """Broadcast the batch axes of A, B, C and D (time included, where they vary)."""
    shapes: dict[str, Size] = {}
    if B is not None and B.ndim > 2:
        shapes["B"] = B.shape[:-2]
    if C is not None and C.ndim > 2:
        shapes["C"] = C.shape[:-2]
    if D is not None and D.ndim > 2:
        shapes["D"] = D.shape[:-2]
    return broadcast(A=A.batch_shape, **shapes) if shapes else A.batch_shape


def check_matrices(
    A: Structure, B: object, C: object, D: object, options: ListOptions
) -> list[Tensor | None]:
    """Convert B, C and D, and check that they fit n states and each other."""
    B, C, D = (
        None if value is None else convert_matrix(name, value, options)
        for name, value in (("B", B), ("C", C), ("D", D))
    )
    n = A.state_size
    for name, matrix in (("B", B), ("C", C), ("D", D)):
        if matrix is not None and 0 in matrix.shape[-2:]:
            raise ValueError(
                f"`{name}` has shape {show(matrix.shape)}: expected one or more rows and columns. "
                f"Pass `{name}=None` to leave it out."
            )
    if B is not None and B.shape[-2] != n:
        raise ValueError(
            f"`B` has shape {show(B.shape)}, but `A` has {n} states: expected one row per state, "
            f"(*batch, {n}, m).{suggest_transpose('B', B, -1, n)}"
        )
    if C is not None and C.shape[-1] != n:
        raise ValueError(
            f"`C` has shape {show(C.shape)}, but `A` has {n} states: expected one column per "
            f"state, (*batch, p, {n}).{suggest_transpose('C', C, -2, n)}"
        )
    if D is not None:
        expected = (n if C is None else C.shape[-2], n if B is None else B.shape[-1])
        if D.shape[-2:] != expected:
            raise ValueError(
                f"`D` has shape {show(D.shape)}: expected one row per output and one column per "
                f"input, (*batch, {expected[0]}, {expected[1]})."
                + (" Pass `D.mT`." if D.shape[-2:] == expected[::-1] else "")
            )
    return [B, C, D]


def convert_matrix(name: str, value: object, options: ListOptions) -> Tensor:
    """Convert one of B, C and D; refuse vectors, which could be a row or a column."""
    matrix = as_tensor(name, value, *options)
    if matrix.ndim < 2:
        axis = {"B": f"{name}[:, None]", "C": f"{name}[None, :]"}.get(name, "[[d]]")
        axis = axis if matrix.ndim else f"[[{name.lower()}]]"
        raise ValueError(
            f"`{name}` has shape {show(matrix.shape)}: expected a matrix. Pass `{axis}` for one "
            f"{'input' if name == 'B' else 'output'}."
        )
    return matrix


def suggest_transpose(name: str, matrix: Tensor, axis: int, states: int) -> str:
    """Suggest the transpose if it would have fitted."""
    fits = matrix.shape[axis] == states
    return f" If the axes are swapped then pass `{name}.mT`." if fits else ""
