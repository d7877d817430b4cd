"""A record of the values of a plan's recurrence, to detect changes."""

from collections.abc import Mapping

import torch
from torch import Tensor

from linrec._tensors.known_values import has_values

# Tensors of fewer numbers are compared directly.
MANY = 1 << 12


class Record:
    """The tensors that a result was computed from, with copies of their values.

    Args:
        tensors: all of them, by name.
        used: those that the computation used.
    """

    def __init__(self, tensors: Mapping[str, Tensor], used: Mapping[str, Tensor]) -> None:
        self.tensors = dict(tensors)
        self.values = {name: each.detach().clone() for name, each in used.items()}
        on_devices = {name: each for name, each in used.items() if each.device.type != "cpu"}
        self.versions = {name: version(each) for name, each in on_devices.items()}

    def still(self, given: Mapping[str, Tensor]) -> bool:
        """Whether tensors of the same names still have the recorded values.

        On the CPU, values are compared instead of identities and versions, because a write through
        `.data` changes neither. On a device the comparison would wait for it in every call. There
        the same tensors count as unchanged if torch has counted no write into them; only otherwise
        are values compared.
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
    """Return how often a tensor was written into; None if torch does not count this.

    (It does not for tensors made in inference mode.)
    """
    try:
        return tensor._version
    except RuntimeError:
        return None


def same_values(mine: Tensor, given: Tensor) -> bool:
    """Whether two tensors have the same properties and values."""
    if mine.dtype != given.dtype or mine.device != given.device or mine.shape != given.shape:
        return False
    if mine.numel() >= MANY and mine.is_contiguous() and given.is_contiguous():
        bytes_a_row = mine.shape[-1] * mine.element_size()
        if bytes_a_row % 8 == 0:  # eight-byte words: fewer comparisons
            mine, given = (each.detach().view(torch.int64) for each in (mine, given))
            if mine.is_cpu and has_values(mine, given):  # numpy takes half as long as torch
                return bool((mine.numpy() == given.numpy()).all())
    return torch.equal(mine, given)
