"""The verbs: all steps, the last step, one step."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from linrec._checks import check_axes, check_tensor, is_computed
from linrec.call import Call, arrange
from linrec.executors import Executor, Plan, Result
from linrec.planner import Auto
from linrec.systems import LinearRecurrence

# The dtypes that sums are kept in.
PLAIN = (torch.float32, torch.float64, torch.complex64, torch.complex128)

# The types of device that have an autocast (before torch 2.12 Dynamo cannot trace the question).
CASTING = tuple(
    device
    for device in ("cpu", "cuda", "mps", "xpu", "hpu", "xla", "ipu", "mtia", "maia")
    if torch.amp.is_autocast_available(device)
)

# The axes of one matrix.
MATRICES = {"B": 2, "C": 2, "D": 2}


def run(
    recurrence: LinearRecurrence,
    inputs: Tensor,
    initial_state: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    executor: Executor = Auto(),
    plan: Plan | None = None,
) -> Result:
    """Run a recurrence over all steps.

        x_t = A x_{t-1} + B u_t        y_t = C x_t + D u_t        t = 0 … T-1

    Every executor gives the same outputs, final state and gradients (in everything), within its
    error bound. Half-precision inputs are accumulated in float32.

    Args:
        recurrence: the system.
        inputs (*batch, time, m): u, of any length, 0 included.
        initial_state (*batch, n): the state before the first step. None: zeros.
        lengths (*batch): how many steps of each right-padded sequence are its own. What stands
            past them may be anything, NaN included: it reaches no output, state or gradient.
            (Of an unstable system, powers of A up to the padded length may overflow, and do harm
            in every executor but `Recurrent`.)
        executor: how it is run; `Auto` chooses by estimated time.
        plan: what `executor.prepare(recurrence, time)` made of the same recurrence, to save making
            it again. `Auto` follows the executor that made it.

    Returns:
        `outputs (*batch, time, p)`, zero past a sequence's length, and `final_state (*batch, n)`,
        the state at each sequence's own end.

    Raises:
        ValueError: shapes do not fit, the executor cannot run the recurrence, or the plan is not
            for this call.
        TypeError: an argument is not a floating-point or complex tensor.

    Example:
        >>> import torch, linrec
        >>> average = linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]])
        >>> linrec.run(average, torch.ones(2, 1))
        Result(outputs=tensor([[0.5000],
                [0.7500]]), final_state=tensor([0.7500]))

    References:
        Chilkuri and Eliasmith 2021, eqs 19, 24 and 26.
    """
    call = arrange(recurrence, inputs, initial_state, lengths)
    with full_precision(inputs):
        return call.finish(*call.all_steps(executor, plan))


def final(
    recurrence: LinearRecurrence,
    inputs: Tensor,
    initial_state: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    executor: Executor = Auto(),
    plan: Plan | None = None,
) -> Result:
    """Run a recurrence for its last step only, without all its states where that can be avoided.

        x_{T-1} = A^T x_{-1} + Σ_s A^(T-1-s) B u_s        y_{T-1} = C x_{T-1} + D u_{T-1}

    Args:
        recurrence: the system.
        inputs (*batch, time, m): u.
        initial_state (*batch, n): the state before the first step. None: zeros.
        lengths (*batch): how many steps of each right-padded sequence are its own; the last of
            them is its last step.
        executor: how it is run; `Auto` chooses by estimated time.
        plan: what `executor.prepare(recurrence, time)` made, to save making it again.

    Returns:
        `outputs (*batch, p)`, those of the last step (zero where there is none), and
        `final_state (*batch, n)`.

    Raises:
        ValueError, TypeError: as `run` does.

    Example:
        >>> import torch, linrec
        >>> average = linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]])
        >>> linrec.final(average, torch.ones(2, 1)).outputs
        tensor([0.7500])

    References:
        Chilkuri and Eliasmith 2021, eq. 25.
    """
    call = arrange(recurrence, inputs, initial_state, lengths)
    with full_precision(inputs):
        return call.finish(*call.last_step(executor, plan))


def step(recurrence: LinearRecurrence, input: Tensor, state: Tensor | None = None) -> Result:
    """Run one step, for streaming; equal to `run` on one step.

    Args:
        recurrence: the system; of a time-varying one, that of the step, `recurrence.at(t)`.
        input (*batch, m): u_t.
        state (*batch, n): x_{t-1}, the `final_state` of the step before. None: zeros.

    Returns:
        `outputs (*batch, p)` and `final_state (*batch, n)`.

    Raises:
        ValueError, TypeError: as `run` does.

    Example:
        >>> import torch, linrec
        >>> average = linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]])
        >>> first = linrec.step(average, torch.ones(1))
        >>> linrec.step(average, torch.ones(1), first.final_state).outputs
        tensor([0.7500])
    """
    if state is not None and is_plain(recurrence, input, state, 1):
        after = recurrence.A.apply(state) + recurrence.drive(input)
        outputs = recurrence.read(after, input)
        return Result(outputs, after.clone() if outputs is after else after)
    input = check_tensor("input", input)
    check_axes("input", input, 1, "(*batch, m), one step without an axis of time")
    call = arrange(recurrence, input.unsqueeze(-2), state, None)
    with full_precision(input):
        now = call.system.at(0)
        vector = call.inputs.squeeze(-2)
        before = call.start()
        after = now.A.apply(before) + now.drive(vector)
        return call.finish(now.read(after, vector), after)


def is_plain(recurrence: LinearRecurrence, inputs: object, state: object, core: int) -> bool:
    """Whether a call needs no arranging: one system, one dtype and device, the sizes that fit.

    To find out takes a fifth of the time that `arrange` does; small calls are made of little else.

    Args:
        recurrence: the system.
        inputs (*batch, [time,] m): u.
        state (*batch, n): the initial state, or None.
        core: how many axes of the inputs are not batch axes.
    """
    if not isinstance(inputs, Tensor) or not is_computed(inputs) or recurrence.copies > 1:
        return False
    if inputs.ndim < core:
        return False
    A, B, dtype, device = recurrence.A, recurrence.B, inputs.dtype, inputs.device
    if dtype not in PLAIN or recurrence.time_varying or under_autocast(device.type):
        return False
    for matrices, axes in ((A, A.core_axes), (recurrence, MATRICES)):
        for name, own in axes.items():
            leaf: Tensor | None = getattr(matrices, name)
            if leaf is None:
                continue
            if leaf.ndim != own or leaf.dtype != dtype or leaf.device != device:
                return False
    n = A.state_size
    if inputs.shape[-1] != (n if B is None else B.shape[-1]):
        return False
    if state is None:
        return True
    if not isinstance(state, Tensor) or state.dtype != dtype or state.device != device:
        return False
    return is_computed(state) and state.shape == (*inputs.shape[:-core], n)


def run_kept(
    recurrence: LinearRecurrence,
    inputs: Tensor,
    initial_state: Tensor | None,
    lengths: Tensor | None,
    executor: Executor,
    plan: Plan | None,
    last_only: bool,
) -> Result:
    """As `run` and `final`, with a plan that its keeper has just compared with the recurrence."""
    plain = plan is not None and lengths is None
    if plain and is_plain(recurrence, inputs, initial_state, 2):
        system = recurrence
        call = Call(system, system, system, inputs, initial_state, None, inputs.dtype)
    else:
        call = arrange(recurrence, inputs, initial_state, lengths)
    way = call.last_step if last_only else call.all_steps
    with full_precision(inputs):
        return call.finish(*way(executor, plan, compared=True))


def full_precision(tensor: Tensor) -> AbstractContextManager[object]:
    """Switch autocast off, which would multiply in half precision."""
    device = tensor.device.type
    return torch.autocast(device, enabled=False) if under_autocast(device) else nullcontext()


def under_autocast(device: str) -> bool:
    """Whether autocast is on for a type of device; there are some that have none, as "meta"."""
    return device in CASTING and torch.is_autocast_enabled(device)
