"""Validation of inputs, and padding, shared by the layers."""

import torch
from torch import Tensor, nn

from linrec.lengths import expand_lengths, last_step, length_mask, zero_padding
from linrec.nn import Layer
from lmu._checks import check_input


def check_step(layer: Layer, input: Tensor) -> None:
    """Check shape and dtype of one step's input."""
    check_input("input", input, layer.input_size, find_dtype(layer, input))


def check_steps(layer: Layer, inputs: Tensor) -> None:
    """Check shape and dtype of sequences."""
    check_input("inputs", inputs, layer.input_size, find_dtype(layer, inputs))
    if inputs.ndim < 2:
        raise ValueError(
            f"`inputs` has shape {tuple(inputs.shape)}: expected (*batch, time, "
            f"{layer.input_size}). For one step call `step`."
        )


def find_dtype(layer: nn.Module, inputs: Tensor) -> torch.dtype:
    """Find the dtype of a layer's weights; without any, that of its inputs."""
    weight = first_parameter(layer)
    return inputs.dtype if weight is None else weight.dtype


def first_parameter(module: nn.Module) -> Tensor | None:
    """Find the first of `module.parameters()`, in a tenth of the time: every step asks for it."""
    for parameter in module._parameters.values():
        if parameter is not None:
            return parameter
    for child in module._modules.values():
        if child is not None and (found := first_parameter(child)) is not None:
            return found
    return None


def own_steps(inputs: Tensor, lengths: Tensor) -> Tensor:
    """Which steps are a sequence's own, `(*batch, time, 1)`."""
    return length_mask(expand_lengths(lengths, inputs), inputs.shape[-2]).unsqueeze(-1)


def without_padding(inputs: Tensor, lengths: Tensor | None) -> Tensor:
    """Put zeros past the end of each sequence of `inputs (*batch, time, input_size)`."""
    return zero_padding(inputs, expand_lengths(lengths, inputs))


def last_own_step(sequence: Tensor, lengths: Tensor | None) -> Tensor:
    """Take each sequence's last own step of `(*batch, time, feature)`; zeros where it has none."""
    return last_step(sequence, expand_lengths(lengths, sequence))
