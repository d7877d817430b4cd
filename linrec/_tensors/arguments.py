"""Conversion of arguments to tensors, with error messages for anything that is not numbers."""

from typing import SupportsIndex

import torch
from torch import Tensor

from linrec._tensors.annotated import is_sequence
from linrec._tensors.dtypes import COMPUTED, common_dtype
from linrec._tensors.numpy_arrays import from_numpy, is_like_numpy, torch_takes
from linrec._tensors.shapes import show


def as_tensor(
    name: str,
    value: object,
    least: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Convert a tensor, a numpy array, a number or nested lists to a tensor of numbers.

    Plain and whole numbers are read in the default dtype, or in `least` if that is wider. What is
    no tensor goes to `device`; None: numbers to the default device, arrays to the CPU.
    """
    if isinstance(value, Tensor):
        return check_kind(name, value)
    tensor = to_tensor(name, value, least, device)
    if tensor.dtype in COMPUTED:
        return check_kind(name, tensor)
    return tensor.to(least or torch.get_default_dtype())


def to_tensor(
    name: str,
    value: object,
    least: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Convert anything that holds numbers, whole numbers included; arguments as of `as_tensor`."""
    if isinstance(value, Tensor):
        return value
    if is_sequence(value) and holds_tensor(value):
        # torch.as_tensor would cut the gradients of tensors inside lists, and does not take every
        # numpy array. Plain numbers in the lists keep all their digits.
        device = device_of(*value) or device
        held = [to_tensor(name, part, None, device) for part in value if holds_tensor(part)]
        parts = [to_tensor(name, part, common_dtype(*held), device) for part in value]
        dtype, shapes = common_dtype(*parts), [show(part.shape) for part in parts]
        if len(set(shapes)) > 1:
            raise TypeError(
                f"`{name}` is a list of parts of shapes {', '.join(shapes)}: expected one shape."
            )
        return torch.stack([part.to(dtype) for part in parts])
    try:
        if is_like_numpy(value):
            return from_numpy(value).to(device or "cpu")
        made = None if device is None else "cpu"  # (moved when it has its dtype)
        tensor = torch.as_tensor(value, device=made)
        wider = tensor.dtype if least is None else torch.promote_types(tensor.dtype, least)
        if wider != tensor.dtype:
            tensor = torch.as_tensor(value, dtype=wider, device=made)
        return tensor if device is None else tensor.to(device)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise TypeError(
            f"`{name}` is of type {type(value).__name__}: expected a torch.Tensor, a numpy "
            f"array or nested lists of numbers ({error})."
        ) from None


def is_computed(tensor: Tensor) -> bool:
    """Whether a tensor is dense and of a dtype used for computing."""
    return tensor.dtype in COMPUTED and tensor.layout is torch.strided and not tensor.is_nested


def check_kind(name: str, tensor: Tensor) -> Tensor:
    """Refuse tensors that are not dense, and dtypes not used for computing."""
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


def check_cast(dtype: torch.dtype, target: torch.dtype | torch.device | str) -> None:
    """Refuse to cast numbers of a dtype to one that does not hold them; devices are not checked."""
    if not isinstance(target, torch.dtype) or target is dtype:
        return
    if target not in COMPUTED:
        raise TypeError(
            f"`to` got {target}: expected a floating-point or complex dtype of 16 bits (a part, if "
            "complex: 32) or more, or a device."
        )
    if dtype.is_complex and not target.is_complex:
        wide = torch.complex128 if target is torch.float64 else torch.complex64
        raise ValueError(
            f"`to` got {target}, which would drop the imaginary parts of {dtype}: expected a "
            f"complex dtype. Type `.to({wide})`, or first write the system in real numbers, "
            "`linrec.real_part(system)`."
        )


def device_of(*given: object) -> torch.device | None:
    """Find the device of the first tensor, in nested lists too; None: there is none."""
    for each in given:
        device = device_of(*each) if is_sequence(each) else getattr(each, "device", None)
        if isinstance(device, torch.device):
            return device
    return None


def holds_tensor(value: object) -> bool:
    """Whether there is a tensor or an array somewhere in nested lists."""
    if is_sequence(value):
        return any(holds_tensor(part) for part in value)
    return isinstance(value, Tensor) or is_like_numpy(value)


def check_tensor(name: str, value: object) -> Tensor:
    """Accept only a floating-point or complex tensor (for data, as opposed to a system)."""
    if isinstance(value, Tensor):
        return check_kind(name, value)
    # (torch itself takes neither reversed arrays nor arrays of another byte order.)
    instead = f"torch.tensor(numpy.array({name}, dtype=float))"
    if not is_like_numpy(value) or torch_takes(value):
        instead = f"torch.as_tensor({name})"
    raise TypeError(
        f"`{name}` is of type {type(value).__name__}: expected a torch.Tensor. Pass `{instead}`."
    )


def check_whole(name: str, value: object) -> None:
    """Refuse a value that is no whole number, of Python or numpy."""
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise TypeError(f"`{name}` is {value!r}: expected a whole number.")
