"""Conversion of all numpy arrays to tensors: reversed, byte-swapped, read-only, of objects."""

import numpy as np
from torch import Tensor

from linrec._tensors.annotated import is_array, is_masked_array, tensor_of


def is_like_numpy(value: object) -> bool:
    """Whether a value is an array, or converts itself to one, as a data frame does.

    (Numpy scalars are left to torch.)
    """
    return hasattr(value, "__array__") and not isinstance(value, Tensor | np.generic | type)


def torch_takes(value: object) -> bool:
    """Whether `torch.as_tensor` takes an array without a warning, sharing its memory."""
    if not is_array(value) or is_masked_array(value):
        return False
    flags, kind = value.flags, value.dtype
    if kind.kind not in "biufc" or kind.itemsize > (16 if kind.kind == "c" else 8):
        return False
    whole_steps = all(stride >= 0 and stride % kind.itemsize == 0 for stride in value.strides)
    return kind.isnative and whole_steps and flags.writeable and flags.aligned


def from_numpy(value: object) -> Tensor:
    """Make a tensor of numpy's view of a value.

    It shares the memory of an array wherever torch can write into it, as `torch.as_tensor` does;
    reversed, read-only or byte-swapped arrays are copied. Number objects (fractions, sympy's
    numbers) become floating-point or complex numbers, and numbers longer than double precision are
    rounded to it.

    Raises:
        TypeError: the array does not hold numbers.
        ValueError: some of its entries are masked.
    """
    if is_masked_array(value):
        if np.ma.is_masked(value):
            raise ValueError("some of its entries are masked: pass `.filled(0.0)`")
        value = value.data
    array = np.asarray(value)
    if array.dtype.kind == "O":
        array = numbers(array)
    if array.dtype.kind not in "biufc":
        raise TypeError(f"an array of dtype {array.dtype}")
    if torch_takes(array):
        return tensor_of(array)
    size = min(array.dtype.itemsize, 16 if array.dtype.kind == "c" else 8)
    return tensor_of(np.array(array, dtype=f"={array.dtype.kind}{size}", order="C"))


def numbers(array: np.ndarray) -> np.ndarray:
    """Convert an array of objects to double precision; refuse text and None, which numpy takes."""
    for entry in array.flat:
        if not (hasattr(entry, "__float__") or hasattr(entry, "__complex__")):
            raise TypeError(f"an array of objects, of which one is {entry!r}")
    complex_ = any(isinstance(entry, complex | np.complexfloating) for entry in array.flat)
    return np.array(array, dtype=complex if complex_ else float)
