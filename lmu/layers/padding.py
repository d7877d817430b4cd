"""Padding, shared by the layers: which steps are a sequence's own, and the last of them."""

from torch import Tensor

from linrec.lengths import expand_lengths, last_step, length_mask, zero_padding


def own_steps(inputs: Tensor, lengths: Tensor) -> Tensor:
    """Which steps are a sequence's own, `(*batch, time, 1)`."""
    return length_mask(expand_lengths(lengths, inputs), inputs.shape[-2]).unsqueeze(-1)


def without_padding(inputs: Tensor, lengths: Tensor | None) -> Tensor:
    """Put zeros past the end of each sequence of `inputs (*batch, time, input_size)`."""
    return zero_padding(inputs, expand_lengths(lengths, inputs))


def last_own_step(sequence: Tensor, lengths: Tensor | None) -> Tensor:
    """Take each sequence's last own step of `(*batch, time, feature)`; zeros where it has none."""
    return last_step(sequence, expand_lengths(lengths, sequence))
