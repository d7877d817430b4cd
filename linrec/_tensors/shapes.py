"""Shapes: formatting for messages, and broadcasting."""

from collections.abc import Sequence

import torch
from torch import Tensor

from linrec._tensors.annotated import broadcast_sizes

SCALAR = torch.Size(())


def show(shape: Sequence[int]) -> str:
    """Write a shape as Python would."""
    return str(tuple(shape))


def check_axes(name: str, tensor: Tensor, least: int, shape: str) -> None:
    """Refuse a tensor with fewer axes than its core needs."""
    if tensor.ndim < least:
        raise ValueError(f"`{name}` has shape {show(tensor.shape)}: expected {shape}.")


def broadcast_shapes(*shapes: Sequence[int]) -> torch.Size:
    """Broadcast shapes.

    The same as `torch.broadcast_shapes`, which takes ten times as long and loads sympy on its first
    call; it still handles sizes that a graph leaves open.

    Raises:
        RuntimeError: the shapes do not fit together.
    """
    if torch.compiler.is_compiling() or any(type(k) is not int for each in shapes for k in each):
        return broadcast_sizes(*shapes)
    axes = max(map(len, shapes), default=0)
    sizes = [1] * axes
    for shape in shapes:
        for axis, size in enumerate(shape, axes - len(shape)):
            if size != 1 and sizes[axis] not in (1, size):
                raise RuntimeError(f"shapes {', '.join(map(show, shapes))} do not broadcast")
            sizes[axis] = size if size != 1 else sizes[axis]
    return torch.Size(sizes)


def broadcast(**shapes: Sequence[int]) -> torch.Size:
    """Broadcast batch shapes; an error names each if they do not fit together."""
    given = [shape for shape in shapes.values() if len(shape)]
    if not given:
        return SCALAR
    # (No set: sizes that a graph leaves open cannot be hashed.)
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
