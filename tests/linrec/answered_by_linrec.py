"""A pytest plugin that replaces functions of scipy.signal by linrec's while scipy's tests run.

`pytest -p tests.linrec.answered_by_linrec --pyargs scipy.signal.tests.test_dltisys` runs them, the
executor named in LINREC_EXECUTOR. What is thin about it: arrays become tensors and back, and what
scipy does to arguments before it computes (transfer functions to state space, interpolation of
inputs, axes of results) is done here as there. What is computed is computed by linrec.
"""

import functools
import importlib
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import linrec
import linrec.signal
from linrec.interop import from_pre_update, run_pre_update
from tests.cases import EXECUTORS

EXECUTOR = EXECUTORS[os.environ.get("LINREC_EXECUTOR", "recurrent")]
TAKEN = "fdFD"  # the dtypes that torch has as well
scipys: dict[str, Any] = {}  # what is answered otherwise, by name
signal: Any = importlib.import_module("scipy.signal")


calls: Counter[str] = Counter()  # to linrec's functions, and from them on to scipy's


def counted(kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, whose calls are counted."""

    @functools.wraps(function)
    def counting(*arguments: Any, **named: Any) -> Any:
        calls[kind] += 1
        return function(*arguments, **named)

    return counting


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many calls linrec has answered."""
    terminalreporter.write_line(f"{calls['asked'] - calls['handed on']} answered by linrec")


def tensor(array: Any) -> Any:
    """Take an array as it is, read-only and reversed ones copied."""
    return None if array is None else torch.from_numpy(np.array(array, order="C"))


def handed_on(*arrays: Any) -> bool:
    """Whether scipy answers: objects, extended precision and what is refused for its dtype."""
    given = [np.asarray(array) for array in arrays if array is not None]
    return np.result_type(*given).char not in TAKEN


def numpy(result: Any) -> Any:
    if isinstance(result, tuple):
        return tuple(numpy(each) for each in result)
    return result.numpy()


def lfilter(b: Any, a: Any, x: Any, axis: int = -1, zi: Any = None) -> Any:
    if handed_on(b, a, x, zi):
        return scipys["lfilter"](b, a, x, axis, zi)
    answer: Any = linrec.signal.lfilter
    return numpy(answer(tensor(b), tensor(a), tensor(x), axis, tensor(zi), executor=EXECUTOR))


def sosfilt(sos: Any, x: Any, axis: int = -1, zi: Any = None) -> Any:
    if handed_on(sos, x, zi):
        return scipys["sosfilt"](sos, x, axis, zi)
    answer: Any = linrec.signal.sosfilt
    return numpy(answer(tensor(sos), tensor(x), axis, tensor(zi), executor=EXECUTOR))


def lfilter_zi(b: Any, a: Any) -> Any:
    if handed_on(b, a):
        return scipys["lfilter_zi"](b, a)
    return numpy(linrec.signal.lfilter_zi(tensor(b), tensor(a)))


def sosfilt_zi(sos: Any) -> Any:
    if handed_on(sos):
        return scipys["sosfilt_zi"](sos)
    return numpy(linrec.signal.sosfilt_zi(tensor(sos)))


def lfiltic(b: Any, a: Any, y: Any, x: Any = None) -> Any:
    if handed_on(b, a, y, x):
        return scipys["lfiltic"](b, a, y, x)
    return numpy(linrec.signal.lfiltic(tensor(b), tensor(a), tensor(y), tensor(x)))


def doubles(*matrices: Any) -> list[torch.Tensor]:
    arrays = [np.asarray(matrix) for matrix in matrices]
    kind = complex if any(map(np.iscomplexobj, arrays)) else float
    return [torch.from_numpy(np.array(array, kind, order="C")) for array in arrays]


def cont2discrete(system: Any, dt: Any, method: str = "zoh", alpha: Any = None) -> Any:
    if callable(getattr(system, "to_discrete", None)) or len(system) != 4:
        return scipys["cont2discrete"](system, dt, method, alpha)  # which asks here again
    sampled = linrec.discretize(linrec.StateSpace(*doubles(*system)), dt, method, alpha=alpha)
    arrays = [None if each is None else each.numpy() for each in (sampled.C, sampled.D)]
    # What is read as before keeps its dtype there, whole numbers too.
    kept = [
        given if new is None or np.array_equal(new, given) else new
        for new, given in zip(arrays, map(np.asarray, system[2:]), strict=True)
    ]
    assert sampled.B is not None
    return sampled.A.to_dense().numpy(), sampled.B.numpy(), *kept, dt


def states_and_outputs(A: Any, B: Any, C: Any, D: Any, u: Any, x0: Any) -> Any:
    """Run a pre-update system for its outputs, and for its states."""
    A, B, C, D, u, x0 = doubles(A, B, C, D, u, x0)
    outputs = run_pre_update(A, B, C, D, u, x0, executor=EXECUTOR).outputs.numpy()
    return run_pre_update(A, B, None, None, u, x0, executor=EXECUTOR).outputs.numpy(), outputs


def dlsim(system: Any, u: Any, t: Any = None, x0: Any = None) -> Any:
    if isinstance(system, signal.lti):
        return scipys["dlsim"](system, u, t, x0)
    system = system if isinstance(system, signal.dlti) else signal.dlti(*system[:-1], dt=system[-1])
    states = system.to_ss()
    u = np.atleast_1d(u)
    u = u[:, None] if u.ndim == 1 else u
    stop = (len(u) - 1) * states.dt if t is None else t[-1]
    times = np.linspace(
        0.0, stop, num=int(np.floor(stop / states.dt)) + 1 if t is not None else len(u)
    )
    if t is not None:
        u = np.stack([np.interp(times, t, column) for column in u.T], -1)
    x0 = np.broadcast_to(0.0 if x0 is None else np.asarray(x0, float), len(states.A))
    if not len(states.A):  # a gain
        x, y = np.zeros((len(u), 0)), u @ states.D.T
    else:
        x, y = states_and_outputs(states.A, states.B, states.C, states.D, u, x0)
    return (times, y, x) if isinstance(system, signal.StateSpace) else (times, y)


def lsim(system: Any, U: Any, T: Any, X0: Any = None, interp: bool = True) -> Any:
    T = np.atleast_1d(T)
    plain = isinstance(system, signal.dlti) or T.ndim != 1 or T.size == 1 or T[0] != 0
    if plain or not np.allclose(np.diff(T), T[1] - T[0]):
        return scipys["lsim"](system, U, T, X0, interp)  # refused, or nothing to run
    states = (system if isinstance(system, signal.lti) else signal.lti(*system)).to_ss()
    n, m = states.B.shape
    if not n:
        return scipys["lsim"](system, U, T, X0, interp)
    no_input = U is None or not np.any(U)
    U = np.zeros((len(T), m)) if U is None or no_input else np.atleast_1d(U)
    U = U[:, None] if U.ndim == 1 else U
    if U.shape != (len(T), m):
        return scipys["lsim"](system, U, T, X0, interp)
    A, B, C, D, U, X0 = doubles(
        states.A, states.B, states.C, states.D, U, np.zeros(n) if X0 is None else X0
    )
    continuous = linrec.StateSpace(A, B, torch.eye(n, dtype=A.dtype), torch.zeros_like(B))
    held = linrec.discretize(continuous, float(T[1] - T[0]), "foh" if interp else "zoh")
    # The states of "foh" lack what the input of their own moment will add: x - D u.
    start = X0 - held.D @ U[0]
    x = run_pre_update(held.A, held.B, None, held.D, U, start, executor=EXECUTOR).outputs
    return T, np.squeeze((x @ C.mT + U @ D.mT).numpy()), np.squeeze(x.numpy())


def dfreqresp(system: Any, w: Any = None, n: int = 10000, whole: bool = False) -> Any:
    points, expected = scipys["dfreqresp"](system, w, n, whole)  # refuses what it refuses
    system = system if isinstance(system, signal.dlti) else signal.dlti(*system[:-1], dt=system[-1])
    states = system.to_ss()
    if not len(states.A):
        return points, expected
    recurrence = from_pre_update(*doubles(states.A, states.B, states.C, states.D))
    response = linrec.frequency_response(recurrence, torch.as_tensor(np.asarray(points, float)))
    return points, response.numpy().reshape(np.shape(expected))


ANSWERS = (lfilter, sosfilt, lfilter_zi, sosfilt_zi, lfiltic, cont2discrete, dlsim, lsim, dfreqresp)
MODULES = (
    "scipy.signal",
    "scipy.signal._signaltools",
    "scipy.signal._ltisys",
    "scipy.signal._lti_conversion",
)


def pytest_configure() -> None:
    """Put the answers in place, before the modules of the tests import them."""
    capabilities = importlib.import_module("scipy._lib._array_api").xp_capabilities_table
    for function in ANSWERS:
        theirs, answer = getattr(signal, function.__name__), counted("asked", function)
        # (dfreqresp asks scipy for the points alone.)
        handed = theirs if function is dfreqresp else counted("handed on", theirs)
        scipys[function.__name__] = handed
        if theirs in capabilities:  # which its tests look up
            capabilities[answer] = capabilities[theirs]
        for module in map(importlib.import_module, MODULES):
            if hasattr(module, function.__name__):
                setattr(module, function.__name__, answer)
