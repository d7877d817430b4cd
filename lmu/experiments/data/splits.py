"""A data set: inputs and targets for training, validation and test."""

from hashlib import sha256
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Split(NamedTuple):
    """Examples and their targets.

    Args:
        inputs (examples, time, features): the inputs that the network reads.
        targets (examples, ...): the desired outputs.
    """

    inputs: Tensor
    targets: Tensor

    def join(self, other: "Split") -> "Split":
        """Concatenate these examples and others."""
        return Split(*(torch.cat(parts) for parts in zip(self, other, strict=True)))


class Dataset(NamedTuple):
    """A task's examples: to train on, to choose by, and to report.

    Args:
        train: examples to learn from.
        validation: examples to choose by.
        test: examples to report.
        vocabulary: the numbers of the words, for a network of words.
        reduced: one sentence that names missing or replaced data; empty if these are the published
            data, whole.
    """

    train: Split
    validation: Split
    test: Split
    vocabulary: Any = None
    reduced: str = ""

    @staticmethod
    def empty(length: int = 1) -> "Dataset":
        """Return a data set without examples, for networks that need none.

        Args:
            length: the length of the empty time axis, in steps.
        """
        nothing = Split(torch.empty(0, length, 1), torch.empty(0))
        return Dataset(nothing, nothing, nothing)

    @property
    def splits(self) -> tuple[Split, Split, Split]:
        """The examples alone: `train`, `validation` and `test`."""
        return self.train, self.validation, self.test

    def digest(self) -> str:
        """Compute a checksum of all inputs and targets: twelve hexadecimal digits."""
        checksum = sha256()
        for split in self.splits:
            for part in split:
                checksum.update(f"{part.dtype}{tuple(part.shape)}".encode())
                # Row by row, so that a view of overlapping windows is never copied whole.
                for row in part.split(4096):
                    checksum.update(row.contiguous().view(torch.uint8).numpy().data)
        return checksum.hexdigest()[:12]
