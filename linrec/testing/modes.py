"""The modes of torch in which the kit runs, whichever modes its caller is in."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

from linrec._tensors.devices import on_cpu

Found = TypeVar("Found")
Given = ParamSpec("Given")


def in_own_modes(function: Callable[Given, Found]) -> Callable[Given, Found]:
    """Decorate a check to record gradients, and to make its own tensors on the CPU."""

    @wraps(function)
    def called(*args: Given.args, **kwargs: Given.kwargs) -> Found:
        with torch.inference_mode(False), torch.enable_grad():
            return on_cpu(function)(*args, **kwargs)

    return called
