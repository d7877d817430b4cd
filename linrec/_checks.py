"""What is asked of tensors at the public door, and the words in which a refusal is said."""

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value")


def as_tensor(name: str, value: object) -> Tensor:
    """Take a tensor, a numpy array, a number or nested lists; refuse what is not numeric."""
    if isinstance(value, Tensor):
        tensor = value
    elif isinstance(value, list | tuple) and holds_tensor(value):
        # torch.as_tensor would cut the gradients of tensors inside lists.
        parts = [as_tensor(name, part) for part in value]
        dtype = common_dtype(*parts)
        tensor = torch.stack([part.to(dtype) for part in parts])
    else:
        try:
            tensor = torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(
                f"`{name}` is of type {type(value).__name__}: expected a torch.Tensor, a numpy "
                f"array or nested lists of numbers ({error})."
            ) from None
    if tensor.is_floating_point() or tensor.is_complex():
        return tensor
    if isinstance(value, Tensor):
        raise TypeError(
            f"`{name}` has dtype {tensor.dtype}: expected a floating-point or complex dtype. "
            f"Pass `{name}.float()`."
        )
    return tensor.to(torch.get_default_dtype())


def holds_tensor(value: object) -> bool:
    """Whether there is a tensor somewhere in nested lists."""
    if isinstance(value, list | tuple):
        return any(holds_tensor(part) for part in value)
    return isinstance(value, Tensor)


def check_tensor(name: str, value: object) -> Tensor:
    """Take a floating-point or complex tensor and nothing else (data, as opposed to a system)."""
    if not isinstance(value, Tensor):
        raise TypeError(
            f"`{name}` is of type {type(value).__name__}: expected a torch.Tensor. "
            f"Pass `torch.as_tensor({name})`."
        )
    return as_tensor(name, value)


def unchecked(kind: type[Value], **fields: object) -> Value:
    """Make a frozen dataclass of fields that are known to be right, without its checks."""
    made = object.__new__(kind)
    made.__dict__.update(fields)
    return made


def check_axes(name: str, tensor: Tensor, least: int, shape: str) -> None:
    """Refuse a tensor with fewer axes than its core needs."""
    if tensor.ndim < least:
        raise ValueError(f"`{name}` has shape {show(tensor.shape)}: expected {shape}.")


def show(shape: Sequence[int]) -> str:
    """Write a shape as Python would."""
    return str(tuple(shape))


def broadcast(**shapes: Sequence[int]) -> torch.Size:
    """Broadcast batch shapes, naming each when they do not fit together."""
    distinct = {tuple(shape) for shape in shapes.values()} - {()}
    if len(distinct) < 2:  # torch.broadcast_shapes costs more than the rest of a value together
        return torch.Size(distinct.pop() if distinct else ())
    try:
        return torch.broadcast_shapes(*distinct)
    except RuntimeError:
        listed = ", ".join(f"{name} {show(shape)}" for name, shape in shapes.items())
        raise ValueError(
            f"The batch axes do not broadcast: {listed}. Expected equal sizes or 1 on each "
            "axis, counted from the right; add axes with `.unsqueeze`."
        ) from None


def common_dtype(*tensors: Tensor | None) -> torch.dtype:
    """Find the dtype that holds all of these."""
    present = [tensor.dtype for tensor in tensors if tensor is not None]
    dtype = present[0]
    for other in present[1:]:
        dtype = torch.promote_types(dtype, other)
    return dtype


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Sums of half-precision numbers are kept in float32; everything else stands as it is."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def double_dtype(dtype: torch.dtype) -> torch.dtype:
    """Kernels and powers are computed in double precision and cast last."""
    return torch.complex128 if dtype.is_complex else torch.float64


def has_values(*tensors: Tensor) -> bool:
    """Whether the numbers of tensors can be looked at.

    They cannot in a graph that is being compiled, under `torch.func` transforms, on the meta
    device and in fake tensors.
    """
    if torch.compiler.is_compiling():
        return False
    for tensor in tensors:
        if tensor.device.type == "meta":
            return False
        try:
            tensor.data_ptr()
        except RuntimeError:
            return False
    return True
