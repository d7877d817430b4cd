"""Run in full precision under autocast, on every type of device."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

# The types of device that have an autocast (before torch 2.12 Dynamo cannot trace the question).
CASTING = tuple(
    device
    for device in ("cpu", "cuda", "mps", "xpu", "hpu", "xla", "ipu", "mtia", "maia")
    if torch.amp.is_autocast_available(device)
)

NOTHING = nullcontext()


def full_precision(tensor: Tensor) -> AbstractContextManager[object]:
    """Switch autocast off, which would multiply in half precision."""
    device = tensor.device.type
    return torch.autocast(device, enabled=False) if under_autocast(device) else NOTHING


def under_autocast(device: str) -> bool:
    """Whether autocast is on for a type of device; there are some that have none, as "meta"."""
    return device in CASTING and torch.is_autocast_enabled(device)
