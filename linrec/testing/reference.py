"""The exact reference: a recurrence run by its definition, without the executors' code."""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from linrec._tensors.dtypes import double_dtype
from linrec.executors import Result
from linrec.systems import LinearRecurrence, require_recurrence

# The most products of an exact loop: rational numbers grow by about a hundred digits per step.
EXACT = 1 << 18


class Matrices(NamedTuple):
    """A, B, C and D, written out for every sequence and step, `(*batch, time, rows, columns)`."""

    A: np.ndarray
    B: np.ndarray
    C: np.ndarray
    D: np.ndarray


def exact_reference(
    recurrence: LinearRecurrence,
    inputs: Tensor,
    initial_state: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Result:
    """Run a recurrence in a loop without any rounding, then round once to double precision.

        x_t = A x_{t-1} + B u_t        y_t = C x_t + D u_t

    Floating-point numbers are fractions whose denominator is a power of two. So are their sums and
    products, which Python's integers hold at any length. Every sequence of every batch, and every
    copy, is run by itself, on dense matrices. If that would take more than about a second
    (T² (n + p)(n + m) B multiplications beyond 2.6e5), or if numbers are not finite, a loop over
    numpy's widest numbers replaces it.

    Args:
        recurrence: the system.
        inputs (*batch, time, m): u.
        initial_state (*batch, n): the state before the first step. None: zeros.
        lengths (*batch): the steps of each sequence; None: all.

    Returns:
        Outputs and final state, in float64 or complex128, without gradients.

    Numerical error: eps/2 of each number of the result; for the loop over wide numbers (64 bits
    if the processor has them, else 53), the error of that loop.

    Example:
        >>> import torch, linrec, linrec.testing
        >>> average = linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]])
        >>> linrec.testing.exact_reference(average, torch.ones(2, 1)).final_state
        tensor([0.7500], dtype=torch.float64)
    """
    require_recurrence(recurrence)
    steps, copies = inputs.shape[-2], recurrence.copies
    batch = common_batch(recurrence, inputs, initial_state, lengths)
    n, m, p = (
        size // copies
        for size in (recurrence.state_size, recurrence.input_size, recurrence.output_size)
    )
    system = written_out(recurrence, batch, steps)
    u = np.broadcast_to(numbers(inputs), (*batch, steps, copies * m))
    zeros = np.zeros(copies * n) if initial_state is None else numbers(initial_state)
    x = np.broadcast_to(zeros, (*batch, copies * n))
    ends = np.broadcast_to(steps if lengths is None else lengths.cpu().numpy(), batch)

    kind = np.result_type(*system, u, x)
    outputs, states = np.zeros((*batch, steps, copies * p), kind), np.array(x, kind)
    work = math.prod(batch) * copies * steps * steps * (n * (n + m) + p * (n + m))
    finite = all(np.isfinite(array).all() for array in (*system, x))
    exactly = work <= EXACT and finite
    for copy in range(copies):
        now, mine = slice(copy * m, (copy + 1) * m), slice(copy * n, (copy + 1) * n)
        read = slice(copy * p, (copy + 1) * p)
        if not exactly:
            result = wide_loop(system, u[..., now], x[..., mine], ends)
            outputs[..., read], states[..., mine] = result
            continue
        for row in np.ndindex(*batch):
            end = int(ends[row])
            own = Matrices(*(matrix[row][:end] for matrix in system))
            given = u[row][:end, now], x[row][mine]
            if np.isfinite(given[0]).all():
                outputs[row][:end, read], states[row][mine] = rational_loop(own, *given)
            else:
                result = wide_loop(own, *given, np.array(end))
                outputs[row][:end, read], states[row][mine] = result
    return Result(torch.from_numpy(outputs), torch.from_numpy(states))


def common_batch(recurrence: LinearRecurrence, inputs: Tensor, *others: Tensor | None) -> Any:
    """Find the batch axes of a system, inputs, state `(*batch, n)` and lengths `(*batch)`."""
    state, lengths = others
    shapes = [recurrence.batch_shape, inputs.shape[:-2]]
    shapes += [] if state is None else [state.shape[:-1]]
    shapes += [] if lengths is None else [lengths.shape]
    return np.broadcast_shapes(*shapes)


def written_out(recurrence: LinearRecurrence, batch: tuple[int, ...], steps: int) -> Matrices:
    """Write out dense matrices for every sequence and step."""
    n = recurrence.A.state_size
    p = recurrence.output_size // recurrence.copies
    m = recurrence.input_size // recurrence.copies
    # In half precision, the product of low-rank factors would be rounded.
    A = recurrence.A.to(double_dtype(recurrence.A.dtype)).to_dense()
    given = (A, recurrence.B, recurrence.C, recurrence.D)
    absent = (None, np.eye(n), np.eye(n), np.zeros((p, m)))
    arrays = []
    for matrix, otherwise in zip(given, absent, strict=True):
        array = otherwise if matrix is None else numbers(matrix)
        assert array is not None
        if not (recurrence.time_varying and array.ndim > 2):
            array = array[..., None, :, :]
        arrays.append(np.broadcast_to(array, (*batch, steps, *array.shape[-2:])))
    return Matrices(*arrays)


def numbers(tensor: Tensor) -> np.ndarray:
    """Convert to numpy's double precision, which holds every narrower number."""
    return tensor.detach().cpu().resolve_conj().to(double_dtype(tensor.dtype)).numpy()


def wide_loop(
    system: Matrices, u: np.ndarray, x: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Run sequences `(*batch, time, m)` in numpy's widest numbers, each to its own end."""
    widest = np.longdouble(1)
    kind = np.result_type(*system, u, x, widest)
    constant = [not matrix.strides[-3] for matrix in system]  # one matrix for all steps
    A, B, C, D = (
        (matrix[..., :1, :, :] if once else matrix).astype(kind)
        for matrix, once in zip(system, constant, strict=True)
    )
    u, states = u.astype(kind)[..., None], [x.astype(kind)[..., None]]
    own = (np.arange(u.shape[-3]) < ends[..., None])[..., None, None]
    with np.errstate(over="ignore", invalid="ignore"):  # callers check for overflow
        drive = B @ u
        for t in range(u.shape[-3]):
            after = A[..., min(t, A.shape[-3] - 1), :, :] @ states[-1] + drive[..., t, :, :]
            states.append(np.where(own[..., t, :, :], after, states[-1]))
        after = np.stack(states[1:], -3) if len(states) > 1 else drive
        outputs = np.where(own, C @ after + D @ u, 0)
    return outputs[..., 0], states[-1][..., 0]


def rational_loop(system: Matrices, u: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Run one sequence exactly, in fractions over a power of two.

    A complex number a + bi is the real matrix [[a, -b], [b, a]], so a complex system of n states is
    a real one of 2n.
    """
    is_complex = any(np.iscomplexobj(array) for array in (*system, u, x))
    if is_complex:
        system = Matrices(*(real_matrices(matrix) for matrix in system))
        u, x = (np.concatenate([np.real(array), np.imag(array)], -1) for array in (u, x))
    state, outputs = Dyadic.of(x), []
    same = not any(matrix.strides[0] for matrix in system)  # one matrix for all steps
    for t in range(len(u)):
        if t == 0 or not same:
            A, B, C, D = (Dyadic.of(matrix[t]) for matrix in system)
        now = Dyadic.of(u[t])
        state = A @ state + B @ now  # type: ignore[possibly-unbound]  # bound at t = 0
        outputs.append((C @ state + D @ now).rounded())  # type: ignore[possibly-unbound]  # as A
    read = np.array(outputs).reshape(len(u), system.C.shape[-2])
    last = state.rounded()
    if not is_complex:
        return read, last
    p, n = read.shape[1] // 2, len(last) // 2
    return read[:, :p] + 1j * read[:, p:], last[:n] + 1j * last[n:]


def real_matrices(matrices: np.ndarray) -> np.ndarray:
    """Write complex matrices as real ones of twice the size; a matrix for all steps stays one."""
    step = matrices[:1] if len(matrices) and not matrices.strides[0] else matrices
    real, imaginary = np.real(step), np.imag(step)
    doubled = np.block([[real, -imaginary], [imaginary, real]])
    return np.broadcast_to(doubled, (len(matrices), *doubled.shape[1:]))


@dataclass(frozen=True, eq=False)
class Dyadic:
    """Fractions with one power of two as denominator: `whole / 2^scale`."""

    whole: np.ndarray
    scale: int

    @classmethod
    def of(cls, floats: np.ndarray) -> "Dyadic":
        """Convert floating-point numbers exactly."""
        ratios = [value.as_integer_ratio() for value in floats.ravel().tolist()]
        scale = max((bottom.bit_length() - 1 for _, bottom in ratios), default=0)
        whole = np.empty(len(ratios), object)
        whole[:] = [top << (scale - bottom.bit_length() + 1) for top, bottom in ratios]
        return cls(whole.reshape(floats.shape), scale)

    def __matmul__(self, other: "Dyadic") -> "Dyadic":
        return Dyadic(self.whole @ other.whole, self.scale + other.scale)

    def __add__(self, other: "Dyadic") -> "Dyadic":
        scale = max(self.scale, other.scale)
        mine, theirs = (part.whole * (1 << (scale - part.scale)) for part in (self, other))
        return Dyadic(mine + theirs, scale)

    def rounded(self) -> np.ndarray:
        """Round each number once to double precision."""
        return np.array([nearest(Fraction(whole, 1 << self.scale)) for whole in self.whole], float)


def nearest(exact: Fraction) -> float:
    """Round to the nearest double, or to infinity beyond the largest."""
    try:
        return float(exact)
    except OverflowError:
        return math.copysign(math.inf, exact)
