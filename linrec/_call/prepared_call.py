"""Prepare the call of an executor: check and cast the arguments, make copies a batch axis."""

# pyright: reportUnnecessaryIsInstance=false
# (Callers without types are checked too.)

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from linrec._call.arguments import (
    check_inputs,
    check_state,
    needs_no_change,
    zero_padded_matrices,
)
from linrec._tensors.annotated import unflatten
from linrec._tensors.autograd import records_gradient
from linrec._tensors.dtypes import accumulation_dtype, common_dtype
from linrec._tensors.exact_gradients import keep_digits
from linrec._tensors.full_precision import full_precision, loses_digits
from linrec._tensors.known_values import has_values
from linrec._tensors.open_sizes import is_open
from linrec._tensors.shapes import broadcast
from linrec.executors import Executor, Plan, Recurrent, Result
from linrec.lengths import (
    align_ends,
    check_lengths,
    last_step,
    length_mask,
    max_length,
    zero_padding,
)
from linrec.powers import free_response, power_each
from linrec.systems import LinearRecurrence, require_recurrence


@dataclass(eq=False, slots=True)  # (frozen ones take three times as long to make)
class PreparedCall:
    """The arguments of `run`, `final` and `step` as executors take them.

    Attributes:
        given: the recurrence as the caller gave it.
        cast: the recurrence in the dtype of the computation.
        system: one copy of `cast`, with a batch axis for the copies.
        inputs (*batch, [copies,] time, m): u, zero past the lengths; without time for `step`.
        state (*batch, [copies,] n): the state before the first step, or None.
        lengths (*batch, [1]): the steps of each sequence, or None.
        result_dtype: the dtype of the outputs.
    """

    given: LinearRecurrence
    cast: LinearRecurrence
    system: LinearRecurrence
    inputs: Tensor
    state: Tensor | None
    lengths: Tensor | None
    result_dtype: torch.dtype

    @property
    def steps(self) -> int:
        """The number of steps, T."""
        return self.inputs.shape[-2]

    @property
    def batch_shape(self) -> torch.Size:
        """The batch axes of the sequences, without the axis of the copies."""
        return self.inputs.shape[: -2 if self.given.copies == 1 else -3]

    def start(self) -> Tensor:
        """Return the state before the first step."""
        return self.zero_state() if self.state is None else self.state

    def zero_state(self) -> Tensor:
        """Make a state of zeros for each sequence."""
        return self.inputs.new_zeros(*self.inputs.shape[:-2], self.system.A.state_size)

    def run(self, executor: Executor, plan: Plan | None, *, compared: bool = False) -> Result:
        """Run all steps, each sequence to its own end.

        Args:
            executor: the executor to use.
            plan: its plan, or None.
            compared: whether the plan's owner has just compared it with the recurrence.
        """
        with full_precision(self.inputs):
            result = self.finish(*self.run_all(executor, plan, compared))
        return self.with_exact_gradients(result)

    def run_all(self, executor: Executor, plan: Plan | None, compared: bool) -> Result:
        """Run all steps, in the form that executors take."""
        if 0 in self.inputs.shape[:-1]:  # no step or no sequence: only the shape matters
            timed, before = self.system.over_time(), self.start().unsqueeze(-2)
            states = timed.A.apply(before.expand(*self.inputs.shape[:-1], -1))
            states = states + timed.drive(self.inputs)  # the graph must reach all of the system
            return Result(timed.read(states, self.inputs), self.start())
        plan = self.choose_plan(executor, plan, False, compared)
        outputs, state = self.in_coordinates_of(plan).execute(plan)
        if self.has_overflowed(plan.executor, state):
            return self.run_all(Recurrent(), None, False)
        return Result(outputs, self.restore_state(plan, state))

    def execute(self, plan: Plan) -> Result:
        """Run all steps in the coordinates of the plan."""
        executor = plan.executor
        if self.lengths is None:
            return executor.execute(self.system, plan, self.inputs, self.state)
        if self.system.time_varying:
            states = self.system.rebuilt(self.system.A, self.system.B, None, None)
            passed = executor.execute(states, plan, self.inputs, self.state).outputs
            outputs = self.system.over_time().read(passed, self.inputs)
            last = last_step(passed, self.lengths, self.start())
            return Result(self.zero_padding(outputs), last)
        outputs = executor.execute(self.system, plan, self.inputs, self.state).outputs
        if self.system.C is None and self.system.D is None:
            state = last_step(outputs, self.lengths, self.start())
        else:
            state = self.reach_ends(plan)
        return Result(self.zero_padding(outputs), state)

    def run_last(self, executor: Executor, plan: Plan | None, *, compared: bool = False) -> Result:
        """Compute the last outputs and state of each sequence; arguments as for `run`."""
        with full_precision(self.inputs):
            result = self.finish(*self.run_to_ends(executor, plan, compared))
        return self.with_exact_gradients(result)

    def run_to_ends(self, executor: Executor, plan: Plan | None, compared: bool) -> Result:
        """Run to each sequence's own end, in the form that executors take."""
        if 0 in self.inputs.shape[:-1]:  # no step or no sequence: only the shape matters
            size = self.given.output_size // self.given.copies
            return Result(self.inputs.new_zeros(*self.inputs.shape[:-2], size), self.start())
        if self.lengths is not None and self.system.time_varying:
            outputs, state = self.run_all(executor, plan, compared)
            return Result(last_step(outputs, self.lengths), state)
        plan = self.choose_plan(executor, plan, True, compared)
        outputs, state = self.in_coordinates_of(plan).execute_last(plan)
        if self.has_overflowed(plan.executor, state):
            return self.run_to_ends(Recurrent(), None, False)
        return Result(outputs, self.restore_state(plan, state))

    def execute_last(self, plan: Plan) -> Result:
        """Compute the last step in the coordinates of the plan."""
        if self.lengths is None:
            state = plan.executor.final_state(self.system, plan, self.inputs, self.state)
            last_input = self.inputs.select(-2, -1)
            return Result(self.system.at(self.steps - 1).read(state, last_input), state)
        state = self.reach_ends(plan)
        outputs = self.system.read(state, last_step(self.inputs, self.lengths))
        return Result(torch.where(self.lengths.unsqueeze(-1) > 0, outputs, 0), state)

    def run_step(self) -> Result:
        """Run one step of inputs without an axis of time."""
        if loses_digits(self.inputs):  # (checked here, since entering a context takes time too)
            with full_precision(self.inputs):
                result = self.compute_step()
        else:
            result = self.compute_step()
        return self.with_exact_gradients(result)

    def compute_step(self) -> Result:
        """Compute one step of inputs without an axis of time."""
        system, inputs, state = self.system, self.inputs, self.state
        if state is None:
            state = inputs.new_zeros(*inputs.shape[:-1], system.A.state_size)
        after = system.A.apply(state) + system.drive(inputs)
        outputs = system.read(after, inputs)
        return self.finish(outputs, after, fresh=outputs is not after)

    def with_exact_gradients(self, result: Result) -> Result:
        """Make autograd compute the gradients of a result with all digits of its dtype."""
        if result.outputs.requires_grad or result.final_state.requires_grad:
            keep_digits(result, lambda: (self.inputs, self.state, *self.given.tensors()))
        return result

    def choose_plan(
        self, executor: Executor, plan: Plan | None, last_only: bool, compared: bool
    ) -> Plan:
        """Return the plan of the call, with its executor; refuse an executor that cannot run it.

        An infinite power times a zero state is NaN, though the recurrence itself is finite. So the
        loop runs instead where powers of A overflow, and where products of varying matrices cancel.
        """
        if plan is None:
            plan = self.prepare(executor, last_only)
        elif not compared:
            check_plan(plan, executor, self)
        if plan.overflows or plan.executor.loses_digits(self.system):
            return Recurrent().prepare(self.cast, self.steps)
        return plan

    def prepare(self, executor: Executor, last_only: bool) -> Plan:
        """Make a plan with the executor, or with the one that it selects."""
        if not isinstance(executor, Executor):
            raise TypeError(
                f"`executor` is {executor!r}: expected an executor such as `linrec.Auto()`, "
                "`linrec.Recurrent()` or `linrec.FFTConvolution()`."
            )
        executor = self.select(executor, last_only)
        reason = executor.why_not(self.cast, self.steps)
        if reason is not None:
            raise ValueError(
                f"{executor} cannot run this recurrence: {reason}. Pass `executor=Auto()` to "
                "choose one that can."
            )
        return executor.prepare(self.cast, self.steps)

    def select(self, executor: Executor, last_only: bool) -> Executor:
        """Return the executor itself, or the one that it selects."""
        gradient = records_gradient(self.inputs, self.state)
        return executor.select(
            self.cast, self.steps, self.batch_shape, last_only=last_only, gradient=gradient
        )

    def has_overflowed(self, executor: Executor, state: Tensor) -> bool:
        """Whether products of a varying system's matrices left the range of the dtype.

        Numbers that are not finite stay so until the last step. The recurrence itself may still be
        finite where products of many matrices are not; the loop decides. (Checked only on the CPU,
        where it is cheap.)
        """
        if not self.system.time_varying or executor == Recurrent() or state.device.type != "cpu":
            return False
        if not has_values(state) or bool(state.isfinite().all()):
            return False
        return bool(self.inputs.isfinite().all())

    def in_coordinates_of(self, plan: Plan) -> "PreparedCall":
        """Write the system and the initial state in the coordinates of a plan."""
        if plan.system is None:
            return self
        state = None if self.state is None else plan.enter(self.state)
        return replace(self, system=plan.system, state=state)

    def restore_state(self, plan: Plan, state: Tensor) -> Tensor:
        """Convert a final state to the recurrence's coordinates."""
        state = plan.leave(state)
        if plan.coordinates is None or self.lengths is None:
            return state
        return torch.where(self.lengths.unsqueeze(-1) > 0, state, self.start())

    def reach_ends(self, plan: Plan) -> Tensor:
        """Compute the state at each sequence's own end without all states.

        Shifted to the right, every sequence ends at the last step, and the zeros before it leave a
        zero state unchanged. The initial state is advanced separately, by A to the power of the
        length.
        """
        assert self.lengths is not None
        aligned = align_ends(self.inputs, self.lengths)
        driven = plan.executor.final_state(self.system, plan, aligned, None)
        if self.state is None:
            return driven
        if is_open(self.steps):
            states = free_response(self.system.A, self.state, self.steps)
            return driven + last_step(states, self.lengths, self.state)
        # (Powers beyond the longest length could overflow needlessly.)
        longest = max_length(self.lengths, self.steps)
        return driven + power_each(self.system.A, self.state, self.lengths, longest)

    def zero_padding(self, outputs: Tensor) -> Tensor:
        """Put zeros past the end of each sequence."""
        return zero_padding(outputs, self.lengths)

    def finish(self, outputs: Tensor, state: Tensor, fresh: bool = False) -> Result:
        """Put copies side by side again, and give results the form that `Result` promises.

        They are contiguous, in the dtype of the result, and have their own memory: writing into the
        outputs, the final state or an argument of the caller changes none of the others. (`fresh`:
        whether the state is known to have its own memory.)
        """
        if self.given.copies > 1:
            state = state.flatten(-2)
            has_time = outputs.ndim == state.ndim + 2
            outputs = (outputs.movedim(-3, -2) if has_time else outputs).flatten(-2)
        if outputs.dtype != self.result_dtype:
            outputs = outputs.to(self.result_dtype)
        if not fresh:
            state = state.clone()
        return Result(outputs.contiguous(), state.contiguous())


def prepare_call(
    recurrence: LinearRecurrence,
    inputs: Tensor,
    state: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    core: int = 2,
    halves: bool = False,
) -> PreparedCall:
    """Check the arguments of a call, and convert them to the form that executors take.

    Arguments that need no change are passed on unchanged: this check is most of what a small call
    costs.

    Args:
        recurrence: the system.
        inputs (*batch, time, m): u; for one step `(*batch, m)`.
        state (*batch, n): the initial state, or None.
        lengths (*batch): the steps of each sequence, or None.
        core: the axes of the inputs that are no batch axes: 2, or 1 of one step.
        halves: whether a system and inputs in half precision stay so, with only the sums wider.
    """
    require_recurrence(recurrence)
    if lengths is None and not torch.compiler.is_compiling():
        if needs_no_change(recurrence, inputs, state, core):
            dtype = inputs.dtype
            made = PreparedCall(recurrence, recurrence, recurrence, inputs, state, None, dtype)
            return made if core == 1 else start_at_zero(made)
    tensors = recurrence.tensors()
    inputs = check_inputs(recurrence, inputs, core)
    batch = inputs.shape[:-core]
    batches: dict[str, torch.Size] = {}
    if own := recurrence.batch_shape:
        batches["recurrence"] = own
    if state is not None:
        name = "initial_state" if core == 2 else "state"
        state = check_state(recurrence, name, state)
        if state.shape[:-1] != batch:
            batches[name] = state.shape[:-1]
    if lengths is not None:
        lengths = check_lengths(lengths, inputs)
        batches["lengths"] = lengths.shape
    if batches:
        batch = broadcast(inputs=batch, **batches)

    dtypes = {tensor.dtype for tensor in tensors}
    common = inputs.dtype if dtypes == {inputs.dtype} else common_dtype(inputs, *tensors)
    narrow = dtype = accumulation_dtype(common)
    if state is not None and state.dtype != dtype:
        dtype = torch.promote_types(dtype, state.dtype)
    result = common if narrow == dtype else dtype
    given = common if halves else dtype
    cast = recurrence if dtypes == {given} else recurrence.to(given)
    inputs = fit(inputs, given, batch, core)
    state = None if state is None else fit(state, dtype, batch, 1)
    system = cast if core == 2 else cast.at(0)
    if recurrence.copies > 1:
        system = system.per_copy()
        groups = (recurrence.copies, -1)
        inputs = unflatten(inputs, -1, groups)
        inputs = inputs.movedim(-2, -3) if core == 2 else inputs
        state = None if state is None else unflatten(state, -1, groups)
    if lengths is not None:
        lengths = lengths.unsqueeze(-1) if recurrence.copies > 1 else lengths
        lengths = lengths.expand(inputs.shape[:-2])
        mask = length_mask(lengths, inputs.shape[-2])
        inputs = torch.where(mask.unsqueeze(-1), inputs, 0)
        system = zero_padded_matrices(system, mask)
    call = PreparedCall(recurrence, cast, system, inputs, state, lengths, result)
    return call if core == 1 else start_at_zero(call)


def start_at_zero(call: PreparedCall) -> PreparedCall:
    """Start one step without a state from zeros, where A is trained.

    Otherwise A multiplies nothing, and its gradient would be None instead of zeros.
    """
    if call.state is not None or call.steps != 1:
        return call
    if not records_gradient(*call.cast.A.leaves().values()):
        return call
    return replace(call, state=call.zero_state())


def fit(tensor: Tensor, dtype: torch.dtype, batch: torch.Size, core: int) -> Tensor:
    """Cast a tensor and expand its batch axes, where needed."""
    if tensor.dtype != dtype:
        tensor = tensor.to(dtype)
    shape = tensor.shape
    return tensor if shape[:-core] == batch else tensor.expand(*batch, *shape[-core:])


def check_plan(plan: Plan, executor: Executor, call: PreparedCall) -> None:
    """Refuse a plan that was made for something else."""
    if not isinstance(plan, Plan):
        raise TypeError(
            f"`plan` is of type {type(plan).__name__}: expected what "
            "`executor.prepare(recurrence, length)` gives, or None."
        )
    reason = plan.why_not(call.given, call.steps)
    if reason is None and not executor.takes_plans_of(plan.executor):
        reason = f"it was prepared by {plan.executor} and the call asks for {executor}"
    if reason is None and accumulation_dtype(plan.recurrence.dtype) != call.cast.dtype:
        reason = (
            f"it was prepared in {accumulation_dtype(plan.recurrence.dtype)} and inputs and state "
            f"ask for {call.cast.dtype}"
        )
    if reason is None:
        return
    raise ValueError(
        f"`plan` does not fit this call: {reason}. Pass `plan=None`, or make another with "
        "`executor.prepare(recurrence, length)`."
    )
