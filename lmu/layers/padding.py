"""Padding, as handled by all layers: masks of it, and the last step before it."""

from torch import Tensor

from linrec.lengths import expand_lengths, last_step, length_mask, zero_padding


def own_steps(inputs: Tensor, lengths: Tensor) -> Tensor:
    """Return True where a step is not padding, `(*batch, time, 1)`."""
    return length_mask(expand_lengths(lengths, inputs), inputs.shape[-2]).unsqueeze(-1)


def without_padding(inputs: Tensor, lengths: Tensor | None) -> Tensor:
    """Put zeros past the end of each sequence of `inputs (*batch, time, input_size)`."""
    return zero_padding(inputs, expand_lengths(lengths, inputs))


def last_own_step(sequence: Tensor, lengths: Tensor | None) -> Tensor:
    """Take each sequence's last step of `(*batch, time, feature)`; zeros where it has none."""
    return last_step(sequence, expand_lengths(lengths, sequence))
