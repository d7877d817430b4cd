"""Annotated wrappers of torch functions that have no annotations, and of type checks."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# (Only here, so that callers are checked in full.)

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

broadcast_sizes: Callable[..., torch.Size] = torch.broadcast_shapes
tensor_of: Callable[[np.ndarray[Any, Any]], Tensor] = torch.from_numpy
unique: Callable[[Tensor], Tensor] = torch.unique
xpu_properties: Callable[[torch.device], object] = torch.xpu.get_device_properties

solve: Callable[..., Tensor] = torch.linalg.solve
matrix_exp: Callable[[Tensor], Tensor] = torch.linalg.matrix_exp
matrix_rank: Callable[[Tensor], Tensor] = torch.linalg.matrix_rank
spectral_norm: Callable[[Tensor, int], Tensor] = torch.linalg.matrix_norm
eigvals: Callable[[Tensor], Tensor] = torch.linalg.eigvals
inv_ex: Callable[[Tensor], tuple[Tensor, Tensor]] = torch.linalg.inv_ex
lu_factor_ex: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]] = torch.linalg.lu_factor_ex

fft: Callable[[Tensor, int], Tensor] = torch.fft.fft
rfft: Callable[[Tensor, int], Tensor] = torch.fft.rfft
ifft: Callable[[Tensor, int], Tensor] = torch.fft.ifft
irfft: Callable[[Tensor, int], Tensor] = torch.fft.irfft


def unflatten(tensor: Tensor, axis: int, sizes: Sequence[int]) -> Tensor:
    """Split an axis into several: `Tensor.unflatten`."""
    return tensor.unflatten(axis, sizes)


def split(tensor: Tensor, sizes: int | Sequence[int], axis: int) -> tuple[Tensor, ...]:
    """Split a tensor into parts: `Tensor.split`."""
    return tensor.split(sizes, axis)


def to_list(tensor: Tensor) -> list[Any]:
    """Convert to nested lists of numbers: `Tensor.tolist`."""
    return tensor.tolist()


def named_modules(module: torch.nn.Module) -> Iterable[tuple[str, torch.nn.Module]]:
    """List a module and its submodules: `Module.named_modules`."""
    return module.named_modules()


def apply(function: type[torch.autograd.Function], *arguments: object) -> Any:
    """Apply an autograd function: `Function.apply`."""
    return function.apply(*arguments)


def scan_of_graph(
    step: Callable[..., tuple[Tensor, Tensor]],
    start: Sequence[Tensor],
    sequences: Sequence[Tensor],
    constants: Sequence[Tensor | int],
) -> tuple[Tensor, Tensor]:
    """Run a loop as one node of a graph: torch's `scan` without Dynamo."""
    return torch.ops.higher_order.scan(step, start, sequences, constants)


def is_sequence(value: object) -> TypeGuard[Sequence[object]]:
    """Whether a value is a list or a tuple."""
    return isinstance(value, list | tuple)


def is_tuple(value: object) -> TypeGuard[tuple[Any, ...]]:
    """Whether a value is a tuple."""
    return isinstance(value, tuple)


def is_array(value: object) -> TypeGuard[np.ndarray[Any, Any]]:
    """Whether a value is an array of numpy."""
    return isinstance(value, np.ndarray)


def is_masked_array(value: object) -> TypeGuard[np.ma.MaskedArray[Any, Any]]:
    """Whether a value is a masked array of numpy."""
    return isinstance(value, np.ma.MaskedArray)


def unique_places(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Find the distinct values, and the index of each entry among them."""
    return torch.unique(tensor, return_inverse=True)
