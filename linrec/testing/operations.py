"""Properties of a structure's five operations, compared with its matrix."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from linrec._tensors.dtypes import double_dtype
from linrec.executors import Executor
from linrec.structures import Dense, Structure
from linrec.testing.case import Case, Comparison, like
from linrec.testing.products import stored_magnitude
from linrec.testing.values import same

Comparisons = Iterator[Comparison]


def apply(case: Case, executor: Executor) -> Comparisons:
    """Compare `apply` with the matrix of `to_dense`."""
    A, dense, sizes, unit = parts(case)
    states = like(dense[..., 0])
    expected = (dense.to(wide(A)) @ states.to(wide(A)).unsqueeze(-1)).squeeze(-1)
    allowed = (sizes @ states.abs().double().unsqueeze(-1)).squeeze(-1)
    allowed = 2 * unit * (A.state_size + 3) * allowed
    yield Comparison("A x", A.apply(states), expected, allowed + lost(A))


def compose(case: Case, executor: Executor) -> Comparisons:
    """Compare `compose` with matrix products, with structures of its own kind and of others."""
    A, dense, sizes, unit = parts(case)
    yield product("A A", A, A, dense, sizes, unit)
    other = Dense(like(dense))
    yield product("A E", A, other, dense, sizes, unit)
    yield product("E A", other, A, dense, sizes, unit)


def product(
    what: str, A: Structure, E: Structure, dense: Tensor, sizes: Tensor, unit: float
) -> Comparison:
    """Compare A.compose(E) with the product of both matrices."""
    left, right = (each.to_dense().to(wide(A)) for each in (A, E))
    bounds = (stored_magnitude(each).double() for each in (A, E))
    n = A.state_size
    got = A.compose(E).to_dense()
    # Factors of up to n columns are multiplied twice: in `compose` and in `to_dense`.
    allowed = 4 * unit * (2 * n + 3) * (next(bounds) @ next(bounds))
    return Comparison(what, got, left @ right, allowed + lost(A))


def adjoint(case: Case, executor: Executor) -> Comparisons:
    """Compare `adjoint` with the conjugate transpose, and twice the adjoint with the matrix."""
    A, dense, sizes, unit = parts(case)
    allowed = 2 * unit * (A.state_size + 3) * sizes
    yield Comparison("A*", A.adjoint().to_dense(), dense.mH, allowed.mT)
    yield Comparison("A**", A.adjoint().adjoint().to_dense(), dense, allowed)


def shape(case: Case, executor: Executor) -> Comparisons:
    """Check `state_size`, the batch axes and indexing against the matrix."""
    A, dense, sizes, unit = parts(case)
    expected = (*A.batch_shape, A.state_size, A.state_size)
    yield same("shape of the matrix", tuple(dense.shape), expected)
    yield same("a new axis", tuple(A[None].to_dense().shape), (1, *expected))
    allowed = 2 * unit * (A.state_size + 3) * sizes
    yield Comparison("A in double precision", A.to(wide(A)).to_dense(), dense, allowed)


def capabilities(case: Case, executor: Executor) -> Comparisons:
    """Check a structure's capabilities against its matrix."""
    A, dense, sizes, unit = parts(case)
    allowed = 2 * unit * (A.state_size + 3) * sizes
    diagonal, low_rank = A.as_diagonal(), A.as_diagonal_plus_low_rank()
    if diagonal is not None:
        yield Comparison("the diagonal", torch.diag_embed(diagonal), dense, allowed)
    if low_rank is not None:
        d, left, right = (part.to(wide(A)) for part in low_rank)
        whole = torch.diag_embed(d) + left @ right.mH
        yield Comparison("diagonal plus low rank", whole, dense, allowed)
    least = torch.minimum(sizes, dense.abs().double())
    yield Comparison("the magnitude, or more", least, dense.abs(), allowed)


PROPERTIES: dict[str, Callable[[Case, Executor], Comparisons]] = {
    "apply": apply,
    "compose": compose,
    "adjoint of A": adjoint,
    "shape": shape,
    "capabilities": capabilities,
}


def parts(case: Case) -> tuple[Structure, Tensor, Tensor, float]:
    """Return the structure, its matrix, the magnitudes summed in it, and the unit roundoff."""
    A = case.recurrence.A
    unit = torch.finfo(A.dtype).eps * (2**1.5 if A.dtype.is_complex else 1) / 2
    return A, A.to_dense(), stored_magnitude(A).double(), unit


def lost(A: Structure) -> float:
    """Bound what sums of products lose to subnormal numbers, which are frequent in float16."""
    limits = torch.finfo(A.dtype)
    return limits.tiny * limits.eps * (2 * A.state_size + 3)


def wide(A: Structure) -> torch.dtype:
    """Return the double-precision dtype, real or complex."""
    return double_dtype(A.dtype)
