"""Composition of two systems: in series, in parallel, or in a loop."""

# pyright: reportConstantRedefinition=false
# (A, B, C and D are variables.)

from collections.abc import Sequence
from numbers import Number
from typing import TypeVar

import torch
from torch import Tensor

from linrec._tensors.annotated import matrix_rank, solve, split
from linrec._tensors.arguments import check_kind, holds_tensor, is_computed, to_tensor
from linrec._tensors.devices import has_double
from linrec._tensors.dtypes import accumulation_dtype, double_dtype
from linrec._tensors.full_precision import full_precision
from linrec._tensors.known_values import is_seen
from linrec._tensors.shapes import broadcast, show
from linrec.structures import Dense, Diagonal, Structure
from linrec.systems import LinearRecurrence, StateSpace, require_system

System = TypeVar("System", LinearRecurrence, StateSpace)

# Each halves the logarithms of what rows and columns are too large by.
EQUILIBRATIONS = 8


def series(first: System, second: System) -> System:
    """Feed the outputs of one system to another: u → first → second → y.

    The second of two recurrences, with y₁_t = C₁ x₁_t + D₁ u_t, sees the first one's outputs of the
    same step, so that with x = [x₁; x₂]

        A = [[A₁, 0], [B₂C₁A₁, A₂]]    B = [[B₁], [B₂(C₁B₁ + D₁)]]    C = [D₂C₁, C₂]    D = D₂D₁

    and for two continuous systems A = [[A₁, 0], [B₂C₁, A₂]], B = [[B₁], [B₂D₁]].

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
    first, second = align(first, second)
    if first.output_size != second.input_size:
        raise ValueError(
            f"`first` has {first.output_size} outputs and `second` {second.input_size} inputs: "
            "expected as many. Give `first` a C, or `second` a B, that makes them meet."
        )
    A_1, B_1, C_1, D_1 = matrices(first)
    A_2, B_2, C_2, D_2 = matrices(second)
    acts_at_once = isinstance(first, LinearRecurrence)
    with full_precision(A_1):
        through = B_2 @ C_1
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
        second: a system of the same kind, with the same numbers of inputs and outputs.

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
    first, second = align(first, second)
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


def feedback(first: System, second: System | Tensor | float = 1.0, sign: float = -1) -> System:
    """Close a loop: feed the outputs of `first` back to its inputs through `second`.

    In the loop u₁ = r + s y₂, u₂ = y₁ and y = y₁, with s the sign. Let y = H x + E u be a system's
    output in terms of its state before a step: H = C A and E = C B + D for a recurrence, whose
    input acts at once, and H = C and E = D for a continuous system. The first one's input is

        u₁ = (I - s E₂ E₁)⁻¹ (r + s E₂ H₁ x₁ + s H₂ x₂)

    from which y₁ = H₁ x₁ + E₁ u₁ and both states follow. A recurrence reads its outputs from the
    states after the step, y = (I - s D₁ D₂)⁻¹ (C₁ x₁ + s D₁ C₂ x₂ + D₁ r).

    Args:
        first: the system in the forward path.
        second: a system of the same kind in the feedback path, or a gain: a matrix with one row for
            each input of `first` and one column for each output, or a number, applied to each
            channel if `first` has as many inputs as outputs.
        sign: -1 for negative feedback, as in python-control; 1 for positive.

    Returns:
        The closed loop, dense, of n₁ + n₂ states, the first one's before the second one's, with the
        inputs and outputs of `first`.

    Raises:
        ValueError: the systems do not fit each other, the gain around the loop is not finite, or
            the loop is algebraic without a solution: I - s E₂ E₁ or I - s D₁ D₂ is singular.
        TypeError: the systems are of different kinds.

    Example:
        >>> import linrec
        >>> tank = linrec.StateSpace(A=[[0.0]], B=[[1.0]])
        >>> linrec.feedback(tank, 2.0).A.to_dense()
        tensor([[-2.]])

    References:
        Åström and Murray 2021, Feedback Systems, section 9.1.
    """
    if isinstance(second, LinearRecurrence | StateSpace):
        first, other = align(first, second)
        A_2, B_2, C_2, D_2 = matrices(other)
    else:
        first, D_2 = with_gain(first, second)
        other = first
        A_2, B_2, C_2 = (D_2.new_zeros(0, k) for k in (0, D_2.shape[-1], D_2.shape[-2]))
        C_2 = C_2.mT
    A_1, B_1, C_1, D_1 = matrices(first)
    if D_2.shape[-2:] != D_1.mT.shape[-2:]:
        raise ValueError(
            f"`first` has {D_1.shape[-1]} inputs and {D_1.shape[-2]} outputs, `second` "
            f"{D_2.shape[-1]} and {D_2.shape[-2]} (of one copy): expected as many outputs of each "
            "as the other has inputs. Give one a B or a C that makes them meet."
        )
    at_once = isinstance(first, LinearRecurrence)
    with full_precision(A_1):
        H_1, E_1 = (C_1 @ A_1, C_1 @ B_1 + D_1) if at_once else (C_1, D_1)
        H_2, E_2 = (C_2 @ A_2, C_2 @ B_2 + D_2) if at_once else (C_2, D_2)
        # Each as a function of x₁, x₂ and r.
        loop, added, identity = around(E_2, E_1, sign)
        u = solve_loop(loop, added, [sign * E_2 @ H_1, sign * H_2, identity.to(E_1.dtype)])
        y = [H_1 + E_1 @ u[0], E_1 @ u[1], E_1 @ u[2]]
        A = blocks([[A_1 + B_1 @ u[0], B_1 @ u[1]], [B_2 @ y[0], A_2 + B_2 @ y[1]]])
        B = blocks([[B_1 @ u[2]], [B_2 @ y[2]]])
        if at_once:
            loop, added, _ = around(D_1, D_2, sign)
            y = solve_loop(loop, added, [C_1, sign * D_1 @ C_2, D_1])
        return rebuild(
            first, other, Dense(A), B, blocks([y[:2]]), None if first.D is None else y[2]
        )


def align(first: System, second: System) -> tuple[System, System]:
    """Give two systems a common dtype and, if one varies, both a time axis; refuse other pairs."""
    require_system(first, "first")
    require_system(second, "second")
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
        if first.time_varying or second.time_varying:
            first, second = first.over_time(), second.over_time()
    return first, second


def with_gain(first: System, gain: Tensor | float | object) -> tuple[System, Tensor]:
    """Give a system and a gain a common dtype; a number becomes a multiple of the identity.

    Plain numbers are read in double precision and leave the system's dtype unchanged.
    """
    require_system(first, "first")
    wide = double_dtype(first.dtype)
    if isinstance(gain, Tensor):
        matrix = check_kind("second", gain)
    else:
        matrix = to_tensor("second", gain, wide, "cpu")
    plain = isinstance(gain, Number) or not holds_tensor(gain) or not is_computed(matrix)
    if isinstance(first, LinearRecurrence) and first.time_varying:
        first = first.over_time()
    # (With promote_types, complex64 makes a real dtype complex and keeps its precision.)
    least = torch.complex64 if matrix.is_complex() else first.dtype
    dtype = torch.promote_types(first.dtype, least if plain else matrix.dtype)
    first, matrix = first.to(dtype), matrix.to(first.device, dtype)
    if matrix.ndim == 0:
        copies = getattr(first, "copies", 1)
        matrix = matrix * torch.eye(first.input_size // copies, dtype=dtype, device=first.device)
    if matrix.ndim < 2:
        raise ValueError(
            f"`second` has shape {show(matrix.shape)}: expected a system, a matrix with a row for "
            "each input of `first` and a column for each output, or a number."
        )
    return first, matrix


def around(back: Tensor, forth: Tensor, sign: float) -> tuple[Tensor, Tensor, Tensor]:
    """Compute I - s (back)(forth) of a loop of gains, what its entries add up, and the identity."""
    dtype = accumulation_dtype(back.dtype)  # a half may not hold the product of two
    identity = torch.eye(back.shape[-2], dtype=dtype, device=back.device)
    back, forth = back.to(dtype), forth.to(dtype)
    loop = identity - sign * back @ forth
    added = identity.abs() + abs(sign) * back.detach().abs() @ forth.detach().abs()
    return loop, added, identity


def solve_loop(loop: Tensor, added: Tensor, parts: list[Tensor]) -> list[Tensor]:
    """Solve a loop of gains for each part; refuse a loop without a solution.

    Large gains beside small ones are no reason to refuse: singularity is judged after rows and
    columns are scaled so that rounding errors of all entries, which are as large as what was
    `added` for them, are alike.
    """
    whole = blocks([parts])
    narrow = parts[0].dtype
    whole = whole.to(loop.dtype)
    seen = loop.detach()
    if is_seen(~seen.isfinite()):
        raise ValueError(
            "The gain around the loop, sign·D₂D₁ (of recurrences: with C B added to D), holds NaN "
            "or an infinity: expected finite numbers in `first`, `second` and `sign`."
        )
    rows, columns = equilibrate(added)
    scaled = seen * rows * columns
    if not has_double(scaled.device):  # (torch's ranks need it)
        scaled = scaled.cpu()
    if is_seen(matrix_rank(scaled) < loop.shape[-1]):
        raise ValueError(
            "The loop is algebraic and has no solution: each step's input depends on itself, and "
            "I - sign·D₂D₁ (of recurrences: with C B added to D) is singular to working precision. "
            "Expected a delay or another gain in the loop."
        )
    widths = [part.shape[-1] for part in parts]
    return list(split(solve(loop, whole).to(narrow), widths, -1))


def equilibrate(sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Find powers of two that scale rows and columns of sizes to a largest entry of about 1.

    References:
        Ruiz 2001, A scaling algorithm to equilibrate both rows and columns norms in matrices.
    """
    rows, columns = torch.ones_like(sizes[..., :1]), torch.ones_like(sizes[..., :1, :])
    for _ in range(EQUILIBRATIONS):
        scaled = sizes * rows * columns
        rows = rows * torch.exp2(-(scaled.amax(-1, keepdim=True).log2() / 2).round())
        columns = columns * torch.exp2(-(scaled.amax(-2, keepdim=True).log2() / 2).round())
    return rows, columns


def matrices(system: LinearRecurrence | StateSpace) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return dense A, B, C, D of one copy, with identities and zeros in place of None."""
    A = system.A.to_dense()
    identity = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    B = identity if system.B is None else system.B
    C = identity if system.C is None else system.C
    D = A.new_zeros(C.shape[-2], B.shape[-1]) if system.D is None else system.D
    dtype = system.dtype
    return A.to(dtype), B.to(dtype), C.to(dtype), D.to(dtype)


def blocks(rows: Sequence[Sequence[Tensor | None]]) -> Tensor:
    """Assemble a block matrix; None is a block of zeros that fits."""
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


def rebuild(
    first: System, second: System, A: Structure, B: Tensor, C: Tensor, D: Tensor | None
) -> System:
    """Build a system of the same kind as the two composed, without D if neither has one."""
    through = None if first.D is None and second.D is None else D
    if isinstance(first, StateSpace):
        return StateSpace(A, B, C, through)  # type: ignore[return-value]  # System is StateSpace here
    return LinearRecurrence(A, B, C, through, time_varying=first.time_varying, copies=first.copies)  # type: ignore[return-value]  # as above
