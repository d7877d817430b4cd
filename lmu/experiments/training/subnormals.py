"""Flushing of numbers below the normal range, which slow some processors down many times."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def flush_subnormals() -> Iterator[None]:
    """Treat numbers below the normal range as zeros, on this thread, while the context lasts.

    The gradients of an LSTM fade into that range within a few hundred steps; on some processors its
    training step then takes ten times as long. (torch cannot report the earlier setting; afterwards
    it is off, as in a new process.)
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
