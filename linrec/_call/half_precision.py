"""Runs of half-precision numbers by executors that take them unconverted."""

# pyright: reportUnnecessaryIsInstance=false
# (Callers without types are checked too.)

import torch
from torch import Tensor

from linrec._call.prepared_call import prepare_call
from linrec._tensors.full_precision import full_precision
from linrec.executors import Executor, Result
from linrec.kernels.elementwise import serves
from linrec.systems import LinearRecurrence

HALVES = (torch.float16, torch.bfloat16)


def run_in_halves(
    recurrence: LinearRecurrence,
    inputs: Tensor,
    state: Tensor | None,
    executor: Executor,
) -> Result | None:
    """Run all steps in half precision, unconverted, with sums in float32.

    A device that multiplies such numbers twice as fast also reads half the memory. None: the
    executor needs float32, or some argument is not in half precision.
    """
    if not isinstance(inputs, Tensor) or inputs.dtype not in HALVES or not serves(inputs):
        return None
    if not isinstance(executor, Executor) or not isinstance(recurrence, LinearRecurrence):
        return None
    tensors = recurrence.tensors()
    if not recurrence.time_varying or any(each.dtype != inputs.dtype for each in tensors):
        return None
    if isinstance(state, Tensor) and state.dtype not in (*HALVES, torch.float32):
        return None
    call = prepare_call(recurrence, inputs, state, halves=True)
    if 0 in call.inputs.shape[:-1]:
        return None
    with full_precision(call.inputs):
        chosen = call.select(executor, False)
        found = chosen.run_in_halves(call.system, call.inputs, call.state)
        return None if found is None else call.finish(*found)
