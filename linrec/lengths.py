"""Sequences of different lengths in one right-padded batch: masks, last steps, reversal.

`check_lengths` and `expand_lengths` check the values of lengths on the CPU. On a device they do
not, so that nothing has to wait for it: CUDA checks lengths itself, and ends the program as it does
after a wrong index.
"""

from typing import overload

import torch
from torch import Tensor

from linrec._tensors.arguments import to_tensor
from linrec._tensors.known_values import is_seen

__all__ = [
    "align_ends",
    "last_step",
    "length_mask",
    "reverse_steps",
    "zero_padding",
]


def check_lengths(lengths: Tensor, sequence: Tensor) -> Tensor:
    """Check that lengths are whole numbers between 0 and the number of steps.

    Args:
        lengths (*batch): the steps of each sequence; axes may be missing or 1.
        sequence (*batch, time, feature): the sequences.

    Returns:
        The lengths, as int64 on the device of the sequences.

    Raises:
        TypeError: lengths are no whole numbers.
        ValueError: a length is negative or greater than the number of steps.

    Example:
        >>> import torch, linrec
        >>> linrec.lengths.check_lengths(torch.tensor([2, 0]), torch.ones(2, 3, 1))
        tensor([2, 0])
    """
    lengths = to_tensor("lengths", lengths)
    whole = not (lengths.is_floating_point() or lengths.is_complex() or lengths.is_quantized)
    if not whole or lengths.dtype == torch.bool:
        raise TypeError(
            f"`lengths` has dtype {lengths.dtype}: expected whole numbers (*batch). Pass "
            "`lengths.long()`, or of a mask (*batch, time) `mask.sum(-1)`."
        )
    lengths, steps = lengths.to(torch.int64), sequence.shape[-2]
    wrong = (lengths < 0) | (lengths > steps)
    if lengths.device.type == "cuda" and not torch.compiler.is_compiling():
        message = f"`lengths` hold a number that is not 0 to {steps}, the number of steps."
        torch.ops.aten._assert_async.msg(~wrong.any(), message)
    elif is_seen(wrong, wait=False):
        raise ValueError(
            f"`lengths` are between {int(lengths.min())} and {int(lengths.max())}: expected 0 to "
            f"{steps}, the number of steps of `inputs`."
        )
    return lengths.to(sequence.device, non_blocking=True)


@overload
def expand_lengths(lengths: Tensor, sequence: Tensor) -> Tensor: ...


@overload
def expand_lengths(lengths: None, sequence: Tensor) -> None: ...


def expand_lengths(lengths: Tensor | None, sequence: Tensor) -> Tensor | None:
    """Check lengths, and expand them to one per sequence.

    Args:
        lengths (*batch): the steps of each sequence; axes may be missing or 1. None: all.
        sequence (*batch, time, feature): the sequences.

    Returns:
        The lengths `(*batch)`, as int64 on the device of the sequences; None if there are none.

    Raises:
        TypeError, ValueError: as `check_lengths`, and where the batch axes do not fit.

    Example:
        >>> import torch, linrec
        >>> linrec.lengths.expand_lengths(torch.tensor(2), torch.ones(2, 3, 1))
        tensor([2, 2])
    """
    if lengths is None:
        return None
    lengths, batch = check_lengths(lengths, sequence), sequence.shape[:-2]
    try:
        return lengths.expand(batch)
    except RuntimeError:
        raise ValueError(
            f"`lengths` has shape {tuple(lengths.shape)}: expected {tuple(batch)}, one number for "
            f"each sequence of inputs of shape {tuple(sequence.shape)}."
        ) from None


def length_mask(lengths: Tensor, steps: int) -> Tensor:
    """Mark each sequence's own steps.

    Args:
        lengths (*batch): the steps of each sequence.
        steps: T, the steps of the padded sequences.

    Returns:
        `(*batch, time)`, True before a sequence's end.

    Example:
        >>> import torch, linrec
        >>> linrec.lengths.length_mask(torch.tensor([2, 0]), 3)
        tensor([[ True,  True, False],
                [False, False, False]])
    """
    return torch.arange(steps, device=lengths.device) < lengths.unsqueeze(-1)


def zero_padding(sequence: Tensor, lengths: Tensor | None) -> Tensor:
    """Set the padding after the end of each sequence to zero.

    Args:
        sequence (*batch, time, feature): right-padded sequences.
        lengths (*batch): the steps of each. None: all.

    Returns:
        The sequences with zeros in the padding, whatever it held before (NaN included).

    Example:
        >>> import torch, linrec
        >>> linrec.lengths.zero_padding(torch.ones(2, 3, 1), torch.tensor([2, 0])).squeeze(-1)
        tensor([[1., 1., 0.],
                [0., 0., 0.]])
    """
    if lengths is None:
        return sequence
    mask = length_mask(lengths, sequence.shape[-2])
    return torch.where(mask.unsqueeze(-1), sequence, 0)


def last_step(sequence: Tensor, lengths: Tensor | None, otherwise: Tensor | float = 0.0) -> Tensor:
    """Take the last step of each sequence.

    Args:
        sequence (*batch, time, feature): right-padded sequences.
        lengths (*batch): the steps of each. None: all.
        otherwise (*batch, feature): the result for sequences without steps.

    Returns:
        `(*batch, feature)`.

    Example:
        >>> import torch, linrec
        >>> counted = torch.arange(3.0).expand(2, 3).unsqueeze(-1)
        >>> linrec.lengths.last_step(counted, torch.tensor([2, 0])).squeeze(-1)
        tensor([1., 0.])
    """
    if not sequence.shape[-2]:
        return sequence.sum(-2) + otherwise
    if lengths is None:
        return sequence[..., -1, :]
    lengths = lengths.expand(sequence.shape[:-2])
    index = (lengths - 1).clamp(min=0)[..., None, None]
    last = sequence.gather(-2, index.expand(*sequence.shape[:-2], 1, sequence.shape[-1]))
    return torch.where(lengths.unsqueeze(-1) > 0, last.squeeze(-2), otherwise)


def reverse_steps(sequence: Tensor, lengths: Tensor | None) -> Tensor:
    """Reverse each sequence within its own length.

    Args:
        sequence (*batch, time, feature): right-padded sequences.
        lengths (*batch): the steps of each. None: all.

    Returns:
        The reversed sequences, right-padded with zeros.

    Example:
        >>> import torch, linrec
        >>> counted = torch.arange(1.0, 4).expand(2, 3).unsqueeze(-1)
        >>> linrec.lengths.reverse_steps(counted, torch.tensor([2, 3])).squeeze(-1)
        tensor([[2., 1., 0.],
                [3., 2., 1.]])
    """
    if lengths is None:
        return sequence.flip(-2)
    lengths = lengths.expand(sequence.shape[:-2]).unsqueeze(-1)
    return _gather_steps(sequence, lengths - 1 - _count_steps(sequence))


def align_ends(sequence: Tensor, lengths: Tensor) -> Tensor:
    """Move each sequence to the right, so that all end at the last step.

    Args:
        sequence (*batch, time, feature): right-padded sequences.
        lengths (*batch): the steps of each.

    Returns:
        The moved sequences, left-padded with zeros.

    Example:
        >>> import torch, linrec
        >>> counted = torch.arange(1.0, 4).expand(2, 3).unsqueeze(-1)
        >>> linrec.lengths.align_ends(counted, torch.tensor([2, 3])).squeeze(-1)
        tensor([[0., 1., 2.],
                [1., 2., 3.]])
    """
    shift = sequence.shape[-2] - lengths.expand(sequence.shape[:-2]).unsqueeze(-1)
    return _gather_steps(sequence, _count_steps(sequence) - shift)


def _count_steps(sequence: Tensor) -> Tensor:
    """Number the steps from 0."""
    return torch.arange(sequence.shape[-2], device=sequence.device)


def _gather_steps(sequence: Tensor, index: Tensor) -> Tensor:
    """Gather steps by their number `(*batch, time)`, zeros where it is negative."""
    own = (index >= 0).unsqueeze(-1)
    gathered = sequence.gather(-2, index.clamp(min=0).unsqueeze(-1).expand_as(sequence))
    return torch.where(own, gathered, 0)


def max_length(lengths: Tensor, steps: int) -> int:
    """Return the longest length; the number of steps if lengths cannot be read at once."""
    if torch.compiler.is_compiling() or lengths.device.type != "cpu":
        return steps
    try:
        return int(lengths.max())
    except RuntimeError:  # inside vmap
        return steps
