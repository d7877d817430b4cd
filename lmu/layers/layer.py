"""Validation of inputs, and padding, shared by the layers."""

import numpy as np
import torch
from torch import Tensor, nn

from linrec.nn import Layer
from lmu._checks import check_input


def check_step(layer: Layer, input: Tensor) -> None:
    """Check shape and dtype of one step's input."""
    check_input("input", input, layer.input_size, dtype_of(layer, input))


def check_steps(layer: Layer, inputs: Tensor) -> None:
    """Check shape and dtype of sequences."""
    check_input("inputs", inputs, layer.input_size, dtype_of(layer, inputs))
    if inputs.ndim < 2:
        raise ValueError(
            f"`inputs` has shape {tuple(inputs.shape)}: expected (*batch, time, "
            f"{layer.input_size}). For one step call `step`."
        )


def dtype_of(layer: nn.Module, inputs: Tensor) -> torch.dtype:
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
    lengths = as_lengths(lengths, inputs)
    steps = torch.arange(inputs.shape[-2], device=inputs.device)
    return (steps < lengths.unsqueeze(-1)).unsqueeze(-1)


def as_lengths(lengths: Tensor, inputs: Tensor) -> Tensor:
    """See that lengths are whole numbers between 0 and the number of steps, one a sequence."""
    if not isinstance(lengths, Tensor):  # torch takes no reversed array, nor another byte order
        array = np.asarray(lengths)
        lengths = torch.tensor(array.astype(np.int64 if array.dtype.kind in "iu" else float))
    lengths = lengths.to(inputs.device)
    if lengths.is_floating_point() or lengths.is_complex() or lengths.dtype == torch.bool:
        raise TypeError(
            f"`lengths` has dtype {lengths.dtype}: expected whole numbers (*batch). Pass "
            "`lengths.long()`, or of a mask (*batch, time) `mask.sum(-1)`."
        )
    batch = inputs.shape[:-2]
    try:
        lengths = lengths.expand(batch)
    except RuntimeError:
        raise ValueError(
            f"`lengths` has shape {tuple(lengths.shape)}: expected {tuple(batch)}, one number for "
            f"each sequence of inputs of shape {tuple(inputs.shape)}."
        ) from None
    if torch.compiler.is_compiling() or lengths.numel() == 0:
        return lengths
    try:
        least, most = int(lengths.min()), int(lengths.max())
    except RuntimeError:  # inside vmap no value can be looked at
        return lengths
    if least < 0 or most > inputs.shape[-2]:
        raise ValueError(
            f"`lengths` are between {least} and {most}: expected 0 to {inputs.shape[-2]}, the "
            "number of steps of `inputs`."
        )
    return lengths


def without_padding(inputs: Tensor, lengths: Tensor | None) -> Tensor:
    """Put zeros past the end of each sequence of `inputs (*batch, time, input_size)`."""
    if lengths is None:
        return inputs
    return torch.where(own_steps(inputs, lengths), inputs, 0)


def last_own_step(sequence: Tensor, lengths: Tensor | None) -> Tensor:
    """Take each sequence's last own step of `(*batch, time, feature)`, which is zero past its end.

    Where it has none that is zero, too.
    """
    if not sequence.shape[-2]:
        return sequence.sum(-2)
    if lengths is None:
        return sequence[..., -1, :]
    lengths = as_lengths(lengths, sequence)
    index = (lengths - 1).clamp(min=0)[..., None, None]
    last = sequence.gather(-2, index.expand(*sequence.shape[:-2], 1, sequence.shape[-1]))
    return last.squeeze(-2)
