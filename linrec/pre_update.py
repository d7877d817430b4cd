"""Systems whose output is read before the state update, as in scipy, python-control and RWKV.

    pre-update    x[k+1] = A_k x[k] + B_k u[k]        y[k] = C_k x[k] + D_k u[k]
    here          x_t = A_t x_{t-1} + B_t u_t         y_t = C_t x_t + D_t u_t

The states are the same, one step apart: x[k] = x_{k-1}. So x[0] is our initial state, and the state
after the last input is our final state. The difference is which state an output is read from.
"""

# pyright: reportConstantRedefinition=false
# (A, B, C and D are variables.)

import torch
from torch import Tensor
from torch.nn.functional import pad

from linrec._call.arguments import check_inputs, zero_padded_matrices
from linrec._tensors.dtypes import accumulation_dtype, common_dtype
from linrec._tensors.full_precision import full_precision
from linrec._tensors.shapes import broadcast_shapes
from linrec.composition import matrices
from linrec.executors import Executor, Result
from linrec.lengths import check_lengths, length_mask
from linrec.planner import Auto
from linrec.run import run
from linrec.structures import DiagonalPlusLowRank, Structure, matvec
from linrec.systems import LinearRecurrence, Varying, require_recurrence

Matrix = Tensor | object


def run_pre_update(
    A: Structure | Varying | Matrix,
    B: Matrix | None,
    C: Matrix | None,
    D: Matrix | None,
    inputs: Tensor,
    initial_state: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    executor: Executor = Auto(),
) -> Result:
    """Run a system whose outputs are read from the state before each step.

        x[k+1] = A_k x[k] + B_k u[k]        y[k] = C_k x[k] + D_k u[k]

    The states run unchanged, in any structure. C_{k+1} x[k+1] is read one step early and returned
    one step late: no state is added, and nothing is inverted.

    Args:
        A (*batch, n, n): the transition matrix, a tensor or a structure; `Varying` for one per
            step, and then the last batch axis of B, C and D, where they have one, is time too.
        B (*batch, n, m): how inputs drive the states. None: directly, m = n.
        C (*batch, p, n): how outputs are read from the states. None: outputs are the states.
        D (*batch, p, m): how inputs are added to the outputs. None: they are not.
        inputs (*batch, time, m): u, of any length, 0 included.
        initial_state (*batch, n): x[0], from which the first output is read. None: zeros.
        lengths (*batch): how many steps of each right-padded sequence are its own.
        executor: how it is run.

    Returns:
        `outputs (*batch, time, p)`, zero past a sequence's length, and `final_state (*batch, n)`:
        x[T], the state before the next input.

    Raises:
        ValueError, TypeError: as `LinearRecurrence` and `run` do.

    Numerical error: that of the executor.

    Example:
        >>> import torch
        >>> from linrec.interop import run_pre_update
        >>> run_pre_update([[0.5]], [[1.0]], [[1.0]], None, torch.ones(3, 1)).outputs.squeeze()
        tensor([0.0000, 1.0000, 1.5000])

    References:
        Kailath 1980, Linear Systems, chapter 2.
    """
    system = LinearRecurrence(A, B, C, D)
    inputs = check_inputs(system, inputs)
    steps = inputs.shape[-2]
    result = common_dtype(*system.leaves().values(), inputs)
    inputs = inputs.to(accumulation_dtype(result))  # D u is added before rounding
    mask = None
    if lengths is not None:
        mask = length_mask(check_lengths(lengths, inputs), steps)
        inputs = torch.where(mask.unsqueeze(-1), inputs, 0)
        system = zero_padded_matrices(system, mask)
    reading = system.rebuilt(system.A, system.B, one_step_early(system), None)
    if reading.steps != system.steps:  # D alone changes from step to step
        reading = reading.at(0)
    later, state = run(reading, inputs, initial_state, lengths=lengths, executor=executor)
    outputs = later
    if steps:
        start = inputs.new_zeros(system.state_size) if initial_state is None else initial_state
        first = start if system.C is None else matvec(first_matrix(system, system.C), start)
        first = first.to(later.dtype).expand(*later.shape[:-2], -1).unsqueeze(-2)
        outputs = torch.cat([first, later], -2)[..., :steps, :]
    timed = system.over_time()
    if timed.D is not None:
        outputs = outputs + matvec(timed.D, inputs)
    if state.shape[:-1] != outputs.shape[:-2]:  # D has batch axes of its own
        state = state.expand(*outputs.shape[:-2], -1).clone()
    if mask is not None:
        outputs = torch.where(mask.unsqueeze(-1), outputs, 0)
    narrow = result if accumulation_dtype(result) == later.dtype else later.dtype
    return Result(outputs.to(narrow), state)


def from_pre_update(
    A: Structure | Varying | Matrix,
    B: Matrix | None = None,
    C: Matrix | None = None,
    D: Matrix | None = None,
) -> LinearRecurrence:
    """Convert a system read before each step into a recurrence, which is read after it.

    y[k] = C_k x[k] + D_k u[k] needs x[k], but step k leaves only x[k+1]. To read y[k] off x[k+1]
    with n states takes C' A = C: A would have to be invertible, and a badly conditioned A would
    cost digits. So the state carries the read-out along:

        z_k = [x[k+1]; E_k x[k]] = [[A_k, 0], [E_k, 0]] z_{k-1} + [[B_k], [0]] u[k]

    where E is the shorter of C (then y[k] = [0, I] z_k + D_k u[k]) and I (y[k] = [0, C_k] z_k +
    D_k u[k]). Nothing is computed; the matrices are copied. In general fewer states do not suffice:
    for A = 0 and C = B = I the response is 0, I, 0, …. A recurrence must respond with G, I, 0, …,
    for any G, which D' corrects, and the Hankel matrix [[G, I], [I, 0]] has rank 2n.

    To run such a system, `run_pre_update` is cheaper: it adds no states and keeps the structure.
    This conversion is for functions that take a recurrence: modules, responses, compositions.

    Args:
        A (*batch, n, n): the transition matrix, a tensor or a structure; `Varying` for one per
            step.
        B (*batch, n, m): how inputs drive the states. None: directly, m = n.
        C (*batch, p, n): how outputs are read from the states. None: outputs are the states.
        D (*batch, p, m): how inputs are added to the outputs. None: they are not.

    Returns:
        The recurrence of n + min(p, n) states, dense, or diagonal plus low rank where A is of
        low rank besides a diagonal. It starts from x[0] with
        `initial_state = torch.nn.functional.pad(x0, (0, min(p, n)))`, and the first n numbers of
        its final state are x[T].

    Raises:
        ValueError, TypeError: as `LinearRecurrence` does.

    Example:
        >>> import torch, linrec
        >>> from linrec.interop import from_pre_update
        >>> lag = from_pre_update([[0.5]], [[1.0]], [[1.0]])
        >>> linrec.run(lag, torch.ones(3, 1)).outputs.squeeze()
        tensor([0.0000, 1.0000, 1.5000])

    References:
        Kailath 1980, Linear Systems, chapter 2.
    """
    system = LinearRecurrence(A, B, C, D)
    transition, driven, read, _ = matrices(system)
    p, n = read.shape[-2:]
    identity = torch.eye(min(p, n), dtype=read.dtype, device=read.device)
    held_back, reading = (read, identity) if p <= n else (identity, read)
    late = held_back.shape[-2]
    batch = broadcast_shapes(transition.shape[:-2], held_back.shape[:-2])
    parts = (transition.expand(*batch, -1, -1), held_back.expand(*batch, -1, -1))
    extended: Tensor | Structure = pad(torch.cat(parts, -2), (0, late))
    thin = system.A.as_diagonal_plus_low_rank()
    if thin is not None and thin[1].shape[-1]:  # writing A out would round its sums
        extended = extended_low_rank(*thin, held_back)
    return LinearRecurrence(
        extended,
        pad(driven, (0, 0, 0, late)),
        pad(reading, (n, 0)),
        system.D,
        time_varying=system.time_varying,
    )


def extended_low_rank(
    diagonal: Tensor, left: Tensor, right: Tensor, held_back: Tensor
) -> DiagonalPlusLowRank:
    """Extend a matrix diag(d) + U V* by rows E and by columns of zeros, without computing it.

    [[A, 0], [E, 0]] = diag(d, 0) + [[U, 0], [0, I]] [[V*, 0], [E, 0]]
    """
    late = held_back.shape[-2]
    identity = torch.eye(late, dtype=held_back.dtype, device=held_back.device)
    corner = pad(identity, (0, 0, diagonal.shape[-1], 0))
    batch = broadcast_shapes(left.shape[:-2], held_back.shape[:-2])
    lefts = pad(left, (0, 0, 0, late)), corner
    rights = pad(right, (0, 0, 0, late)), pad(held_back.mH, (0, 0, 0, late))
    left, right = (
        torch.cat([each.expand(*batch, -1, -1) for each in pair], -1) for pair in (lefts, rights)
    )
    return DiagonalPlusLowRank(pad(diagonal, (0, late)), left, right)


def to_pre_update(
    recurrence: LinearRecurrence,
) -> tuple[Structure | Varying, Tensor, Tensor, Tensor]:
    """Rewrite a recurrence to be read before each step: y_t = C A x_{t-1} + (C B + D) u_t.

    Args:
        recurrence: any recurrence, also varying or with batch axes; if it has copies, the matrices
            of one copy are used.

    Returns:
        A unchanged (in `Varying` where the recurrence varies), B, C A and C B + D, with the same
        number of states: x[k] = x_{k-1}.

    Example:
        >>> import linrec
        >>> from linrec.interop import to_pre_update
        >>> to_pre_update(linrec.LinearRecurrence(A=[[0.5]], B=[[0.25]]))[2:]
        (tensor([[0.5000]]), tensor([[0.2500]]))

    References:
        Kailath 1980, Linear Systems, chapter 2.
    """
    require_recurrence(recurrence)
    written, B, C, D = matrices(recurrence)
    A = recurrence.A
    if recurrence.time_varying:
        A = Varying(A if A.batch_shape else A[None])
    with full_precision(written):
        return A, B, C @ written, C @ B + D


def one_step_early(system: LinearRecurrence) -> Tensor | None:
    """Shift C_{k+1} to step k: the state after step k is read by the next output."""
    C = system.C
    if C is None or not system.time_varying or C.ndim == 2 or C.shape[-3] == 1:
        return C
    return torch.cat([C[..., 1:, :, :], torch.zeros_like(C[..., :1, :, :])], -3)


def first_matrix(system: LinearRecurrence, matrix: Tensor) -> Tensor:
    """Return a matrix's value at the first step."""
    return matrix[..., 0, :, :] if system.time_varying and matrix.ndim > 2 else matrix
