"""Conversion of filter arguments to tensors of one dtype, with coefficients divided by a₀."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from linrec._tensors.annotated import tensor_of
from linrec._tensors.arguments import as_tensor, check_whole, holds_tensor
from linrec._tensors.dtypes import common_dtype
from linrec._tensors.known_values import is_seen
from linrec._tensors.shapes import show

# Tensors, arrays, and plain numbers in lists or alone.
Numbers: TypeAlias = Tensor | np.ndarray | Sequence[Any] | complex


def convert_arguments(optional: str = "", /, **given: object) -> list[Any]:
    """Convert tensors, arrays and plain numbers to tensors of their common dtype.

    Plain numbers and integers have no precision of their own: 0.1 is exact to float64 next to a
    sequence in float64, but does not widen one in float32.

    Args:
        optional: the name of the argument that may be None, and then stays None.
        given: the arguments, by name.

    Returns:
        A tensor for each, in order.
    """
    for name, value in given.items():
        if value is None and name != optional:
            raise TypeError(
                f"`{name}` is None: expected a torch.Tensor, a numpy array or nested lists of "
                "numbers."
            )
    plain = {name: is_plain(value) for name, value in given.items() if value is not None}
    tensors = {name: as_numbers(name, given[name], plain[name]) for name in plain}
    firm = [tensor for name, tensor in tensors.items() if not plain[name]]
    dtype = common_dtype(*firm) if firm else torch.get_default_dtype()
    if any(tensor.is_complex() for tensor in tensors.values()) and not dtype.is_complex:
        dtype = torch.promote_types(dtype, torch.complex64)
    device = firm[0].device if firm else None
    return [
        tensors[name].to(device if plain[name] else None, dtype) if name in tensors else None
        for name in given
    ]


def is_plain(value: object) -> bool:
    """Whether these are numbers without a floating-point dtype of their own."""
    if isinstance(value, Tensor):  # (the numbers of a quantized tensor cannot be read directly)
        return not (value.is_floating_point() or value.is_complex() or value.is_quantized)
    if is_of_numpy(value):
        return np.asarray(value).dtype.kind in "iub"
    return not holds_tensor(value)


def is_of_numpy(value: object) -> bool:
    """Whether a value is an array or a number of numpy."""
    return isinstance(value, np.ndarray | np.generic)


def as_numbers(name: str, value: object, plain: bool) -> Tensor:
    """Convert a value to a tensor; plain numbers become double precision."""
    if not plain:
        return as_tensor(name, value)
    if isinstance(value, Tensor):
        return value.to(torch.float64)
    try:
        array = np.asarray(value)
        return tensor_of(array.astype(complex if array.dtype.kind == "c" else float))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"`{name}` is of type {type(value).__name__}: expected a torch.Tensor, a numpy array "
            f"or nested lists of numbers ({error})."
        ) from None


def normalise(b: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """Divide the coefficients of a filter by a₀; scalars become vectors."""
    b, a = (vector.reshape(1) if vector.ndim == 0 else vector for vector in (b, a))
    for name, vector in (("b", b), ("a", a)):
        if vector.shape[-1] == 0:
            raise ValueError(
                f"`{name}` has shape {show(vector.shape)}: expected one or more coefficients. "
                "Pass `[1.0]` for none but a gain of 1."
            )
    leading = a[..., :1]
    if is_seen(leading == 0):
        raise ValueError(
            "`a[..., 0]` is 0: the filter would have to know inputs that are yet to come. Expected "
            "coefficients in powers of 1/z, whose first is not 0; leave out zeros before it."
        )
    return b / leading, a / leading


def of_one_length(b: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """Pad the shorter of numerator and denominator with zeros."""
    length = max(b.shape[-1], a.shape[-1])
    return pad(b, (0, length - b.shape[-1])), pad(a, (0, length - a.shape[-1]))


def check_signal(x: Tensor, axis: int) -> None:
    """Check that there is an axis of time."""
    check_whole("axis", axis)
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(
            f"`x` has shape {show(x.shape)} and `axis` is {axis}: expected an axis of time, one of "
            f"{-x.ndim} to {x.ndim - 1}."
            if x.ndim
            else "`x` is a single number: expected an axis of time. Pass `x.reshape(1)`."
        )


def check_sections(sos: Tensor, *, unit: bool) -> None:
    """Check second-order sections and, on request, that each has a₀ = 1."""
    if sos.ndim < 2 or sos.shape[-1] != 6 or sos.shape[-2] == 0:
        raise ValueError(
            f"`sos` has shape {show(sos.shape)}: expected (*batch, sections, 6), the coefficients "
            "b₀, b₁, b₂, 1, a₁, a₂ of each section."
        )
    if unit and is_seen(sos[..., 3] != 1):
        raise ValueError(
            "`sos[..., 3]` is not 1 everywhere: expected sections that are divided by their a₀. "
            "Pass `sos / sos[..., 3:4]`."
        )


def check_delays(
    zi: Tensor, batch: Sequence[int], order: int, axis: int, least: int, sections: int | None = None
) -> None:
    """Check that delays have the shape of the outputs, with `order` on the axis of time.

    Args:
        zi ([sections,] ...): the delays. Apart from the axis of time, axes that only the filters
            have may be missing, and any axis may be 1.
        batch: the batch axes of filters and sequences together.
        order: the number of delays of a filter.
        axis: the axis of time, counted from the end.
        least: the number of axes of the sequences.
        sections: the size of the first axis, of sections. None: there is no axis of sections.
    """
    wanted = [*batch]
    wanted.insert(len(wanted) + 1 + axis, order)
    given, first = list(zi.shape), [] if sections is None else [sections]
    fits = given[: len(first)] == first
    given = given[len(first) :]
    fits = fits and least <= len(given) <= len(wanted) and given[axis] == order
    if not fits or any(
        size not in (1, whole)
        for size, whole in zip(given, wanted[len(wanted) - len(given) :], strict=True)
    ):
        raise ValueError(
            f"`zi` has shape {show(zi.shape)}: expected {show(first + wanted)}, or 1 on axes other "
            f"than {axis}{' and 0' if first else ''}. A steady start is that of `lfilter_zi` or "
            "`sosfilt_zi`, reshaped so."
        )
