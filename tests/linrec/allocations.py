"""Requested memory, counted tensor by tensor, so that a busy machine gives the same counts."""

import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Allocations(TorchDispatchMode):
    """Adds up the bytes of all storages that an operation reads or writes, while they live.

    What an operation allocates and frees by itself is not seen; what was there before the call is
    counted as soon as it is read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.held, self.peak = {}, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for each in tree_leaves((args, kwargs, result)):
            if isinstance(each, Tensor):
                storage = each.untyped_storage()
                if storage._cdata not in self.held:
                    self.held[storage._cdata] = storage.nbytes()
                    weakref.finalize(storage, self.held.pop, storage._cdata, None)
        self.peak = max(self.peak, sum(self.held.values()))
        return result


def peak_of(way: Callable[[], object]) -> int:
    """Count the most bytes that the tensors of a call hold at once."""
    with Allocations() as counter:
        result = way()
    del result
    return counter.peak
