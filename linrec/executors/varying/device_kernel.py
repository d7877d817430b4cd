"""Run varying systems of one input and one output in a kernel for states that are matrices."""

import torch
from torch import Tensor

from linrec._tensors.autograd import is_plain, records_gradient
from linrec.executors.base import Result
from linrec.executors.varying.chunks import Layout
from linrec.kernels.chunks import matrix_scan, scans
from linrec.kernels.delta import delta_chunks
from linrec.kernels.gated import gated_chunks, runs_gated
from linrec.structures import matvec
from linrec.systems import LinearRecurrence


def run_in_kernel(
    recurrence: LinearRecurrence, inputs: Tensor, state: Tensor | None
) -> Result | None:
    """Run all steps in kernels, if there are any for the system and its device.

    Sequences that share a system are the columns of a matrix: those of linear attention and of
    delta rules, whose columns are the values. Those of one gate have gradients; where one is
    recorded in others there is no kernel: training runs chunks in torch's products.

    Args:
        recurrence: the system, of one copy.
        inputs (*batch, time, 1): u.
        state (*batch, n): the state before the first step; None: zeros.

    Returns:
        Outputs and final state; None if there is no kernel.
    """
    B, C, n = recurrence.B, recurrence.C, recurrence.A.state_size
    if B is None or C is None or B.shape[-1] != 1 or C.shape[-2] != 1:
        return None
    parts = recurrence.A.as_diagonal_plus_low_rank()
    if parts is None:
        return None
    timed, layout = recurrence.over_time(), Layout.of(recurrence, inputs.shape[:-2])
    rank, shared = parts[1].shape[-1], parts[0].stride(-1) == 0  # one number, expanded
    if shared and runs_gated(inputs, n, rank) and (torch.compiler.is_compiling() or is_plain()):
        outputs, last = run_gated(layout, parts, B, C, inputs, state)
    elif not scans(inputs, n, rank):
        return None
    elif records_gradient(inputs, state, *recurrence.leaves().values()):
        return None
    else:
        outputs, last = run_steps(layout, parts, B, C, inputs, state)
    if timed.D is not None:
        outputs = outputs + matvec(timed.D, inputs)
    return Result(outputs, last)


def run_gated(
    layout: Layout,
    parts: tuple[Tensor, Tensor, Tensor],
    B: Tensor,
    C: Tensor,
    inputs: Tensor,
    state: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Run systems of one gate in chunks."""
    gates, left, right = parts
    given = [gates[..., :1], B.squeeze(-1), C.squeeze(-2)]
    given += [left.squeeze(-1), right.squeeze(-1)] if left.shape[-1] else []
    a, k, q, *low = (layout.matrices_in_two(leaf, 1, inputs.shape[-2]) for leaf in given)
    start = None if state is None else layout.together(state)
    v = layout.in_two(inputs)
    if low:
        outputs, last, *_ = delta_chunks(a.squeeze(-1), k, q, v, *low, start)
    else:
        outputs, last, *_ = gated_chunks(a.squeeze(-1), k, q, v, start)
    return layout.back(outputs.flatten(0, 1).unsqueeze(2)), layout.back(last)


def run_steps(
    layout: Layout,
    parts: tuple[Tensor, Tensor, Tensor],
    B: Tensor,
    C: Tensor,
    inputs: Tensor,
    state: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Run systems step by step."""
    u = layout.together(inputs).squeeze(2)
    x = None if state is None else layout.together(state)
    gates, left, right = parts
    rank, shared = left.shape[-1], gates.stride(-1) == 0
    cores = [(gates[..., :1] if shared else gates, 1), (B.squeeze(-1), 1), (C.squeeze(-2), 1)]
    cores += [(left.squeeze(-1), 1), (right.conj().squeeze(-1), 1)] if rank else []
    made = [layout.matrices(leaf, core) for leaf, core in cores]
    a, k, q, *low = (leaf.expand(*u.shape[:2], leaf.shape[-1]) for leaf in made)
    outputs, last = matrix_scan(a, k, q, u, *(low or (None, None)), x)
    return layout.back(outputs.unsqueeze(2)), layout.back(last)
