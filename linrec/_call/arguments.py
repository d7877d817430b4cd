"""Checks of inputs, initial states and masks against a recurrence."""

from typing import NoReturn

import torch
from torch import Tensor

from linrec._tensors.arguments import check_tensor
from linrec._tensors.shapes import show
from linrec.systems import LinearRecurrence

# Dtypes that need no conversion before computing.
EXACTLY = (torch.float32, torch.float64, torch.complex64, torch.complex128)


def needs_no_change(recurrence: LinearRecurrence, inputs: object, state: object, core: int) -> bool:
    """Whether arguments need no conversion: one system, one dtype and device, matching sizes.

    If this fails, the arguments are checked one by one, which takes three times as long. Such
    checks are most of what a small call costs.

    Args:
        recurrence: the system.
        inputs (*batch, time, m): u; for one step `(*batch, m)`.
        state (*batch, n): the state before the first step, or None.
        core: the number of input axes that are not batch axes: 2, or 1 for one step.
    """
    if type(inputs) is not Tensor or inputs.layout is not torch.strided or inputs.is_nested:
        return False
    dtype, own = inputs.dtype, recurrence.own_axes
    if dtype not in EXACTLY or inputs.device != own[0][0].device or recurrence.time_varying:
        return False
    for tensor, axes in own:
        if tensor.ndim != axes or tensor.dtype is not dtype:
            return False
    B, n, shape = recurrence.B, recurrence.A.state_size, inputs.shape
    if len(shape) < core or shape[-1] != (n if B is None else B.shape[-1]):
        return False  # (copies together have more inputs than one)
    if state is None:
        return True
    if type(state) is not Tensor or state.dtype is not dtype:
        return False
    if state.layout is not torch.strided or state.is_nested:
        return False
    starts = state.shape
    if len(shape) == core:
        return len(starts) == 1 and starts[0] == n
    return starts == (*shape[:-core], n)


def check_inputs(recurrence: LinearRecurrence, inputs: Tensor, core: int = 2) -> Tensor:
    """Check that inputs fit the recurrence."""
    name = "inputs" if core == 2 else "input"
    inputs = check_tensor(name, inputs)
    size, shape = recurrence.input_size, inputs.shape
    if len(shape) < core or shape[-1] != size:
        refuse_shape(name, inputs, size, core)
    if recurrence.time_varying and recurrence.steps != (shape[-2] if core == 2 else 1):
        instead = "expected as many" if core == 2 else "pass `recurrence.at(t)`, that of the step"
        raise ValueError(
            f"`{name}` has {shape[-2] if core == 2 else 1} steps, but the recurrence is "
            f"time-varying and has matrices for {recurrence.steps}: {instead}."
        )
    if inputs.device != recurrence.device:
        raise ValueError(
            f"`{name}` is on {inputs.device} and the recurrence on {recurrence.device}: expected "
            f"one device. Pass `recurrence.to({name}.device)`."
        )
    return inputs


def refuse_shape(name: str, inputs: Tensor, size: int, core: int) -> NoReturn:
    """Raise an error that states the expected shape of inputs."""
    shape, hint = inputs.shape, ""
    if core == 2 and len(shape) >= 2 and shape[-2] == size:
        hint = " If time is the last axis then pass `inputs.mT`."
    elif core == 2 and shape and size == 1:
        hint = " If time is the last axis then pass `inputs.unsqueeze(-1)`."
    expected = f"(*batch, time, {size})" if core == 2 else f"(*batch, {size})"
    raise ValueError(
        f"`{name}` has shape {show(shape)}, but the recurrence has {size} inputs: expected "
        f"{expected}.{hint}"
    )


def check_state(recurrence: LinearRecurrence, name: str, state: Tensor) -> Tensor:
    """Check that a state fits the recurrence; `name` is the argument's."""
    state = check_tensor(name, state)
    if state.ndim < 1 or state.shape[-1] != recurrence.state_size:
        raise ValueError(
            f"`{name}` has shape {tuple(state.shape)}, but the recurrence has "
            f"{recurrence.state_size} states: expected (*batch, {recurrence.state_size})."
        )
    return state


def zero_padded_matrices(system: LinearRecurrence, mask: Tensor) -> LinearRecurrence:
    """Zero the matrices of a varying system at the padding steps.

    They may be NaN there, and 0 · NaN is NaN in the gradient.
    """
    if not system.time_varying:
        return system

    def clean(leaf: Tensor, core: int) -> Tensor:
        batch = leaf.shape[: leaf.ndim - core]
        used = mask
        while used.ndim > len(batch):
            used = used.any(0)
        for axis, size in enumerate(batch[-used.ndim :]):
            used = used.any(axis, keepdim=True) if size == 1 else used
        return torch.where(used[(..., *[None] * core)], leaf, 0)

    return system.map_batched(clean)
