"""Validation of numbers and indices of streams."""

import operator
from collections.abc import Sequence

import torch
from torch import Tensor

from linrec._tensors.annotated import is_sequence, to_list
from linrec._tensors.shapes import broadcast_shapes, show

Indices = int | slice | Sequence[int] | Tensor


def check_rows(indices: Indices, count: int) -> list[int]:
    """Convert indices, a slice or a mask of streams to a list of indices, each once."""
    if isinstance(indices, slice):
        rows: list[int] = list(range(count)[indices])
    elif isinstance(indices, Tensor) and indices.dtype == torch.bool:
        if indices.shape != (count,):
            raise ValueError(
                f"`indices` is a mask of shape {show(indices.shape)}: expected ({count},), one "
                "entry a stream."
            )
        rows = to_list(indices.nonzero().squeeze(-1))
    else:
        given = to_list(indices) if isinstance(indices, Tensor) else indices
        listed = given if is_sequence(given) or isinstance(given, range) else [given]
        rows = [as_index(each) for each in listed]
    wrong = [row for row in rows if not -count <= row < count]
    if wrong:
        raise ValueError(f"There is no stream {wrong[0]}: there are {count}, from 0 on.")
    rows = [row % count for row in rows]
    if len(set(rows)) < len(rows):
        raise ValueError(f"`indices` are {rows}: expected every stream at most once.")
    return rows


def as_index(value: object) -> int:
    """Convert a value to a whole number."""
    if isinstance(value, bool):
        raise TypeError("`indices` has a bool: expected whole numbers, or a tensor as a mask.")
    try:
        return operator.index(value)  # type: ignore[arg-type]  # refused below if it is no number
    except TypeError:
        raise TypeError(f"`indices` has {value!r}: expected whole numbers.") from None


def check_count(name: str, value: object) -> int:
    """Check a number of streams."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"`{name}` is {value!r}: expected a whole number of 0 or more.")
    return value


def check_streams(streams: int | Sequence[int] | None, batch: torch.Size) -> torch.Size:
    """Check the numbers of streams, and that they fit the batch axes of a recurrence."""
    given = () if streams is None else (streams,) if isinstance(streams, int) else tuple(streams)
    shape = torch.Size(check_count("streams", count) for count in given)
    try:
        broadcast_shapes(shape, batch)
    except RuntimeError:
        raise ValueError(
            f"`streams` is {show(shape)} and the recurrence a batch of {show(batch)}: expected "
            f"axes that broadcast. Pass `streams={(*shape, *[1] * len(batch))}` for so many "
            "streams through each system."
        ) from None
    return shape
