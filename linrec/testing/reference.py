"""The recurrence as its definition says, in extended precision, sharing no code with executors."""

import numpy as np
import torch
from torch import Tensor

from linrec._checks import double_dtype
from linrec.executors import Result
from linrec.systems import LinearRecurrence


def reference(
    recurrence: LinearRecurrence,
    inputs: Tensor,
    initial_state: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Result:
    """Run a recurrence in a loop over numpy's extended-precision numbers.

        x_t = A x_{t-1} + B u_t        y_t = C x_t + D u_t

    Every sequence of every batch is run by itself, copies too, on dense matrices.

    Args:
        recurrence: the system.
        inputs (*batch, time, m): u.
        initial_state (*batch, n): the state before the first step. None: zeros.
        lengths (*batch): the steps of each sequence; None: all.

    Returns:
        Outputs and final state, in float64 or complex128, without gradients.

    Example:
        >>> import torch, linrec, linrec.testing
        >>> average = linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]])
        >>> linrec.testing.reference(average, torch.ones(2, 1)).final_state
        tensor([0.7500], dtype=torch.float64)
    """
    steps, copies = inputs.shape[-2], recurrence.copies
    shapes = [recurrence.batch_shape, inputs.shape[:-2]]
    shapes += [] if initial_state is None else [initial_state.shape[:-1]]
    shapes += [] if lengths is None else [lengths.shape]
    batch = np.broadcast_shapes(*shapes)
    n = recurrence.state_size // copies
    p, m = recurrence.output_size // copies, recurrence.input_size // copies

    exact = recurrence.A.to(double_dtype(recurrence.A.dtype))  # a product of halves is no half
    A = matrices(exact.to_dense(), batch, steps, recurrence.varying)
    B = matrices(recurrence.B, batch, steps, recurrence.varying, np.eye(n))
    C = matrices(recurrence.C, batch, steps, recurrence.varying, np.eye(n))
    D = matrices(recurrence.D, batch, steps, recurrence.varying, np.zeros((p, m)))
    u = np.broadcast_to(extended(inputs), (*batch, steps, copies * m))
    zeros = np.zeros(copies * n) if initial_state is None else extended(initial_state)
    x = np.broadcast_to(zeros, (*batch, copies * n))
    ends = np.broadcast_to(steps if lengths is None else lengths.cpu().numpy(), batch)

    kind = np.result_type(A, B, C, D, u, x, np.longdouble)
    outputs, states = np.zeros((*batch, steps, copies * p), kind), np.array(x, kind)
    for row in np.ndindex(*batch):
        for copy in range(copies):
            mine = slice(copy * n, (copy + 1) * n)
            for t in range(int(ends[row])):
                now = u[row][t, copy * m : (copy + 1) * m]
                states[row][mine] = A[row][t] @ states[row][mine] + B[row][t] @ now
                read = C[row][t] @ states[row][mine] + D[row][t] @ now
                outputs[row][t, copy * p : (copy + 1) * p] = read
    narrow = np.complex128 if np.iscomplexobj(outputs) else np.float64
    return Result(torch.from_numpy(outputs.astype(narrow)), torch.from_numpy(states.astype(narrow)))


def extended(tensor: Tensor) -> np.ndarray:
    """Convert to numpy's widest numbers."""
    tensor = tensor.detach().cpu().resolve_conj()
    if tensor.is_complex():
        return tensor.to(torch.complex128).numpy().astype(np.clongdouble)
    return tensor.to(torch.float64).numpy().astype(np.longdouble)


def matrices(
    matrix: Tensor | None,
    batch: tuple[int, ...],
    steps: int,
    varying: bool,
    otherwise: np.ndarray | None = None,
) -> np.ndarray:
    """Write one matrix out for every sequence and step, `(*batch, time, rows, columns)`."""
    array = otherwise if matrix is None else extended(matrix)
    assert array is not None
    if not (varying and array.ndim > 2):
        array = array[..., None, :, :]
    return np.broadcast_to(array, (*batch, steps, *array.shape[-2:]))
