"""Checks whether tensor values can be read, and without waiting for a device."""

import torch
from torch import Tensor

from linrec._tensors.autograd import has_tangent, records_gradient


def is_seen(condition: Tensor, *, wait: bool = True) -> bool:
    """Whether a condition is seen to hold in some entry.

    False where no value can be read: in a graph that is being compiled, under `torch.func`
    transforms, on the meta device and in fake tensors.

    Args:
        condition: the condition.
        wait: whether to wait for a device if the condition is on one; if not, nothing is seen
            there.
    """
    if torch.compiler.is_compiling() or (condition.device.type != "cpu" and not wait):
        return False
    try:
        return bool(condition.any())
    except RuntimeError:  # no value can be read
        return False


def has_values(*tensors: Tensor) -> bool:
    """Whether the values of tensors can be read.

    They cannot in a graph that is being compiled, under `torch.func` transforms, on the meta device
    and in fake tensors; and they must not be where a graph is traced from operations.
    """
    if torch.compiler.is_compiling() or records_operations():
        return False
    for tensor in tensors:
        if tensor.device.type == "meta":
            return False
        try:
            if not tensor.data_ptr() and tensor.numel():
                return False
        except RuntimeError:
            return False
    return True


def records_operations() -> bool:
    """Whether operations are being recorded, as by `make_fx`, with tensors that have values.

    Anything computed from these values outside torch would be a constant of the graph.
    """
    # (This check has no public name; torch's own `get_proxy_mode` makes it.)
    key = torch._C._TorchDispatchModeKey.PROXY  # pyright: ignore[reportPrivateUsage]  # as said
    mode = torch._C._get_dispatch_mode(key)  # pyright: ignore[reportPrivateUsage]  # as said
    return mode is not None


def at_hand(*tensors: Tensor) -> bool:
    """Whether values can be read without waiting for a device."""
    return all(tensor.device.type == "cpu" for tensor in tensors) and has_values(*tensors)


def may_look(*tensors: Tensor) -> bool:
    """Whether to read the values of a system while preparing it.

    Reading from a device means waiting for all work queued on it. That is worth it for a system
    prepared once, but a trained system is prepared in every step.
    """
    if not has_values(*tensors):
        return False
    return not records_gradient(*tensors) or all(tensor.device.type == "cpu" for tensor in tensors)


def may_keep(*tensors: Tensor) -> bool:
    """Whether something computed from tensors may be kept until their values change.

    Not if a gradient or a tangent has to pass through the computation. And not for trained tensors
    on a device: values are not compared there in each call, and torch does not count writes through
    `.data`, by which weights are often clipped or averaged.
    """
    if records_gradient(*tensors) or any(map(has_tangent, tensors)):
        return False
    return not any(each.requires_grad and each.device.type != "cpu" for each in tensors)
