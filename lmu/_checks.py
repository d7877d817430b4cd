"""Validate the tensors that layers are given."""

import torch
from torch import Tensor


def check_size(name: str, tensor: Tensor, size: int) -> None:
    """Refuse a tensor whose last axis does not fit."""
    if tensor.ndim < 1 or tensor.shape[-1] != size:
        raise ValueError(
            f"`{name}` has shape {tuple(tensor.shape)}: expected {size} numbers on the last "
            f"axis, (*batch, {size})."
        )


def check_input(name: str, tensor: Tensor, size: int, dtype: torch.dtype) -> None:
    """Check the last axis and the dtype of an input."""
    check_size(name, tensor, size)
    # Autocast casts by itself what meets weights. (There are devices without, as "meta".)
    device = tensor.device.type
    cast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    if tensor.dtype != dtype and not cast:
        raise TypeError(
            f"`{name}` has dtype {tensor.dtype}: expected {dtype}, that of the weights. Pass "
            f"`{name}.to({dtype})`."
        )
