"""What every data set comes to: inputs and targets, three times."""

from typing import NamedTuple

from torch import Tensor


class Split(NamedTuple):
    """Examples and what a network should say to them.

    Args:
        inputs (examples, time, features): what the network reads.
        targets (examples, ...): what it should answer.
    """

    inputs: Tensor
    targets: Tensor


class Dataset(NamedTuple):
    """A task's examples: to train on, to choose by, and to report."""

    train: Split
    validation: Split
    test: Split
