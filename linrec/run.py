"""Run a recurrence: all steps, the last step or one step."""

from torch import Tensor

from linrec._call import prepare_call
from linrec._call.half_precision import run_in_halves
from linrec.executors import Executor, Plan, Result
from linrec.planner import Auto
from linrec.resets import check_resets, with_resets
from linrec.systems import LinearRecurrence


def run(
    recurrence: LinearRecurrence,
    inputs: Tensor,
    initial_state: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    resets: Tensor | None = None,
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
        lengths (*batch): how many steps of each right-padded sequence are its own. The padding may
            hold anything, NaN included: it reaches no output, state or gradient. (In an unstable
            system, powers of A up to the padded length may overflow, which does harm in every
            executor but `Recurrent`.)
        resets (*batch, time): True where the state is forgotten before a step, as in `with_resets`,
            which explains what happens to A; `run_packed` keeps a dense system time-invariant.
            None: nowhere.
        executor: how it is run; `Auto` chooses by estimated time.
        plan: the result of `executor.prepare(recurrence, time)` for the same recurrence, to save
            preparing it again. `Auto` follows the executor that made it.

    Returns:
        `outputs (*batch, time, p)`, zero past a sequence's length, and `final_state (*batch, n)`,
        the state at each sequence's own end. Both are contiguous, whatever the strides of the
        inputs, and share no memory with each other or with what was passed.

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
    if resets is not None:
        recurrence = with_resets(recurrence, check_resets(resets, inputs))
    if lengths is None and plan is None:
        found = run_in_halves(recurrence, inputs, initial_state, executor)
        if found is not None:
            return found
    return prepare_call(recurrence, inputs, initial_state, lengths).run(executor, plan)


def final(
    recurrence: LinearRecurrence,
    inputs: Tensor,
    initial_state: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    resets: Tensor | None = None,
    executor: Executor = Auto(),
    plan: Plan | None = None,
) -> Result:
    """Compute the last step only, avoiding the storage of all states where possible.

        x_{T-1} = A^T x_{-1} + Σ_s A^(T-1-s) B u_s        y_{T-1} = C x_{T-1} + D u_{T-1}

    Args:
        recurrence: the system.
        inputs (*batch, time, m): u.
        initial_state (*batch, n): the state before the first step. None: zeros.
        lengths (*batch): how many steps of each right-padded sequence are its own; the last of them
            is its last step. (In an unstable system whose A is trained, gradients may overflow
            where the padding is long, in `Recurrent` too.)
        resets (*batch, time): True where the state is forgotten before a step. None: nowhere.
        executor: how it is run; `Auto` chooses by estimated time.
        plan: the result of `executor.prepare(recurrence, time)`, to save preparing it again.

    Returns:
        `outputs (*batch, p)` of the last step (zero where there is none), and `final_state (*batch,
        n)`.

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
    if resets is not None:
        recurrence = with_resets(recurrence, check_resets(resets, inputs))
    return prepare_call(recurrence, inputs, initial_state, lengths).run_last(executor, plan)


def step(recurrence: LinearRecurrence, input: Tensor, state: Tensor | None = None) -> Result:
    """Run one step, for streaming; equivalent to `run` on one step.

    Args:
        recurrence: the system; for a time-varying one pass `recurrence.at(t)`, the system at the
            step.
        input (*batch, m): u_t.
        state (*batch, n): x_{t-1}, the `state` returned by the step before. None: zeros.

    Returns:
        `outputs (*batch, p)` and `state (*batch, n)`.

    Raises:
        ValueError, TypeError: as `run` does.

    Example:
        >>> import torch, linrec
        >>> average = linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]])
        >>> first = linrec.step(average, torch.ones(1))
        >>> linrec.step(average, torch.ones(1), first.state).outputs
        tensor([0.7500])
    """
    return prepare_call(recurrence, input, state, core=1).run_step()
