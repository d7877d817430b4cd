"""Functions of autograd without what torch does around each call of them."""

import inspect
from collections.abc import Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

Function = TypeVar("Function", bound=type[torch.autograd.Function])


def with_signature(function: Function) -> Function:
    """Keep the signature of a function's `forward` with it.

    `Function.apply` binds its arguments to the signature in every call, and `inspect` works that
    out from the code each time, which takes a tenth of a millisecond, unless it is kept.
    """
    forward: Any = function.forward
    forward.__signature__ = inspect.signature(forward)
    return function


def records_gradient(*tensors: Tensor | None) -> bool:
    """Whether torch records a gradient in one of these."""
    given = any(tensor is not None and tensor.requires_grad for tensor in tensors)
    return given and torch.is_grad_enabled()


def is_unwatched(*tensors: Tensor) -> bool:
    """Whether nothing asks for derivatives or transforms: a function need not be told to autograd.

    (Levels of forward derivatives have no public name; without one they are taken to be there.)
    """
    return not torch.compiler.is_compiling() and not records_gradient(*tensors) and is_plain()


def is_plain() -> bool:
    """Whether there is neither a transform of `torch.func` nor a forward derivative around."""
    # (It has no public name; torch's own `Function.apply` asks it in every call.)
    if torch._C._are_functorch_transforms_active():  # pyright: ignore[reportPrivateUsage]  # as said
        return False
    return getattr(forward_ad, "_current_level", 0) < 0


def is_already(target: torch.dtype | torch.device | str, tensors: Iterable[Tensor]) -> bool:
    """Whether `to` leaves these tensors as they are. (Of a device by name it is not asked.)

    Under a transform of `torch.func` it does not: what it returns then has no numbers to look at.
    """
    if isinstance(target, str) or not (torch.compiler.is_compiling() or is_plain()):
        return False
    for tensor in tensors:  # a plain loop: Dynamo traces no generator into `all`
        if (tensor.dtype if isinstance(target, torch.dtype) else tensor.device) != target:
            return False
    return True
