"""The plain loop over the states, in a given precision and order of summation."""

from collections.abc import Callable

import torch
from torch import Tensor

from linrec._tensors.dtypes import accumulation_dtype, common_dtype
from linrec.systems import LinearRecurrence

# Sums products along the last axis.
Order = Callable[[Tensor], Tensor]


def run_states(
    recurrence: LinearRecurrence,
    inputs: Tensor,
    state: Tensor,
    dtype: torch.dtype,
    order: Order | None = None,
) -> Tensor:
    """Compute the states step by step in a given precision, the initial state first.

    Args:
        recurrence: the system.
        inputs (*batch, time, m): u.
        state (*batch, n): the state before the first step.
        dtype: the precision.
        order: sums the products of a row. None: a matrix product.

    Returns:
        The states, `(*batch, time + 1, n)`.
    """
    one = recurrence.per_copy().to(dtype).over_time()
    A, columns = one.A.to_dense().detach(), inputs.to(dtype).unsqueeze(-1)
    drive = columns if one.B is None else one.B.detach() @ columns
    steps_of_A = A.unbind(-3) if A.ndim > 2 else (A,)
    states = [state.to(dtype).unsqueeze(-1)]
    for t, driven in enumerate(drive.unbind(-3)):
        now, before = steps_of_A[min(t, len(steps_of_A) - 1)], states[-1]
        if order is None:
            moved = now @ before
        else:
            moved = order(now * before.mT).unsqueeze(-1)
        states.append(moved + driven)
    return torch.stack(torch.broadcast_tensors(*states), -3).squeeze(-1)


def from_the_left(products: Tensor) -> Tensor:
    """Sum along the last axis, from its start."""
    total = products[..., 0]
    for each in products.unbind(-1)[1:]:
        total = total + each
    return total


def from_the_right(products: Tensor) -> Tensor:
    """Sum along the last axis, from its end."""
    return from_the_left(products.flip(-1))


def goes_astray(
    recurrence: LinearRecurrence,
    inputs: Tensor,
    state: Tensor,
    exact: Tensor,
    dtype: torch.dtype,
) -> Tensor:
    """Mark the steps from the first at which a loop's error exceeds all states so far.

    If rounding moves a filter's poles across the unit circle, a loop computes the states of another
    filter, and nothing can be promised. Loops with different orders of summation show this.

    Args:
        recurrence, inputs, state: as for `run_states`.
        exact (*batch, time + 1, n): the exact states.
        dtype: the precision of the loop.

    Returns:
        A boolean, `(*batch, time + 1, 1)`.
    """
    sizes = exact.abs().cummax(-2).values
    found = torch.zeros(sizes.shape, dtype=torch.bool)
    for order in (None, from_the_left, from_the_right):
        plain = run_states(recurrence, inputs, state, dtype, order).to(exact.dtype)
        found |= ~((plain - exact).abs() <= sizes)
    return found.any(-1, keepdim=True).cummax(-2).values


def dtypes_of(
    recurrence: LinearRecurrence, inputs: Tensor, initial_state: Tensor | None
) -> tuple[torch.dtype, torch.dtype]:
    """Return the dtypes of a call's computation and of its outputs."""
    narrow = common_dtype(*recurrence.leaves().values(), inputs)
    dtype = common_dtype(inputs.new_empty(0, dtype=accumulation_dtype(narrow)), initial_state)
    return dtype, narrow if accumulation_dtype(narrow) == dtype else dtype
