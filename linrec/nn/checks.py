"""Validation of the inputs that a layer is called with."""

import torch
from torch import Tensor, nn

from linrec._tensors.full_precision import under_autocast
from linrec.nn.layer import Layer
from linrec.systems import LinearRecurrence


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


def check_input(name: str, tensor: Tensor, size: int, dtype: torch.dtype) -> None:
    """Refuse a tensor whose last axis does not fit, or whose dtype differs from the weights'."""
    check_size(name, tensor, size)
    # Autocast itself casts tensors that meet weights.
    if tensor.dtype != dtype and not under_autocast(tensor.device.type):
        raise TypeError(
            f"`{name}` has dtype {tensor.dtype}: expected {dtype}, that of the weights. Pass "
            f"`{name}.to({dtype})`."
        )


def check_size(name: str, tensor: Tensor, size: int) -> None:
    """Refuse a tensor whose last axis does not fit."""
    if tensor.ndim < 1 or tensor.shape[-1] != size:
        raise ValueError(
            f"`{name}` has shape {tuple(tensor.shape)}: expected {size} numbers on the last "
            f"axis, (*batch, {size})."
        )


def find_dtype(layer: nn.Module, inputs: Tensor) -> torch.dtype:
    """Find the dtype of a layer's weights, or of its inputs if it has no weights."""
    weight = first_parameter(layer)
    return inputs.dtype if weight is None else weight.dtype


def first_parameter(module: nn.Module) -> Tensor | None:
    """Find the first of `module.parameters()`, in a tenth of the time: every step needs it."""
    for parameter in module._parameters.values():
        if parameter is not None:
            return parameter
    for child in module._modules.values():
        if child is not None and (found := first_parameter(child)) is not None:
            return found
    return None


def declared_input_size(module: nn.Module) -> int | None:
    """Find the number of input features that a module declares; None if it declares none."""
    size, recurrence = getattr(module, "input_size", None), getattr(module, "recurrence", None)
    if size is None and isinstance(recurrence, LinearRecurrence):
        size = recurrence.input_size
    return size if isinstance(size, int) else None
