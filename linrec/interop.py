"""Convert systems of scipy.signal and python-control; their discrete ones answer a step later.

    there (pre-update)    x[k+1] = A x[k] + B u[k]        y[k] = C x[k] + D u[k]
    here (post-update)    x_t = A x_{t-1} + B u_t         y_t = C x_t + D u_t

Copying the four matrices would shift the answer by a step. The converted systems give the same
answer as the originals, sample by sample, for every A, singular ones included: nothing is inverted.
In both directions, scipy's state at the beginning of a step, x[k], is our state after the previous
step, x_{k-1}: scipy's `x0` is our `initial_state`.

Continuous systems mean the same on both sides, and their matrices are copied. (Sampled by scipy,
`from_scipy(system.to_discrete(dt))` answers with the output at the beginning of each step; sampled
by us, `discretize(from_scipy(system), dt)` answers with the output at its end; see `discretize`.)
"""

# pyright: reportConstantRedefinition=false
# (A, B, C and D are variables.)
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false
# (Scipy has no annotations.)
# pyright: reportUnnecessaryIsInstance=false
# (Callers without types are checked too.)

import importlib
import math
from numbers import Real
from typing import Any

import numpy as np
import torch
from scipy import linalg, signal

from linrec._tensors.annotated import tensor_of
from linrec._tensors.dtypes import double_dtype
from linrec._tensors.shapes import show
from linrec.pre_update import from_pre_update as from_pre_update
from linrec.pre_update import run_pre_update as run_pre_update
from linrec.pre_update import to_pre_update as to_pre_update
from linrec.systems import LinearRecurrence, StateSpace, check_invariant

__all__ = [
    "from_control",
    "from_pre_update",
    "from_scipy",
    "run_pre_update",
    "to_control",
    "to_pre_update",
    "to_scipy",
]


def from_scipy(system: object) -> LinearRecurrence | StateSpace:
    """Convert a system of scipy.signal, continuous or discrete, to one of ours.

    A discrete system of n states and p outputs becomes a recurrence of n + min(p, n) states. The
    last min(p, n) of them delay the read-out by one step:

        z_t = [x[t+1]; C x[t]]    A' = [[A, 0], [C, 0]]    B' = [[B], [0]]    C' = [0, I]    D' = D

    (x[t] instead of C x[t] where p > n). Its outputs are those of `scipy.signal.dlsim`; it starts
    from `x0` with `initial_state = torch.nn.functional.pad(x0, (0, min(p, n)))`, and the first n
    numbers of its final state are scipy's next state.

    Args:
        system: a `StateSpace`, `TransferFunction` or `ZerosPolesGain` of scipy.signal; the last
            two are converted by scipy's own `to_ss`. (Beware: a `TransferFunction` reads b and a in
            powers of z, `lfilter` in powers of 1/z; they agree if b and a have the same length.)
            The length of its step, `dt`, is dropped: recurrences count steps.

    Returns:
        A `LinearRecurrence` for a discrete system (`dlti`), a `StateSpace` for a continuous one
        (`lti`), in float64 or complex128; D = None where scipy's D is zero. A mere gain, without
        states, counts as a system of one state, which stays zero.

    Raises:
        TypeError: it is not a system of scipy.signal, but for example a tuple of coefficients.
        ValueError: scipy finds no states for it, because it is improper (more zeros than poles).

    Example:
        >>> import torch
        >>> from scipy import signal
        >>> from linrec import run
        >>> from linrec.interop import from_scipy
        >>> delay = from_scipy(signal.TransferFunction([1.0], [1.0, 0.0], dt=1))
        >>> run(delay, torch.tensor([[1.0], [2.0], [3.0]])).outputs.squeeze()
        tensor([0., 1., 2.], dtype=torch.float64)

    References:
        Kailath 1980, Linear Systems, chapter 2.
    """
    if not isinstance(system, signal.lti | signal.dlti):
        raise TypeError(
            f"`system` is of type {type(system).__name__}: expected a StateSpace, TransferFunction "
            "or ZerosPolesGain of scipy.signal. Pass matrices as `signal.StateSpace(A, B, C, D, "
            "dt=1)` (without dt: continuous), a filter as `signal.TransferFunction(b, a, dt=1)` "
            "with b and a zero-padded at the end to one length, and a system of python-control "
            "to `from_control`."
        )
    try:
        states: Any = system.to_ss()  # type: ignore[attr-defined]  # every subclass has it
    except ValueError as error:
        raise ValueError(
            f"scipy cannot write `system` in state space: {error} Expected a proper system, of no "
            "more zeros than poles. If b and a are a filter's, in powers of 1/z, then pad the "
            "shorter with zeros at the end; a discrete system that looks ahead must be delayed."
        ) from error
    return read(states, discrete=isinstance(system, signal.dlti))


def to_scipy(system: LinearRecurrence | StateSpace, dt: float | None = None) -> signal.StateSpace:
    """Convert a recurrence or a continuous system to scipy.signal.

    For a recurrence, with x[k] = x_{k-1}, so that scipy's `x0` is our `initial_state`:

        y_t = C x_t + D u_t = C A x_{t-1} + (C B + D) u_t

        A' = A        B' = B        C' = C A        D' = C B + D

    The number of states is unchanged. (`from_scipy` of the result gives the same answer, with more
    states.)

    Args:
        system: a time-invariant recurrence without batch axes, or a StateSpace. Copies are written
            out as blocks (I ⊗ A and so on), structures as dense matrices.
        dt: the length of a step of a recurrence, in any unit of time (True: not specified).
            None: 1.

    Returns:
        A `scipy.signal.StateSpace`, discrete (`dlti`) for a recurrence and continuous (`lti`) for
        a StateSpace, in float64 or complex128, sharing no memory. (scipy's `dlsim` keeps states
        in real numbers: it drops the imaginary parts of complex ones.)

    Raises:
        ValueError: the system is time-varying or has batch axes, or `dt` is not a positive number.
        TypeError: it is not a system of linrec.

    Example:
        >>> import linrec
        >>> from linrec.interop import to_scipy
        >>> average = linrec.LinearRecurrence(A=[[0.5]], B=[[0.25]])
        >>> discrete = to_scipy(average, dt=0.1)
        >>> discrete.C, discrete.D, discrete.dt
        (array([[0.5]]), array([[0.25]]), 0.1)

    References:
        Kailath 1980, Linear Systems, chapter 2.
    """
    matrices = write(system, "to_scipy")
    if isinstance(system, StateSpace):
        refuse_step(dt, "to_scipy")
        return signal.StateSpace(*matrices)
    return signal.StateSpace(*pre_update(*matrices), dt=check_step(dt))


def from_control(system: object) -> LinearRecurrence | StateSpace:
    """Convert a `StateSpace` of python-control, continuous or discrete, to one of ours.

    The matrices and states are those described in `from_scipy`.

    Args:
        system: anything with matrices A, B, C, D and with `dt`: 0 in continuous time, the length
            of a step or True in discrete time. Its type is not checked, and python-control is not
            imported. Signal names and the length of a step are dropped.

    Returns:
        A `LinearRecurrence` for a discrete system, a `StateSpace` for a continuous one, in float64
        or complex128; D = None where it is zero. A mere gain, without states, counts as a system of
        one state, which stays zero.

    Raises:
        TypeError: it lacks these attributes, as transfer functions do.
        ValueError: `dt` is None, which python-control takes for either kind of time.

    Example:
        >>> from types import SimpleNamespace
        >>> from linrec.interop import from_control
        >>> lag = SimpleNamespace(A=[[-1.0]], B=[[1.0]], C=[[2.0]], D=[[0.0]], dt=0)
        >>> from_control(lag).C
        tensor([[2.]], dtype=torch.float64)

    References:
        Fuller et al. 2021, The Python Control Systems Library.
    """
    missing = [name for name in ("A", "B", "C", "D", "dt") if not hasattr(system, name)]
    if missing:
        raise TypeError(
            f"`system` is of type {type(system).__name__}, without `{'`, `'.join(missing)}`: "
            "expected a StateSpace of python-control. Pass `control.ss(system)`, or a system of "
            "scipy to `from_scipy`."
        )
    dt = getattr(system, "dt")  # noqa: B009  # its type is not known, its attributes are
    if dt is None:
        raise ValueError(
            "`system.dt` is None, which says neither continuous nor discrete: expected 0 for "
            "continuous time, True or the length of a step for discrete time. Set "
            "`system.dt = True`, or pass a continuous system of scipy to `from_scipy`."
        )
    return read(system, discrete=dt is True or dt != 0)


def to_control(system: LinearRecurrence | StateSpace, dt: float | None = None) -> Any:
    """Convert a recurrence or a continuous system to a `StateSpace` of python-control.

    The matrices and states are those described in `to_scipy`. This is the only function that
    imports python-control, which linrec does not depend on.

    Args:
        system: a real, time-invariant recurrence without batch axes, or a StateSpace.
        dt: the length of a step of a recurrence, in any unit of time (True: not specified).
            None: 1.

    Returns:
        A `control.StateSpace` in float64, sharing no memory, with as many states as `system`.

    Raises:
        ValueError: the system is time-varying, complex or has batch axes, or `dt` is not a positive
            number.
        TypeError: it is not a system of linrec.
        ImportError: python-control is not installed.

    Example:
        >>> import linrec
        >>> from linrec.interop import to_control
        >>> average = linrec.LinearRecurrence(A=[[0.5]], B=[[0.25]])
        >>> to_control(average).C  # doctest: +SKIP
        array([[0.5]])

    References:
        Fuller et al. 2021, The Python Control Systems Library.
    """
    matrices = write(system, "to_control")
    if any(np.iscomplexobj(matrix) for matrix in matrices):
        # It would cast them to real numbers with no more than a warning.
        raise ValueError(
            f"`system` has dtype {system.dtype}, and python-control holds real matrices only: "
            "expected a real system. Pass it to `to_scipy`, which keeps complex ones."
        )
    if isinstance(system, StateSpace):
        refuse_step(dt, "to_control")
        step: float = 0
    else:
        matrices, step = pre_update(*matrices), check_step(dt)
    try:
        control: Any = importlib.import_module("control")
    except ImportError as error:
        raise ImportError(
            "`to_control` needs python-control, which is not installed. Type "
            "`pip install control`, or use `to_scipy`, which needs nothing."
        ) from error
    # Explicit, since a user's defaults can make control drop states.
    return control.StateSpace(*matrices, step, remove_useless_states=False)


def pre_update(A: np.ndarray, B: np.ndarray, C: np.ndarray, D: np.ndarray) -> list[np.ndarray]:
    """Rewrite a recurrence to read the state before each step (see `to_scipy`)."""
    return [A, B, C @ A, C @ B + D]


def read(system: Any, *, discrete: bool) -> LinearRecurrence | StateSpace:
    """Build one of our systems from copies of a foreign system's matrices."""
    arrays = [np.asarray(matrix) for matrix in (system.A, system.B, system.C, system.D)]
    kind = np.complex128 if any(map(np.iscomplexobj, arrays)) else np.float64
    A, B, C, D = (tensor_of(np.array(array, kind, order="C")) for array in arrays)
    if not len(A):  # a gain has no states there, but at least one here
        A, B, C = A.new_zeros(1, 1), B.new_zeros(1, D.shape[1]), C.new_zeros(D.shape[0], 1)
    through = D if bool((D != 0).any()) else None
    return from_pre_update(A, B, C, through) if discrete else StateSpace(A, B, C, through)


def write(system: LinearRecurrence | StateSpace, verb: str) -> list[np.ndarray]:
    """Write A, B, C and D out in double precision, copies as blocks; refuse batches."""
    check_invariant(system, verb)
    if system.batch_shape:
        raise ValueError(
            f"`system` has batch axes {show(system.batch_shape)}: expected a single system. Pass "
            "one at a time, made of the matrices of one index: "
            f"`{verb}({type(system).__name__}(system.A[0], …))`."
        )
    dtype = double_dtype(system.dtype)
    A = system.A.to(dtype).to_dense()  # cast first: the product of two halves does not fit a half
    identity = torch.eye(A.shape[-1], device="cpu")
    B = identity if system.B is None else system.B
    C = identity if system.C is None else system.C
    D = torch.zeros(C.shape[0], B.shape[1], device="cpu") if system.D is None else system.D
    copies = system.copies if isinstance(system, LinearRecurrence) else 1
    arrays = [matrix.to(dtype).numpy(force=True) for matrix in (A, B, C, D)]
    return [np.asarray(linalg.block_diag(*[array] * copies)) for array in arrays]


def check_step(dt: float | None) -> float:
    """Check the length of a step: None becomes 1, and True (unspecified) stays."""
    if dt is None:
        return 1.0
    if not isinstance(dt, Real) or not 0 < dt < math.inf:
        raise ValueError(
            f"`dt` is {dt!r}: expected a positive number, the length of a step. Pass `dt=1`, or "
            "`dt=True` where it is not to be specified."
        )
    return dt if dt is True else float(dt)


def refuse_step(dt: float | None, verb: str) -> None:
    """Refuse the length of a step for a continuous system."""
    if dt is not None:
        raise ValueError(
            f"`dt` is {dt!r} and `system` a StateSpace, which is in continuous time: expected "
            f"None. To sample it, pass `{verb}(discretize(system, {dt!r}), {dt!r})`."
        )
