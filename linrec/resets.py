"""Recurrences that start anew within a sequence: packed documents, episodes."""

# pyright: reportUnnecessaryIsInstance=false
# (Callers without types are checked too.)

import torch
from torch import Tensor

from linrec._tensors.arguments import to_tensor
from linrec._tensors.known_values import is_seen
from linrec._tensors.shapes import broadcast, show
from linrec.structures import BlockDiagonal, Dense, Diagonal, DiagonalPlusLowRank, Structure
from linrec.systems import LinearRecurrence, require_recurrence


def with_resets(recurrence: LinearRecurrence, resets: Tensor) -> LinearRecurrence:
    """Make a recurrence forget its state before some steps.

        x_t = A_t x_{t-1} + B_t u_t        with A_t = 0 where there is a reset

    Whatever comes before a reset, the initial state included, changes no bit of what comes after it
    and gets no gradient from there, with any executor. (As long as it is finite: 0 · ∞ is NaN.)

    The result is time-varying. A stays diagonal, diagonal plus low rank or block-diagonal; any
    other A is written out for each step. For a large, dense, time-invariant system it is better to
    run the segments as sequences of a batch, with `lengths`.

    Args:
        recurrence: the system, time-varying or not.
        resets (*batch, time): True where a sequence starts anew.

    Returns:
        The time-varying recurrence.

    Raises:
        ValueError: the axes do not fit.
        TypeError, ValueError: `resets` contains neither True and False nor 0 and 1.

    Example:
        >>> import torch, linrec
        >>> count = linrec.LinearRecurrence(A=[[1.0]], B=[[1.0]])
        >>> resets = torch.tensor([False, False, True, False])
        >>> linrec.run(linrec.with_resets(count, resets), torch.ones(4, 1)).outputs.flatten()
        tensor([1., 2., 1., 2.])
    """
    require_recurrence(recurrence)
    resets = check_resets(resets).to(recurrence.device)
    check_steps(resets, recurrence.steps)
    timed = recurrence.over_time()
    broadcast(recurrence=recurrence.batch_shape, resets=resets.shape[:-1])
    A = zero_where(timed.A, resets)
    return timed.rebuilt(A, timed.B, timed.C, timed.D, time_varying=True)


def zero_where(A: Structure, resets: Tensor) -> Structure:
    """Replace some matrices of a stack by zero."""
    parts = A.as_diagonal_plus_low_rank()
    if parts is not None:
        diagonal, left, right = parts
        kept = diagonal
        if kept.stride(-1) == 0:  # one number for all states, and the stride keeps saying so
            kept = kept[..., :1]
        kept = torch.where(resets.unsqueeze(-1), 0, kept)
        kept = kept.expand(*kept.shape[:-1], diagonal.shape[-1])
        if not left.shape[-1]:
            return Diagonal(kept)
        # (V, since U may be the recurrence's B.)
        return DiagonalPlusLowRank(kept, left, torch.where(resets[..., None, None], 0, right))
    blocks = A.as_block_diagonal()
    if blocks is not None:
        return BlockDiagonal(torch.where(resets[..., None, None, None], 0, blocks))
    return Dense(torch.where(resets[..., None, None], 0, A.to_dense()))


def check_steps(resets: Tensor, steps: int | None) -> None:
    """Refuse resets for another number of steps; a single reset is broadcast."""
    if steps is not None and steps != resets.shape[-1] and 1 not in (steps, resets.shape[-1]):
        raise ValueError(
            f"`resets` has {resets.shape[-1]} steps, and there are {steps}: expected as many."
        )


def check_resets(resets: object, inputs: Tensor | None = None) -> Tensor:
    """Check that resets are one boolean per step."""
    given = to_tensor("resets", resets)
    if given.ndim < 1:
        raise ValueError(f"`resets` has shape {show(given.shape)}: expected (*batch, time).")
    if inputs is not None:
        check_steps(given, inputs.shape[-2])
        given = given.to(inputs.device)
    if given.dtype == torch.bool:
        return given
    if given.is_floating_point() or given.is_complex():
        raise TypeError(
            f"`resets` has dtype {given.dtype}: expected True and False, (*batch, time). Pass "
            "`resets.bool()`; of segment numbers (*batch, time), "
            "`linrec.resets_between(numbers)`."
        )
    if is_seen((given != 0) & (given != 1), wait=False):
        raise ValueError(
            f"`resets` holds numbers between {int(given.min())} and {int(given.max())}: expected "
            "True and False, or 0 and 1. Of segment numbers (*batch, time), pass "
            "`linrec.resets_between(numbers)`; of offsets, `linrec.resets_at(offsets)`."
        )
    return given != 0


def resets_at(offsets: Tensor) -> Tensor:
    """Mark where packed sequences begin, for `resets=`.

    Args:
        offsets (sequences + 1): where each sequence begins, and the end; known as `cu_seqlens`.

    Returns:
        `(total,)`: True at the first step of each.

    Raises:
        ValueError: the offsets are not one row that begins with 0.

    Example:
        >>> import torch, linrec
        >>> linrec.resets_at(torch.tensor([0, 2, 5]))
        tensor([ True, False,  True, False, False])
    """
    given = to_tensor("offsets", offsets)
    if given.ndim != 1 or not len(given) or given[0] != 0 or (given.diff() < 0).any():
        raise ValueError(
            f"`offsets` has shape {show(given.shape)}: expected one row of whole numbers that "
            "begins with 0 and does not fall."
        )
    marked = torch.zeros(int(given[-1]) + 1, dtype=torch.bool, device=given.device)
    marked[given.long()] = True
    return marked[:-1]


def resets_between(segments: Tensor) -> Tensor:
    """Mark where the segments of packed sequences change, for `resets=`.

    Args:
        segments (*batch, time): the number, or another identifier, of each step's segment.

    Returns:
        `(*batch, time)`: True where the segment differs from that of the step before; False at the
        first step.

    Raises:
        ValueError: there is no time axis.

    Example:
        >>> import torch, linrec
        >>> linrec.resets_between(torch.tensor([[7, 7, 4, 4], [0, 1, 1, 1]]))
        tensor([[False, False,  True, False],
                [False,  True, False, False]])
    """
    given = to_tensor("segments", segments)
    if given.ndim < 1:
        raise ValueError(f"`segments` has shape {show(given.shape)}: expected (*batch, time).")
    changed = given[..., 1:] != given[..., :-1]
    return torch.nn.functional.pad(changed, (1, 0))[..., : given.shape[-1]]
