"""Capabilities of the types of device."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, Protocol, Self, TypeVar

import torch

from linrec._tensors.annotated import xpu_properties
from linrec._tensors.dtypes import double_dtype

# Types of device without double precision. (Tests add a simulated one.)
WITHOUT_DOUBLE = {"mps"}


class Movable(Protocol):
    """A value that `to` can cast or move: a tensor, structure or system."""

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the numbers."""
        ...

    @property
    def device(self) -> torch.device:
        """Where they live."""
        ...

    def to(self, target: torch.dtype | torch.device | str, /) -> Self:
        """Cast or move."""
        ...


Value = TypeVar("Value", bound=Movable)
Found = TypeVar("Found")
Given = ParamSpec("Given")


def has_double(device: torch.device) -> bool:
    """Whether a device computes in double precision."""
    if device.type == "xpu":  # some do, some do not
        return bool(getattr(xpu_properties(device), "has_fp64", True))
    return device.type not in WITHOUT_DOUBLE


def in_double(value: Value) -> Value:
    """Cast to double precision: on the value's device, or on the CPU if that has none."""
    if not has_double(value.device):
        value = value.to("cpu")
    return value.to(double_dtype(value.dtype))


def on_cpu(function: Callable[Given, Found]) -> Callable[Given, Found]:
    """Decorate a function to make tensors on the CPU, whichever device is torch's default."""

    @wraps(function)
    def called(*args: Given.args, **kwargs: Given.kwargs) -> Found:
        if torch.get_default_device().type == "cpu":  # (a mode would slow every operation down)
            return function(*args, **kwargs)
        with torch.device("cpu"):
            return function(*args, **kwargs)

    return called


def is_launched(device: str) -> bool:
    """Whether launching a product on a type of device takes as long as a small product itself."""
    return device not in ("cpu", "meta")
