"""Whether the numbers of tensors can be looked at, and without waiting for a device."""

import torch
from torch import Tensor

from linrec._tensors.autograd import records_gradient


def is_seen(condition: Tensor, *, wait: bool = True) -> bool:
    """Whether a condition is seen to hold in some entry.

    It is not where no value can be looked at: in a graph that is being compiled, under
    `torch.func` transforms, on the meta device and in fake tensors.

    Args:
        condition: the condition.
        wait: whether to wait for a device, should it be on one; if not, nothing is seen there.
    """
    if torch.compiler.is_compiling() or (condition.device.type != "cpu" and not wait):
        return False
    try:
        return bool(condition.any())
    except RuntimeError:  # no value can be looked at
        return False


def has_values(*tensors: Tensor) -> bool:
    """Whether the numbers of tensors can be looked at.

    They cannot in a graph that is being compiled, under `torch.func` transforms, on the meta
    device and in fake tensors; where a graph is traced from operations, they are not to be.
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
    """Whether operations are being recorded, as `make_fx` does, with tensors that have numbers.

    What is computed from these numbers by anything but torch would be a constant of the graph.
    """
    # (It has no public name; torch's own `get_proxy_mode` asks it.)
    key = torch._C._TorchDispatchModeKey.PROXY  # pyright: ignore[reportPrivateUsage]  # as said
    mode = torch._C._get_dispatch_mode(key)  # pyright: ignore[reportPrivateUsage]  # as said
    return mode is not None


def at_hand(*tensors: Tensor) -> bool:
    """Whether numbers can be looked at without waiting for a device."""
    return all(tensor.device.type == "cpu" for tensor in tensors) and has_values(*tensors)


def may_look(*tensors: Tensor) -> bool:
    """Whether the numbers of a system that is prepared are looked at.

    To look at what is on a device is to wait for all that it was given to do. What is prepared
    once is worth that; what is trained is prepared in every step.
    """
    if not has_values(*tensors):
        return False
    return not records_gradient(*tensors) or all(tensor.device.type == "cpu" for tensor in tensors)
