"""The base of executors that convolve with the impulse response, and their kernels."""

from collections.abc import Mapping

from torch import Tensor

from linrec._tensors.annotated import unflatten
from linrec._tensors.devices import in_double
from linrec._tensors.open_sizes import is_open
from linrec.executors.base import Executor, Plan, Result
from linrec.executors.prepare import Prepared
from linrec.powers import Powers, free_response, impulse_kernel, matrix_power, state_kernel
from linrec.structures import matvec
from linrec.systems import LinearRecurrence


def kernels(
    system: LinearRecurrence, powers: Powers, own: LinearRecurrence, length: int
) -> Prepared:
    """Compute the kernels of a convolution.

    Args:
        system: one copy of the system.
        powers: the powers of its A in double precision.
        own: the same copy in the recurrence's own coordinates.
        length: the number of steps.

    Returns:
        "last" (*batch, length·m, n): the state kernel, latest first: the last row of the Toeplitz
        matrix. "outputs" (*batch, length, m, p): the impulse response, where it differs.
    """
    states = state_kernel(system, length, powers)
    tensors = {"last": states.flip(-3).flatten(-3, -2)}
    outputs = impulse_kernel(system, states, own)
    return Prepared(tensors if outputs is states else tensors | {"outputs": outputs})


def output_kernel_of(tensors: Mapping[str, Tensor], length: int) -> Tensor:
    """Return the outputs' kernel `(*batch, length, m, p)`: the state kernel if states are the
    outputs."""
    if "outputs" in tensors:
        return tensors["outputs"]
    return unflatten(tensors["last"], -2, (length, -1)).flip(-3)


def driven_state(plan: Plan, inputs: Tensor) -> Tensor:
    """Compute the last state due to the inputs alone, Σ_s A^(T-1-s) B u_s, in one product."""
    return matvec(plan["last"].mT, inputs.flatten(-2))


def last_state(
    recurrence: LinearRecurrence, plan: Plan, inputs: Tensor, state: Tensor | None
) -> Tensor:
    """Compute the last state, A^T x + Σ_s A^(T-1-s) B u_s."""
    driven = driven_state(plan, inputs)
    if state is None:
        return driven
    if is_open(plan.length):  # it has no binary digits
        return driven + free_response(recurrence.A, state, plan.length)[..., -1, :]
    power = matrix_power(in_double(recurrence.A), plan.length).to(recurrence.dtype)
    return driven + power.to(state.device).apply(state)


def add_free_motion(
    recurrence: LinearRecurrence, plan: Plan, outputs: Tensor, inputs: Tensor, state: Tensor | None
) -> Result:
    """Add the response to the initial state to that to the inputs."""
    driven = driven_state(plan, inputs)
    if state is None:
        return Result(outputs, driven)
    states = free_response(recurrence.A, state, plan.length)
    C = recurrence.over_time().C
    free = states if C is None else matvec(C, states)
    return Result(outputs + free, driven + states[..., -1, :])


class KernelExecutor(Executor):
    """An executor of time-invariant systems that convolves with the impulse response.

    Its plans hold what `kernels` computes, at least "last".
    """

    def why_not(self, recurrence: LinearRecurrence, length: int) -> str | None:
        """Refuse time-varying systems, which have no single impulse response."""
        if recurrence.time_varying:
            return "its matrices change from step to step, so that no one kernel describes it"
        return None

    def final_state(
        self, recurrence: LinearRecurrence, plan: Plan, inputs: Tensor, state: Tensor | None
    ) -> Tensor:
        """Multiply all inputs by the last row of the matrix, [A^(T-1) B … B]: no convolution."""
        return last_state(recurrence, plan, inputs, state)
