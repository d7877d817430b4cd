"""Python code that recreates a value, for pasting into a program."""

import dataclasses
from typing import Any

from torch import Tensor

from linrec.structures import Structure
from linrec.systems import LinearRecurrence

# Imports that the written code needs.
IMPORTS = "import torch\nimport linrec\nimport linrec.testing\nfrom torch import inf, nan, tensor\n"


def written(value: Any) -> str:
    """Write a value as code: recurrences, structures, tensors with all their digits, and others.

    Example:
        >>> import linrec
        >>> from linrec.testing.as_code import written
        >>> print(written(linrec.LinearRecurrence(A=[[0.5]], copies=2)))
        linrec.LinearRecurrence(linrec.Dense(tensor([[0.5]], dtype=torch.float32)), copies=2)
    """
    if isinstance(value, Tensor):
        return written_tensor(value)
    if isinstance(value, LinearRecurrence):
        given = {name: getattr(value, name) for name in "BCD"}
        low_rank = value.A.as_diagonal_plus_low_rank()
        tied = value.B is not None and low_rank is not None and low_rank[1] is value.B
        parts = [
            f"{name}={'low_rank.left' if tied and name == 'B' else written(matrix)}"
            for name, matrix in given.items()
            if matrix is not None
        ]
        parts += ["time_varying=True"] if value.time_varying else []
        parts += [f"copies={value.copies}"] if value.copies > 1 else []
        A = f"(low_rank := {written(value.A)})" if tied else written(value.A)
        return f"linrec.LinearRecurrence({', '.join([A, *parts])})"
    if isinstance(value, Structure) and dataclasses.is_dataclass(value):
        fields = (written(getattr(value, each.name)) for each in dataclasses.fields(value))
        return f"{named(value)}({', '.join(fields)})"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = ((each.name, getattr(value, each.name)) for each in dataclasses.fields(value))
        return f"{named(value)}({', '.join(f'{name}={written(part)}' for name, part in fields)})"
    if isinstance(value, list):
        return f"[{', '.join(map(written, value))}]"
    if isinstance(value, tuple):
        return f"({''.join(f'{written(each)}, ' for each in value).removesuffix(' ')})"
    return repr(value)


def named(value: object) -> str:
    """Return the name of a value's class; the classes of `linrec` with its name before them."""
    name = type(value).__name__
    return f"linrec.{name}" if is_public(type(value)) else name


def is_public(kind: type) -> bool:
    """Whether a class is written with `linrec` before its name; the kit's are imported."""
    package, *inner = kind.__module__.split(".")
    return package == "linrec" and inner[:1] != ["testing"]


def written_tensor(tensor: Tensor) -> str:
    """Write a tensor as code; an empty one by its shape."""
    if not tensor.numel():
        return f"torch.zeros({tuple(tensor.shape)}, dtype={tensor.dtype})"
    values = tensor.detach().cpu().resolve_conj().resolve_neg().tolist()
    return f"tensor({values}, dtype={tensor.dtype})"


def imports_of(*values: object) -> str:
    """Write the imports that the code of some values needs."""
    inner = [value.A if isinstance(value, LinearRecurrence) else value for value in values]
    foreign = {type(value) for value in inner if dataclasses.is_dataclass(value)}
    lines = sorted(
        f"from {each.__module__} import {each.__qualname__}\n"
        for each in foreign
        if not is_public(each)
    )
    return IMPORTS + "".join(lines)
