"""Allocation of results in huge pages: first touching memory can cost more than the computation."""

import math

import numpy as np
import torch
from torch import Tensor

from linrec._tensors.reused_memory import pool

# From this many bytes on, numpy asks Linux for huge pages; torch does not.
HUGE = 1 << 22


def empty(like: Tensor, *shape: int) -> Tensor:
    """Make an uninitialised tensor of the given shape, in huge pages where Linux grants them.

    Memory that a process gets from Linux is mapped, and cleared, page by page as it is first
    written. In pages of 4 KiB that takes three times as long as filling the memory, and is most of
    the cost of computing all states of a recurrence. Numpy allocates large arrays in pages of 2
    MiB; outside Linux this is ordinary memory. Within `reuse_memory` it is the memory of earlier
    results.

    Args:
        like: a tensor of the wanted dtype and device.
        shape: the sizes.
    """
    size = 0
    if not torch.compiler.is_compiling() and like.device.type == "cpu" and type(like) is Tensor:
        size = like.element_size() * math.prod(shape)  # (a graph would be tied to this size)
    if size < HUGE:
        return like.new_empty(shape)
    kept = pool()
    memory = np.empty(size, np.uint8) if kept is None else kept.take_memory(size)
    result = torch.frombuffer(memory, dtype=like.dtype).view(shape)
    # Its memory, not the view: autograd allows no writing into a view.
    return like.new_empty(0).set_(result)  # type: ignore[arg-type]  # torch's stub knows storages
