"""Run varying systems of one input and one output in a kernel for states that are matrices."""

from torch import Tensor

from linrec._checks import records_gradient
from linrec.executors.base import Result
from linrec.executors.varying_chunks import Layout
from linrec.kernels.chunks import matrix_scan, scans
from linrec.structures import matvec
from linrec.systems import LinearRecurrence


def run_in_kernel(
    recurrence: LinearRecurrence, inputs: Tensor, state: Tensor | None
) -> Result | None:
    """Run all steps in a kernel, if there is one for the system and its device.

    Sequences that share a system are the columns of a matrix: those of linear attention and of
    delta rules, whose columns are the values. There is none where a gradient is recorded: training
    runs chunks in torch's products.

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
    if parts is None or not scans(inputs, n, parts[1].shape[-1]):
        return None
    if records_gradient(inputs, state, *recurrence.leaves().values()):
        return None
    layout = Layout.of(recurrence, inputs.shape[:-2])
    u = layout.together(inputs).squeeze(2)
    x = None if state is None else layout.together(state)
    gates, left, right = parts
    rank = left.shape[-1]
    shared = gates.stride(-1) == 0  # one number, expanded
    cores = [(gates[..., :1] if shared else gates, 1), (B.squeeze(-1), 1), (C.squeeze(-2), 1)]
    cores += [(left.squeeze(-1), 1), (right.conj().squeeze(-1), 1)] if rank else []
    made = [layout.matrices(leaf, core) for leaf, core in cores]
    a, k, q, *low = (leaf.expand(*u.shape[:2], leaf.shape[-1]) for leaf in made)
    outputs, last = matrix_scan(a, k, q, u, *(low or (None, None)), x)
    outputs, last = layout.back(outputs.unsqueeze(2)), layout.back(last)
    timed = recurrence.over_time()
    if timed.D is not None:
        outputs = outputs + matvec(timed.D, inputs)
    return Result(outputs, last)
