"""The call to certify, written as a real system in double precision."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from linrec._call import PreparedCall
from linrec._tensors.dtypes import double_dtype
from linrec.certificate.exact import INFLATED, UNIT, add_up, exact_product
from linrec.structures import Structure


@dataclass(frozen=True, eq=False)
class RealSystem:
    """A call written out in real numbers; complex numbers are alternating real and imaginary parts.

    The states are k independent groups of b: single states if A is diagonal, else one group of n.

    Attributes:
        A (*batch, k, [time,] b, b): the transition matrix of each group.
        B (*batch, [time,] n, m), C (*batch, [time,] p, n), D (*batch, [time,] p, m): or None.
        inputs (*batch, time, m): u.
        start (*batch, n): the state before the first step.
        by_step: which of A (and what belongs to it), B, C and D have an axis of time.
        tails: by the name of a matrix or of the start, the part that rounding took off. (A rounded
            start only occurs in a system that does not vary.)
        doubts: by name, how far matrix plus tail may be from the exact one, entry by entry, or in
            one column for all entries of a row.
    """

    A: Tensor
    B: Tensor | None
    C: Tensor | None
    D: Tensor | None
    inputs: Tensor
    start: Tensor
    by_step: dict[str, bool]
    tails: dict[str, Tensor] = field(default_factory=dict)
    doubts: dict[str, Tensor] = field(default_factory=dict)

    @property
    def groups(self) -> tuple[int, int]:
        """k and b."""
        return self.A.shape[-4 if self.by_step["A"] else -3], self.A.shape[-1]

    def doubt(self, name: str) -> Tensor | None:
        """Bound the distance of a matrix without its tail from the exact one."""
        if name not in self.doubts:
            return None
        return INFLATED * (self.tails[name].abs() + self.doubts[name])

    def at(self, name: str, steps: slice) -> Tensor | None:
        """Cut one of A, B, C and D to some steps, if it changes with them."""
        return self.cut(name, getattr(self, name), steps)

    def cut(self, name: str, matrix: Tensor | None, steps: slice) -> Tensor | None:
        """Cut a tensor that belongs to the matrix of this name to some steps, as `at` does."""
        if matrix is None or not self.by_step[name]:
            return matrix
        return matrix[..., steps, :, :]

    def grouped(self, sequence: Tensor) -> Tensor:
        """Bring states `(*batch, time, n)` into groups, `(*batch, k, time, b)`."""
        return sequence.unflatten(-1, self.groups).movedim(-2, -3)

    def together(self, sequence: Tensor) -> Tensor:
        """Bring groups `(*batch, k, time, b)` back, `(*batch, time, n)`."""
        return sequence.movedim(-3, -2).flatten(-2)


def real_system(call: PreparedCall) -> RealSystem:
    """Write a call out in real numbers; every conversion is exact."""
    system, varying = call.system, call.system.time_varying
    dtype, structure = double_dtype(call.inputs.dtype), system.A
    by_step = {"A": varying and len(structure.batch_shape) > 0}
    if by_step["A"] and structure.batch_shape[-1] == 1:  # the same at every step
        structure, by_step["A"] = structure[..., 0], False
    A, *rounded = transition(structure.to(dtype), by_step["A"])
    tails, doubts = ({} if each is None else {"A": each} for each in rounded)
    matrices = {}
    for name in "BCD":
        matrix = getattr(system, name)
        by_step[name] = varying and matrix is not None and matrix.ndim > 2
        if matrix is not None and by_step[name] and matrix.shape[-3] == 1:
            matrix, by_step[name] = matrix.squeeze(-3), False
        matrices[name] = None if matrix is None else real_matrix(matrix.detach().to(dtype))
    inputs, start = (parts(each.detach().to(dtype)) for each in (call.inputs, call.start()))
    return RealSystem(
        A, **matrices, inputs=inputs, start=start, by_step=by_step, tails=tails, doubts=doubts
    )


def transition(A: Structure, varying: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Write A out in groups, with its tail and doubt, or None, as in `RealSystem`."""
    diagonal = A.as_diagonal()
    if diagonal is not None:
        each = diagonal.detach()[..., None, None]
        return real_matrix(each.movedim(-3, -4) if varying else each), None, None
    dense, axis = real_matrix(A.to_dense().detach()), -4 if varying else -3
    summed = A.as_diagonal_plus_low_rank()
    if summed is None:
        return dense.unsqueeze(axis), None, None
    left, right = (real_matrix(each.detach()) for each in summed[1:])
    diagonal = real_matrix(torch.diag_embed(summed[0].detach()))
    high, low, error = add_up([exact_product(right, left, False)], [diagonal, -dense])
    tail, error = high + low, error + 2 * UNIT * (high + low).abs()
    return dense.unsqueeze(axis), tail.unsqueeze(axis), error.unsqueeze(axis)


def real_matrix(matrix: Tensor) -> Tensor:
    """Write a + bi as [[a, -b], [b, a]], entry by entry; return a real matrix unchanged."""
    if not matrix.is_complex():
        return matrix
    real, imaginary = matrix.real, matrix.imag
    rows = [torch.stack(row, -1) for row in ((real, -imaginary), (imaginary, real))]
    blocks = torch.stack(rows, -3)  # (*batch, r, 2, q, 2), where the first 2 stands before q
    return blocks.flatten(-2).flatten(-3, -2)


def parts(vectors: Tensor) -> Tensor:
    """Write complex vectors as alternating real and imaginary parts."""
    if not vectors.is_complex():
        return vectors
    return torch.view_as_real(vectors.resolve_conj()).flatten(-2)


def whole(vectors: Tensor, is_complex: bool) -> Tensor:
    """Undo `parts`."""
    if not is_complex:
        return vectors
    return torch.view_as_complex(vectors.unflatten(-1, (-1, 2)).contiguous())
