"""The impulse response as executors use it: of states and outputs, last step and free motion."""

from torch import Tensor

from linrec._checks import accumulation_dtype, double_dtype
from linrec.executors.base import Cost, Plan, Result, Workload
from linrec.powers import free_response, matrix_power, output_kernel, state_kernel
from linrec.structures import matvec
from linrec.systems import LinearRecurrence


def kernels(recurrence: LinearRecurrence, length: int) -> dict[str, Tensor]:
    """Compute what a convolution needs, in the precision of the run.

    Returns:
        "last" (*batch, length·m, n): the state kernel, latest first: the last row of the Toeplitz
        matrix. "outputs" (*batch, length, m, p): the impulse response, where it is another.
    """
    dtype = accumulation_dtype(recurrence.dtype)
    states = state_kernel(recurrence, length)
    tensors = {"last": states.flip(-3).flatten(-3, -2).to(dtype)}
    outputs = output_kernel(recurrence, states)
    return tensors if outputs is states else tensors | {"outputs": outputs.to(dtype)}


def states_of(plan: Plan) -> Tensor:
    """Turn "last" back into a kernel `(*batch, length, m, n)`: the outputs' if they are states."""
    return plan["last"].unflatten(-2, (plan.length, -1)).flip(-3)


def driven_state(plan: Plan, inputs: Tensor) -> Tensor:
    """Compute the last state that inputs alone give, Σ_s A^(T-1-s) B u_s, in one product."""
    return matvec(plan["last"].mT, inputs.flatten(-2))


def last_state(
    recurrence: LinearRecurrence, plan: Plan, inputs: Tensor, state: Tensor | None
) -> Tensor:
    """Compute the last state, A^T x + Σ_s A^(T-1-s) B u_s."""
    driven = driven_state(plan, inputs)
    if state is None:
        return driven
    power = matrix_power(recurrence.A.to(double_dtype(recurrence.dtype)), plan.length)
    return driven + power.to(recurrence.dtype).apply(state)


def last_cost(work: Workload) -> Cost:
    """Estimate one product of T·m by n for each sequence."""
    terms = work.steps * work.inputs * work.states
    return Cost(2.0 * work.batch * terms, work.itemsize * work.systems * terms, 3)


def add_free_motion(
    recurrence: LinearRecurrence, plan: Plan, outputs: Tensor, inputs: Tensor, state: Tensor | None
) -> Result:
    """Add what an initial state gives without inputs to what inputs give from a zero state."""
    driven = driven_state(plan, inputs)
    if state is None:
        return Result(outputs, driven)
    states = free_response(recurrence.A, state, plan.length)
    C = recurrence.over_time().C
    free = states if C is None else matvec(C, states)
    return Result(outputs + free, driven + states[..., -1, :])
