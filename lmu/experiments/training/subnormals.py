"""Numbers below the normal range, which some processors are many times slower at."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def flush_subnormals() -> Iterator[None]:
    """Take numbers below the normal range for zeros, on this thread, as long as the context lasts.

    The gradients of an LSTM fade into them within a few hundred steps; on some processors its
    training step then takes ten times as long. (torch cannot be asked for the setting before;
    afterwards it is off, as in a new process.)
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
