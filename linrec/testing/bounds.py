"""How far an executor may be from the truth: a bound from the system and its inputs alone."""

import torch
from torch import Tensor

from linrec._checks import accumulation_dtype, common_dtype, double_dtype
from linrec.executors import Executor, FFTConvolution, Result
from linrec.systems import LinearRecurrence


def error_bound(
    recurrence: LinearRecurrence,
    inputs: Tensor,
    executor: Executor,
    initial_state: Tensor | None = None,
) -> Result:
    """Bound the error of outputs and final state, step by step, in the largest component.

    Whatever the order in which an executor multiplies, the input of step s reaches step t through
    a product of the matrices between them, cut into parts that are rounded: with ‖·‖ the largest
    absolute row sum and

        P(t, s) = max over s ≤ i ≤ j ≤ k ≤ t of ‖A_t…‖ ‖A_k…‖ ‖A_j…‖ ‖A_i…‖

    its error is at most γ P(t, s) ‖B‖ |u_s|, where γ = c·eps and c counts the roundings along the
    longest path: (n + m + 2) for each step of the loop, 4 times as many for complex numbers.
    A Fourier transform spreads errors over all steps: its own are bounded by
    16 log2(4T)·eps·‖h‖₂ ‖u‖₂ in addition. Valid to first order in eps, and loose: worst cases
    of all roundings, of the norms, and of the four parts do not happen together.

    Args:
        recurrence: the system.
        inputs (*batch, time, m): u.
        executor: the executor whose error is bounded.
        initial_state (*batch, n): the state before the first step. None: zeros.

    Returns:
        Bounds for the outputs `(time, 1)` and for the final state `(1,)`, of all sequences and
        components together, to broadcast against them.

    Example:
        >>> import torch, linrec, linrec.testing
        >>> average = linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]])
        >>> bound = linrec.testing.error_bound(average, torch.ones(3, 1), linrec.Recurrent())
        >>> bool((bound.outputs < 1e-4).all())
        True

    References:
        Higham 2002, Accuracy and Stability of Numerical Algorithms, sections 3.1, 3.5 and 24.1.
    """
    steps = inputs.shape[-2]
    norms = product_norms(recurrence, steps)
    parts = maximal_products(maximal_products(norms))
    u = inputs.detach().abs().double().movedim(-2, 0).reshape(steps, -1).amax(1)
    n, m = recurrence.A.state_size, recurrence.input_size // recurrence.copies
    B, C, D = (largest_row_sum(matrix) for matrix in (recurrence.B, recurrence.C, recurrence.D))
    D = 0.0 if recurrence.D is None else D

    dtype = accumulation_dtype(common_dtype(*recurrence.leaves().values(), inputs))
    eps = torch.finfo(dtype).eps
    count = (n + m + 2) * (steps + 2) * (4 if dtype.is_complex else 1)
    reached = parts[1:, 1:] @ (B * m * u).double()  # (time,): largest possible states
    if initial_state is not None:
        reached = reached + parts[1:, 0] * float(initial_state.abs().max()) * n
    states = count * eps * reached
    outputs = C * n * states * 2 + count * eps * D * m * u
    if isinstance(executor, FFTConvolution):
        spread = 16 * (2 + torch.tensor(float(max(steps, 1))).log2()) * eps
        gain = (C * norms[-1] * B).square().sum().sqrt() + D
        outputs = outputs + spread * gain * u.square().sum().sqrt() * max(n, m)
    narrow = common_dtype(*recurrence.leaves().values(), inputs)
    if narrow != dtype:  # outputs of half precision are rounded once more
        outputs = outputs + torch.finfo(narrow).eps * (C * n * reached + D * m * u)
    last = states[-1:] if steps else torch.zeros(1, dtype=torch.float64)
    return Result(outputs.unsqueeze(-1), last)


def product_norms(recurrence: LinearRecurrence, steps: int) -> Tensor:
    """Compute ‖A_{t-1} … A_s‖ for 0 ≤ s ≤ t ≤ T, the largest of all batches, `(T + 1, T + 1)`."""
    A = recurrence.A.to(double_dtype(recurrence.A.dtype)).to_dense().detach()
    n = A.shape[-1]
    A = A.expand(*A.shape[:-3], steps, n, n) if recurrence.varying else A.unsqueeze(-3)
    A = A.flatten(0, -4) if A.ndim > 3 else A.unsqueeze(0)
    norms = torch.zeros(steps + 1, steps + 1, dtype=torch.float64)
    products = torch.zeros(A.shape[0], steps + 1, n, n, dtype=A.dtype)
    for t in range(steps + 1):
        if t:
            products = A[:, min(t - 1, A.shape[1] - 1), None] @ products
        products[:, t] = torch.eye(n, dtype=A.dtype)
        norms[t] = products.abs().sum(-1).amax((0, -1))
    return norms


def maximal_products(norms: Tensor) -> Tensor:
    """Compute max over s ≤ r ≤ t of norms(t, r)·norms(r, s)."""
    lower = norms.tril()
    return (lower[:, :, None] * lower[None, :, :]).amax(1)


def largest_row_sum(matrix: Tensor | None) -> float:
    """Compute the largest absolute row sum of a stack of matrices; 1 for the identity."""
    return 1.0 if matrix is None else float(matrix.detach().abs().double().sum(-1).max())
