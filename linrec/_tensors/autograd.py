"""Autograd functions without torch's overhead around each call."""

import inspect
from collections.abc import Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

Function = TypeVar("Function", bound=type[torch.autograd.Function])


def with_signature(function: Function) -> Function:
    """Cache the signature of a function's `forward` on it.

    `Function.apply` binds its arguments to the signature in every call. Without a cached one,
    `inspect` derives it from the code each time, which takes a tenth of a millisecond.
    """
    forward: Any = function.forward
    forward.__signature__ = inspect.signature(forward)
    return function


def records_gradient(*tensors: Tensor | None) -> bool:
    """Whether torch records a gradient for any of the tensors."""
    given = any(tensor is not None and tensor.requires_grad for tensor in tensors)
    return given and torch.is_grad_enabled()


def is_unwatched(*tensors: Tensor) -> bool:
    """Whether no derivative or transform is active, so that autograd can be bypassed."""
    return not torch.compiler.is_compiling() and not records_gradient(*tensors) and is_plain()


def is_plain() -> bool:
    """Whether no `torch.func` transform and no forward derivative is active."""
    # (This check has no public name; torch's own `Function.apply` makes it in every call.)
    if torch._C._are_functorch_transforms_active():  # pyright: ignore[reportPrivateUsage]  # as said
        return False
    return not in_forward_mode()


def in_forward_mode() -> bool:
    """Whether a level of forward-mode differentiation is active.

    (Levels have no public name; if the private one is missing, they count as active.)
    """
    return not torch.compiler.is_compiling() and getattr(forward_ad, "_current_level", 0) >= 0


def has_tangent(tensor: Tensor) -> bool:
    """Whether a tensor carries a tangent of forward-mode differentiation."""
    if not in_forward_mode():
        return False
    found = forward_ad.unpack_dual(tensor)  # pyright: ignore[reportUnknownMemberType]  # untyped
    return found.tangent is not None


def is_already(target: torch.dtype | torch.device | str, tensors: Iterable[Tensor]) -> bool:
    """Whether `to` returns these tensors unchanged. (Not checked for a device given by name.)

    Under a `torch.func` transform it does not: it then returns tensors whose numbers cannot be
    read.
    """
    if isinstance(target, str) or not (torch.compiler.is_compiling() or is_plain()):
        return False
    for tensor in tensors:  # a plain loop: Dynamo traces no generator into `all`
        if (tensor.dtype if isinstance(target, torch.dtype) else tensor.device) != target:
            return False
    return True
