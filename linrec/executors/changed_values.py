"""The record of a plan's recurrence, which tells whether its values have changed."""

from collections.abc import Mapping

import torch
from torch import Tensor

from linrec._tensors.known_values import has_values

# Tensors of fewer numbers are compared as they are.
MANY = 1 << 12


class Record:
    """Tensors that something was computed from, with a copy of their values.

    Args:
        tensors: all of them, by name.
        used: those that anything was computed from.
    """

    def __init__(self, tensors: Mapping[str, Tensor], used: Mapping[str, Tensor]) -> None:
        self.tensors = dict(tensors)
        self.values = {name: each.detach().clone() for name, each in used.items()}
        on_devices = {name: each for name, each in used.items() if each.device.type != "cpu"}
        self.versions = {name: version(each) for name, each in on_devices.items()}

    def still(self, given: Mapping[str, Tensor]) -> bool:
        """Whether these tensors, of the same names, have the values that were used.

        On the CPU values are compared, not identities and versions: a write through `.data` changes
        neither. To compare them on a device would be to wait for it in every call. There the very
        tensors are taken for what they were as long as torch has counted no write into them, and
        values are compared only otherwise.
        """
        same = all(given[name] is each for name, each in self.tensors.items())
        if not has_values(*given.values()):
            return same
        if same and self.versions and len(self.versions) == len(self.values):
            now = [version(given[name]) for name in self.versions]
            if None not in now and now == list(self.versions.values()):
                return True
        return all(same_values(mine, given[name]) for name, mine in self.values.items())


def version(tensor: Tensor) -> int | None:
    """Return how often a tensor was written into; None if torch does not count it.

    (Of tensors that were made in inference mode it does not.)
    """
    try:
        return tensor._version
    except RuntimeError:
        return None


def same_values(mine: Tensor, given: Tensor) -> bool:
    """Whether two tensors are equal in everything."""
    if mine.dtype != given.dtype or mine.device != given.device or mine.shape != given.shape:
        return False
    if mine.numel() >= MANY and mine.is_contiguous() and given.is_contiguous():
        bytes_a_row = mine.shape[-1] * mine.element_size()
        if bytes_a_row % 8 == 0:  # in words of eight bytes there are fewer to compare
            mine, given = (each.detach().view(torch.int64) for each in (mine, given))
            if mine.is_cpu and has_values(mine, given):  # numpy takes half as long as torch
                return bool((mine.numpy() == given.numpy()).all())
    return torch.equal(mine, given)
