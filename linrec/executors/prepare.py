"""Preparation from powers of A, in coordinates that keep them small if their own do not."""

# pyright: reportUnknownVariableType=false
# (Torch 2.9 does not trace `dict[str, Tensor]()`, which would declare it.)

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from linrec._tensors.devices import in_double
from linrec._tensors.dtypes import accumulation_dtype
from linrec._tensors.known_values import may_look
from linrec.coordinates import take_powers
from linrec.executors.base import Executor, Plan
from linrec.powers import Powers
from linrec.structures import Structure
from linrec.systems import LinearRecurrence


@dataclass(frozen=True, eq=False)
class Prepared:
    """Kernels and powers of an executor, in double precision.

    Attributes:
        tensors: kernels and powers, by the executor's own names.
        squares: A, A², A⁴, …, if the executor uses them directly.
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    squares: tuple[Structure, ...] = ()


def prepare(
    executor: Executor,
    recurrence: LinearRecurrence,
    length: int,
    compute: Callable[[LinearRecurrence, Powers, LinearRecurrence], Prepared],
) -> Plan:
    """Make a plan from powers of A, taken in coordinates in which squaring loses few digits.

    Args:
        executor: the executor that prepares.
        recurrence: a time-invariant recurrence.
        length: the number of steps.
        compute: computes the executor's tensors from one copy of the system, the powers of its A,
            and the copy in the recurrence's own coordinates.

    Returns:
        The plan, cast to the dtype of the run, on the recurrence's device. (Where that device has
        no double precision, its tensors are computed on the CPU.)
    """
    own, dtype = in_double(recurrence.per_copy()), accumulation_dtype(recurrence.dtype)
    prepared, system, coordinates = take_powers(
        own, length, lambda system, powers: compute(system, powers, own)
    )
    device = recurrence.device
    moved = None if coordinates is None else system.to(dtype).to(device)
    tensors = {name: cast(tensor, dtype).to(device) for name, tensor in prepared.tensors.items()}
    squares = tuple(square.to(dtype).to(device) for square in prepared.squares)
    made = [*tensors.values(), *(leaf for square in squares for leaf in square.leaves().values())]
    overflows = may_look(*made, *recurrence.leaves().values()) and overflow(recurrence, made)
    return Plan(executor, recurrence, length, tensors, coordinates, moved, squares, overflows)


def cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast a tensor; spectra of real systems stay complex, in the system's precision."""
    return tensor.to(dtype) if tensor.is_complex() == dtype.is_complex else tensor


def overflow(recurrence: LinearRecurrence, made: list[Tensor]) -> bool:
    """Whether matrices are finite but their powers are not."""
    # A sum is finite only if all its terms are, and summing is four times as fast as checking them.
    if not made or bool(torch.stack([tensor.sum().isfinite() for tensor in made]).all()):
        return False
    return all(bool(leaf.isfinite().all()) for leaf in recurrence.leaves().values())
