"""Two systems made into one: behind each other, or side by side."""

from typing import TypeVar

import torch
from torch import Tensor

from linrec._checks import broadcast
from linrec.structures import Dense, Diagonal, Structure, Varying
from linrec.systems import LinearRecurrence, StateSpace

System = TypeVar("System", LinearRecurrence, StateSpace)


def series(first: System, second: System) -> System:
    """Feed the outputs of one system to another: u → first → second → y.

    Of two recurrences with y₁_t = C₁ x₁_t + D₁ u_t, the second sees the first one's outputs of
    the same step, so that with x = [x₁; x₂]

        A = [[A₁, 0], [B₂C₁A₁, A₂]]    B = [[B₁], [B₂(C₁B₁ + D₁)]]    C = [D₂C₁, C₂]    D = D₂D₁

    and of two continuous systems A = [[A₁, 0], [B₂C₁, A₂]], B = [[B₁], [B₂D₁]].

    Args:
        first: the system that takes the inputs.
        second: a system of the same kind, with as many inputs as `first` has outputs.

    Returns:
        The composed system, dense, of n₁ + n₂ states, the first one's before the second one's.

    Raises:
        ValueError: the outputs of one do not fit the inputs of the other.
        TypeError: the systems are of different kinds.

    Example:
        >>> import linrec
        >>> half = linrec.LinearRecurrence(A=[[0.5]], B=[[1.0]])
        >>> linrec.series(half, half).state_size
        2
    """
    first, second = aligned(first, second)
    if first.output_size != second.input_size:
        raise ValueError(
            f"`first` has {first.output_size} outputs and `second` {second.input_size} inputs: "
            "expected as many. Give `first` a C, or `second` a B, that makes them meet."
        )
    A_1, B_1, C_1, D_1 = matrices(first)
    A_2, B_2, C_2, D_2 = matrices(second)
    through = B_2 @ C_1
    acts_at_once = isinstance(first, LinearRecurrence)
    corner = through @ A_1 if acts_at_once else through
    driven = B_2 @ D_1 + through @ B_1 if acts_at_once else B_2 @ D_1
    A = blocks([[A_1, None], [corner, A_2]])
    B = blocks([[B_1], [driven]])
    return rebuild(first, second, Dense(A), B, blocks([[D_2 @ C_1, C_2]]), D_2 @ D_1)


def parallel(first: System, second: System) -> System:
    """Feed the same inputs to two systems and add their outputs: y = y₁ + y₂.

        A = [[A₁, 0], [0, A₂]]    B = [[B₁], [B₂]]    C = [C₁, C₂]    D = D₁ + D₂

    Args:
        first: a system.
        second: a system of the same kind, with as many inputs and outputs.

    Returns:
        The composed system of n₁ + n₂ states; diagonal if both are.

    Raises:
        ValueError: the numbers of inputs or outputs differ.
        TypeError: the systems are of different kinds.

    Example:
        >>> import linrec
        >>> half = linrec.LinearRecurrence(A=[[0.5]], B=[[1.0]])
        >>> linrec.parallel(half, half).C
        tensor([[1., 1.]])
    """
    first, second = aligned(first, second)
    sizes = [(system.input_size, system.output_size) for system in (first, second)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"`first` has {sizes[0][0]} inputs and {sizes[0][1]} outputs, `second` {sizes[1][0]} "
            f"and {sizes[1][1]}: expected the same numbers of both."
        )
    A_1, B_1, C_1, D_1 = matrices(first)
    A_2, B_2, C_2, D_2 = matrices(second)
    A: Structure = Dense(blocks([[A_1, None], [None, A_2]]))
    if first.A.as_diagonal() is not None and second.A.as_diagonal() is not None:
        A = Diagonal(A.to_dense().diagonal(dim1=-2, dim2=-1))
    return rebuild(first, second, A, blocks([[B_1], [B_2]]), blocks([[C_1, C_2]]), D_1 + D_2)


def aligned(first: System, second: System) -> tuple[System, System]:
    """Give two systems one dtype and, if one varies, both an axis of time; refuse other pairs."""
    if type(first) is not type(second):
        raise TypeError(
            f"`first` is a {type(first).__name__} and `second` a {type(second).__name__}: expected "
            "two of a kind. Discretise the continuous one first, `discretize(system, dt)`."
        )
    copies = [getattr(system, "copies", 1) for system in (first, second)]
    if copies[0] != copies[1]:
        raise ValueError(
            f"`first` has {copies[0]} copies and `second` {copies[1]}: expected as many of both."
        )
    dtype = torch.promote_types(first.dtype, second.dtype)
    first, second = first.to(dtype), second.to(dtype)
    if isinstance(first, LinearRecurrence) and isinstance(second, LinearRecurrence):
        varying = first.varying or second.varying
        if varying:
            first, second = first.over_time(), second.over_time()
    return first, second


def matrices(system: LinearRecurrence | StateSpace) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Write A, B, C, D of one copy out, with identities and zeros for what was left out."""
    A = system.A.to_dense()
    identity = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    B = identity if system.B is None else system.B
    C = identity if system.C is None else system.C
    D = A.new_zeros(C.shape[-2], B.shape[-1]) if system.D is None else system.D
    dtype = system.dtype
    return A.to(dtype), B.to(dtype), C.to(dtype), D.to(dtype)


def blocks(rows: list[list[Tensor | None]]) -> Tensor:
    """Put matrices together; None is a block of zeros that fits."""
    given = [block for row in rows for block in row if block is not None]
    batch = broadcast(**{f"block {i}": block.shape[:-2] for i, block in enumerate(given)})
    dtype = torch.promote_types(given[0].dtype, given[-1].dtype)
    heights = [next(b.shape[-2] for b in row if b is not None) for row in rows]
    widths = [
        next(b.shape[-1] for b in column if b is not None) for column in zip(*rows, strict=True)
    ]
    filled = [
        torch.cat(
            [
                given[0].new_zeros(*batch, height, width, dtype=dtype)
                if block is None
                else block.to(dtype).expand(*batch, height, width)
                for block, width in zip(row, widths, strict=True)
            ],
            -1,
        )
        for row, height in zip(rows, heights, strict=True)
    ]
    return torch.cat(filled, -2)


def rebuild(first: System, second: System, A: Structure, B: Tensor, C: Tensor, D: Tensor) -> System:
    """Make a system of the same kind as the two that it comes from; D = 0 is left out."""
    through = None if first.D is None and second.D is None else D
    if isinstance(first, StateSpace):
        return StateSpace(A, B, C, through)  # type: ignore[return-value]  # System is StateSpace here
    varying = isinstance(first.A, Varying) or isinstance(second.A, Varying)
    structure = Varying(A) if varying else A
    return LinearRecurrence(structure, B, C, through, copies=first.copies)  # type: ignore[return-value]  # as above
