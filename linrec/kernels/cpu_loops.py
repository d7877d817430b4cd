"""Availability of the Numba loops for the elementwise scan and the convolution of a tensor."""

import importlib
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

# (Importing Numba takes half a second, so it is deferred to the first scan.)
HAS_NUMBA = find_spec("numba") is not None

COMPILED = (torch.float32, torch.float64, torch.complex64, torch.complex128)

# Compiled convolutions compute two vectors of outputs at a time, which should be nearly filled, and
# transform no more numbers than fit in the caches. They rearrange kernels in each call, which only
# pays with several sequences. Compiling them takes seconds, so torch does small convolutions.
BLOCK, FILLED = 128, 0.7
SHORTEST, LONGEST, FEWEST_SEQUENCES, MANY = 128, 1 << 14, 16, 1 << 22

# From this many features on, half-precision numbers are scanned unconverted.
BROAD = 16


@cache
def import_loops(name: str = "cpu_launch") -> ModuleType | None:
    """Import the loops; None if Numba is missing or incompatible with other packages."""
    try:
        return importlib.import_module(f"linrec.kernels.{name}")
    except ImportError:
        return None


def has_loops(device: str) -> bool:
    """Return whether compiled loops run on a type of device: on CPUs, outside compiled graphs."""
    return HAS_NUMBA and device == "cpu" and not torch.compiler.is_compiling()


def versions_of_loops() -> dict[str, str]:
    """Return Numba's version by name if loops run; its loops change results by roundings."""
    return {"numba": version("numba")} if has_loops("cpu") else {}


def loops_for(tensor: Tensor) -> ModuleType | None:
    """Return `linrec.kernels.cpu_launch` if its loops can run on a tensor; None if not.

    Args:
        tensor: a tensor with memory of its own.
    """
    if not has_loops(tensor.device.type) or tensor.dtype not in COMPILED:
        return None
    return import_loops()


def convolves(device: str, itemsize: int, steps: int, outputs: int, sequences: int) -> bool:
    """Return whether compiled loops convolve real sequences of given sizes."""
    if not has_loops(device) or itemsize not in (4, 8) or not SHORTEST <= steps <= LONGEST:
        return False
    width = BLOCK // itemsize
    filled = outputs >= FILLED * width * -(-outputs // width)
    enough = sequences >= FEWEST_SEQUENCES and steps * outputs * sequences >= MANY
    return filled and enough


def convolutions_for(tensor: Tensor) -> ModuleType | None:
    """Return `linrec.kernels.cpu_spectra` if its loops can compute or read a tensor; None if not.

    Args:
        tensor (units, copies, time, p): outputs, or a gradient in them, with memory of its own.
    """
    units, copies, steps, outputs = tensor.shape
    sizes = (tensor.device.type, tensor.itemsize, steps, outputs, units * copies)
    if tensor.dtype not in (torch.float32, torch.float64) or not convolves(*sizes):
        return None
    return import_loops("cpu_spectra")


def halves_for(tensor: Tensor) -> ModuleType | None:
    """Return `linrec.kernels.cpu_halves_launch` if its loops can scan a tensor; None if not.

    Args:
        tensor (*batch, time, features): drives with memory of their own.
    """
    if tensor.dtype not in (torch.bfloat16, torch.float16) or tensor.shape[-1] < BROAD:
        return None
    if not has_loops(tensor.device.type) or not tensor.numel():
        return None
    return import_loops("cpu_halves_launch")
