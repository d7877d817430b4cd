"""Full-precision contexts: no autocast, on any type of device, and no TF32."""

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

# The types of device that have autocast (before torch 2.12 Dynamo cannot trace the check).
CASTING = tuple(
    device
    for device in ("cpu", "cuda", "mps", "xpu", "hpu", "xla", "ipu", "mtia", "maia")
    if torch.amp.is_autocast_available(device)
)

NOTHING = nullcontext()

# (torch.backends.mkldnn is given its `matmul` when it is imported.)
MKLDNN: Any = getattr(torch.backends.mkldnn, "matmul")  # noqa: B009  # no name that pyright knows

# Settings under which products in float32 keep all their digits.
EXACT = ("none", "ieee")


def full_precision(tensor: Tensor) -> AbstractContextManager[object]:
    """Compute products with all digits of their dtype: no autocast, no TF32 and no bfloat16.

    TF32 keeps 11 bits of each factor, which breaks every bound by a factor of 8,000. (Compiled code
    follows the program's setting.)
    """
    device = "cpu" if tensor.is_cpu else tensor.device.type  # (the quicker check first)
    casts = under_autocast(device)
    if not torch.compiler.is_compiling() and are_coarse(device):
        return exact_products(device, casts)
    return torch.autocast(device, enabled=False) if casts else NOTHING


def loses_digits(tensor: Tensor) -> bool:
    """Whether the program's settings give products of a tensor fewer digits than its dtype."""
    device = "cpu" if tensor.is_cpu else tensor.device.type
    return under_autocast(device) or (not torch.compiler.is_compiling() and are_coarse(device))


def under_autocast(device: str) -> bool:
    """Whether autocast is on for a type of device (some, such as "meta", have none)."""
    return device in CASTING and torch.is_autocast_enabled(device)


def are_coarse(device: str) -> bool:
    """Whether the program allows products in float32 with fewer digits."""
    if device == "cpu":  # checked in every call: the quicker check first
        try:
            return torch.get_float32_matmul_precision() != "highest"
        except RuntimeError:  # set through torch's older and newer names at once
            return MKLDNN.fp32_precision not in EXACT
    return device == "cuda" and torch.backends.cuda.matmul.fp32_precision not in EXACT


@contextmanager
def exact_products(device: str, casts: bool) -> Generator[None, None, None]:
    """Compute products of float32 numbers in float32 within the context."""
    settings = MKLDNN if device == "cpu" else torch.backends.cuda.matmul
    before = settings.fp32_precision
    settings.fp32_precision = "ieee"
    try:
        with torch.autocast(device, enabled=False) if casts else NOTHING:
            yield
    finally:
        settings.fp32_precision = before
