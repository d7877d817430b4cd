"""Whether loops compiled by Numba can run the elementwise scan of a tensor."""

import importlib
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

# (Importing Numba takes half a second, so that it is left to the first scan.)
HAS_NUMBA = find_spec("numba") is not None

COMPILED = (torch.float32, torch.float64, torch.complex64, torch.complex128)


@cache
def import_loops() -> ModuleType | None:
    """Import the loops; None where Numba does not go with what else is installed."""
    try:
        return importlib.import_module("linrec.kernels.cpu_launch")
    except ImportError:
        return None


def has_loops(device: str) -> bool:
    """Whether compiled loops run on a type of device: on CPUs, and not in a compiled graph."""
    return HAS_NUMBA and device == "cpu" and not torch.compiler.is_compiling()


def versions_of_loops() -> dict[str, str]:
    """Return the version of Numba by its name, where loops run; results differ by roundings."""
    return {"numba": version("numba")} if has_loops("cpu") else {}


def loops_for(tensor: Tensor) -> ModuleType | None:
    """Return `linrec.kernels.cpu_launch` if its loops can run on a tensor; None if not.

    Args:
        tensor: a tensor with memory of its own.
    """
    if not has_loops(tensor.device.type) or tensor.dtype not in COMPILED:
        return None
    return import_loops()
