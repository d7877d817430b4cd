"""Validate arguments, and word the error messages."""

# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false
# (The annotations of torch and numpy are partial.)

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from linrec._numpy import from_numpy, is_like_numpy, torch_takes

Value = TypeVar("Value")

# The dtypes that are computed with; half precision is accumulated in float32.
COMPUTED = (
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.complex128,
    torch.float16,
    torch.bfloat16,
)

SCALAR = torch.Size(())


def as_tensor(name: str, value: object, least: torch.dtype | None = None) -> Tensor:
    """Convert a tensor, a numpy array, a number or nested lists to a tensor of numbers.

    Plain and whole numbers are read in the default dtype, or in a wider one if `least` is.
    """
    if isinstance(value, Tensor):
        return check_kind(name, value)
    tensor = to_tensor(name, value, least)
    if tensor.dtype in COMPUTED:
        return check_kind(name, tensor)
    return tensor.to(least or torch.get_default_dtype())


def to_tensor(name: str, value: object, least: torch.dtype | None = None) -> Tensor:
    """Convert anything that holds numbers, whole numbers included.

    Plain numbers are read in the default dtype, or in a wider one if `least` is.
    """
    if isinstance(value, Tensor):
        return value
    if isinstance(value, list | tuple) and holds_tensor(value):
        # torch.as_tensor would cut the gradients of tensors inside lists, and does not take every
        # numpy array. Plain numbers beside them keep as many digits as they have.
        held = [to_tensor(name, part) for part in value if holds_tensor(part)]
        parts = [to_tensor(name, part, common_dtype(*held)) for part in value]
        dtype, shapes = common_dtype(*parts), [show(part.shape) for part in parts]
        if len(set(shapes)) > 1:
            raise TypeError(
                f"`{name}` is a list of parts of shapes {', '.join(shapes)}: expected one shape."
            )
        return torch.stack([part.to(dtype) for part in parts])
    try:
        if is_like_numpy(value):
            return from_numpy(value)
        tensor = torch.as_tensor(value)
        wider = tensor.dtype if least is None else torch.promote_types(tensor.dtype, least)
        return tensor if wider == tensor.dtype else torch.as_tensor(value, dtype=wider)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise TypeError(
            f"`{name}` is of type {type(value).__name__}: expected a torch.Tensor, a numpy "
            f"array or nested lists of numbers ({error})."
        ) from None


def is_computed(tensor: Tensor) -> bool:
    """Whether a tensor is dense and of a dtype that is computed in."""
    return tensor.dtype in COMPUTED and tensor.layout is torch.strided and not tensor.is_nested


def check_kind(name: str, tensor: Tensor) -> Tensor:
    """Refuse tensors that are not dense, and dtypes that nothing is computed in."""
    if is_computed(tensor):
        return tensor
    if tensor.is_nested:
        raise TypeError(
            f"`{name}` is a nested tensor: expected a dense one. Pass "
            f"`torch.nested.to_padded_tensor({name}, 0.0)`, and the lengths of its sequences as "
            "`lengths`."
        )
    if tensor.layout is not torch.strided:
        raise TypeError(
            f"`{name}` has the layout {tensor.layout}: expected a dense tensor. Pass "
            f"`{name}.to_dense()`."
        )
    if tensor.is_quantized:
        raise TypeError(
            f"`{name}` is quantized ({tensor.dtype}): expected a floating-point or complex dtype. "
            f"Pass `{name}.dequantize()`."
        )
    instead = ".to(torch.complex64)" if tensor.is_complex() else ".float()"
    raise TypeError(
        f"`{name}` has dtype {tensor.dtype}: expected a floating-point or complex dtype of 16 bits "
        f"(a part, if complex: 32) or more. Pass `{name}{instead}`."
    )


def holds_tensor(value: object) -> bool:
    """Whether there is a tensor or an array somewhere in nested lists."""
    if isinstance(value, list | tuple):
        return any(holds_tensor(part) for part in value)
    return isinstance(value, Tensor) or is_like_numpy(value)


def check_tensor(name: str, value: object) -> Tensor:
    """Take a floating-point or complex tensor and nothing else (data, as opposed to a system)."""
    if isinstance(value, Tensor):
        return check_kind(name, value)
    # (torch itself takes neither reversed arrays nor those of another byte order.)
    instead = f"torch.tensor(numpy.array({name}, dtype=float))"
    if not is_like_numpy(value) or torch_takes(value):
        instead = f"torch.as_tensor({name})"
    raise TypeError(
        f"`{name}` is of type {type(value).__name__}: expected a torch.Tensor. Pass `{instead}`."
    )


def make_unchecked(kind: type[Value], **fields: object) -> Value:
    """Make a frozen dataclass of fields that are known to be right, without its checks."""
    made = object.__new__(kind)
    for name, value in fields.items():  # (torch 2.9 traces this, and no `__dict__.update`)
        object.__setattr__(made, name, value)
    return made


def check_axes(name: str, tensor: Tensor, least: int, shape: str) -> None:
    """Refuse a tensor with fewer axes than its core needs."""
    if tensor.ndim < least:
        raise ValueError(f"`{name}` has shape {show(tensor.shape)}: expected {shape}.")


def show(shape: Sequence[int]) -> str:
    """Write a shape as Python would."""
    return str(tuple(shape))


def broadcast_shapes(*shapes: Sequence[int]) -> torch.Size:
    """Broadcast shapes.

    As `torch.broadcast_shapes`, which takes ten times as long and loads sympy when it is first
    called; sizes that a graph leaves open are left to it.

    Raises:
        RuntimeError: they do not fit together.
    """
    if torch.compiler.is_compiling() or any(type(k) is not int for each in shapes for k in each):
        return torch.broadcast_shapes(*shapes)
    axes = max(map(len, shapes), default=0)
    sizes = [1] * axes
    for shape in shapes:
        for axis, size in enumerate(shape, axes - len(shape)):
            if size != 1 and sizes[axis] not in (1, size):
                raise RuntimeError(f"shapes {', '.join(map(show, shapes))} do not broadcast")
            sizes[axis] = size if size != 1 else sizes[axis]
    return torch.Size(sizes)


def broadcast(**shapes: Sequence[int]) -> torch.Size:
    """Broadcast batch shapes, naming each when they do not fit together."""
    given = [shape for shape in shapes.values() if len(shape)]
    if not given:
        return SCALAR
    # (Sizes that a graph leaves open cannot be hashed: no set.)
    first = given[0]
    distinct = [each for each in given if len(each) != len(first) or each != first]
    if not distinct:
        return first if isinstance(first, torch.Size) else torch.Size(first)
    try:
        return broadcast_shapes(first, *distinct)
    except RuntimeError:
        listed = ", ".join(f"{name} {show(shape)}" for name, shape in shapes.items() if len(shape))
        raise ValueError(
            f"The batch axes do not broadcast: {listed}. Expected equal sizes or 1 on each "
            "axis, counted from the right; add axes with `.unsqueeze`."
        ) from None


def common_dtype(*tensors: Tensor | None) -> torch.dtype:
    """Find the dtype that holds all of these."""
    dtype: torch.dtype | None = None
    for tensor in tensors:
        if tensor is None or tensor.dtype is dtype:
            continue
        dtype = tensor.dtype if dtype is None else torch.promote_types(dtype, tensor.dtype)
    assert dtype is not None, "there is no tensor"
    return dtype


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of sums: float32 for half precision, else the dtype itself."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def double_dtype(dtype: torch.dtype) -> torch.dtype:
    """Kernels and powers are computed in double precision and cast last."""
    return torch.complex128 if dtype.is_complex else torch.float64


def records_gradient(*tensors: Tensor | None) -> bool:
    """Whether torch records a gradient in one of these."""
    given = any(tensor is not None and tensor.requires_grad for tensor in tensors)
    return given and torch.is_grad_enabled()


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
    device and in fake tensors.
    """
    if torch.compiler.is_compiling():
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
