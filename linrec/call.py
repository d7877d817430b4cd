"""One call arranged for executors: checked, cast, copies as a batch axis, padding taken away."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from linrec._checks import (
    accumulation_dtype,
    broadcast,
    check_tensor,
    common_dtype,
    has_values,
    is_seen,
    records_gradient,
    to_tensor,
)
from linrec._graphs import is_open
from linrec.executors import Executor, Plan, Recurrent, Result
from linrec.powers import free_response, power_each
from linrec.systems import LinearRecurrence


@dataclass(frozen=True, eq=False)
class Call:
    """What `run`, `final` and `step` hand to an executor, and how its answer is handed back.

    Attributes:
        given: the recurrence as the caller gave it.
        cast: the same in the dtype of the computation.
        system: one copy of it, with a batch axis for the copies.
        inputs (*batch, [copies,] time, m): u, zero past the lengths.
        state (*batch, [copies,] n): the state before the first step, or None.
        lengths (*batch, [1]): the steps of each sequence, or None.
        result_dtype: what outputs are given back in.
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
        """T."""
        return self.inputs.shape[-2]

    def start(self) -> Tensor:
        """The state before the first step."""
        if self.state is not None:
            return self.state
        return self.inputs.new_zeros(*self.inputs.shape[:-2], self.system.A.state_size)

    def all_steps(self, executor: Executor, plan: Plan | None, *, compared: bool = False) -> Result:
        """Run all steps, each sequence to its own end."""
        if 0 in self.inputs.shape[:-1]:  # no step or no sequence: the answer's shape
            timed, before = self.system.over_time(), self.start().unsqueeze(-2)
            states = timed.A.apply(before.expand(*self.inputs.shape[:-1], -1))
            states = states + timed.drive(self.inputs)  # a graph that reaches all of the system
            return Result(timed.read(states, self.inputs), self.start())
        executor, plan = self.choose(executor, plan, False, compared)
        outputs, state = self.in_coordinates_of(plan).execute(executor, plan)
        if self.overflowed(executor, state):
            return self.all_steps(Recurrent(), None)
        return Result(outputs, self.leave(plan, state))

    def execute(self, executor: Executor, plan: Plan) -> Result:
        """Run all steps in the coordinates of the plan."""
        if self.lengths is None:
            return executor.execute(self.system, plan, self.inputs, self.state)
        if self.system.time_varying:
            states = self.system.rebuilt(self.system.A, self.system.B, None, None)
            passed = executor.execute(states, plan, self.inputs, self.state).outputs
            outputs = self.system.over_time().read(passed, self.inputs)
            return Result(self.own(outputs), self.at_end(passed, self.start()))
        outputs = executor.execute(self.system, plan, self.inputs, self.state).outputs
        if self.system.C is None and self.system.D is None:
            state = self.at_end(outputs, self.start())
        else:
            state = self.own_final_state(executor, plan)
        return Result(self.own(outputs), state)

    def last_step(self, executor: Executor, plan: Plan | None, *, compared: bool = False) -> Result:
        """Run to each sequence's own end, for the last outputs and state."""
        if 0 in self.inputs.shape[:-1]:  # no step or no sequence: the answer's shape
            size = self.given.output_size // self.given.copies
            return Result(self.inputs.new_zeros(*self.inputs.shape[:-2], size), self.start())
        if self.lengths is not None and self.system.time_varying:
            outputs, state = self.all_steps(executor, plan, compared=compared)
            return Result(self.at_end(outputs, torch.zeros_like(outputs[..., 0, :])), state)
        executor, plan = self.choose(executor, plan, True, compared)
        outputs, state = self.in_coordinates_of(plan).execute_last(executor, plan)
        if self.overflowed(executor, state):
            return self.last_step(Recurrent(), None)
        return Result(outputs, self.leave(plan, state))

    def execute_last(self, executor: Executor, plan: Plan) -> Result:
        """Run for the last step in the coordinates of the plan."""
        if self.lengths is None:
            state = executor.final_state(self.system, plan, self.inputs, self.state)
            last_input = self.inputs.select(-2, -1)
            return Result(self.system.at(self.steps - 1).read(state, last_input), state)
        state = self.own_final_state(executor, plan)
        last_input = self.at_end(self.inputs, self.no_input().squeeze(-2))
        outputs = self.system.read(state, last_input)
        return Result(torch.where(self.lengths.unsqueeze(-1) > 0, outputs, 0), state)

    def choose(
        self, executor: Executor, plan: Plan | None, last_only: bool, compared: bool
    ) -> tuple[Executor, Plan]:
        """Find the executor and its plan, and refuse one that cannot do this call.

        A plan that its keeper has just compared with the recurrence is not compared again.
        """
        if plan is not None:
            plan = plan if compared else check_plan(plan, executor, self)
            return self.within_range(plan)
        if not isinstance(executor, Executor):
            raise TypeError(
                f"`executor` is {executor!r}: expected an executor such as `linrec.Auto()`, "
                "`linrec.Recurrent()` or `linrec.FFTConvolution()`."
            )
        batch = self.inputs.shape[:-2] if self.given.copies == 1 else self.inputs.shape[:-3]
        gradient = records_gradient(self.inputs, self.state)
        executor = executor.select(
            self.cast, self.steps, batch, last_only=last_only, gradient=gradient
        )
        reason = executor.why_not(self.cast, self.steps)
        if reason is not None:
            raise ValueError(
                f"{executor} cannot run this recurrence: {reason}. Pass `executor=Auto()` to "
                "choose one that can."
            )
        return self.within_range(executor.prepare(self.cast, self.steps))

    def within_range(self, plan: Plan) -> tuple[Executor, Plan]:
        """Return the executor and its plan, or the loop's where powers of A overflow.

        An infinite power times a state of zero is NaN, where the recurrence itself is finite.
        """
        if plan.overflows:
            plan = Recurrent().prepare(self.cast, self.steps)
        return plan.executor, plan

    def overflowed(self, executor: Executor, state: Tensor) -> bool:
        """Whether products of a varying system's matrices left the range of the dtype.

        What is not finite stays so until the last step. The recurrence itself may be finite where
        products of many matrices are not; the loop tells. (Looked at on the CPU alone, where that
        is cheap.)
        """
        if not self.system.time_varying or executor == Recurrent() or state.device.type != "cpu":
            return False
        if not has_values(state) or bool(state.isfinite().all()):
            return False
        return bool(self.inputs.isfinite().all())

    def in_coordinates_of(self, plan: Plan) -> "Call":
        """Write the system and the initial state in the coordinates of a plan."""
        if plan.system is None:
            return self
        state = None if self.state is None else plan.enter(self.state)
        return replace(self, system=plan.system, state=state)

    def leave(self, plan: Plan, state: Tensor) -> Tensor:
        """Write a final state in the recurrence's coordinates; of no step it is the initial one."""
        state = plan.leave(state)
        if plan.coordinates is None or self.lengths is None:
            return state
        return torch.where(self.lengths.unsqueeze(-1) > 0, state, self.start())

    def no_input(self) -> Tensor:
        """One step of zeros."""
        return self.inputs.new_zeros(*self.inputs.shape[:-2], 1, self.inputs.shape[-1])

    def own(self, outputs: Tensor) -> Tensor:
        """Put zeros past the end of each sequence."""
        assert self.lengths is not None
        return torch.where(inside(self.lengths, self.steps).unsqueeze(-1), outputs, 0)

    def at_end(self, sequence: Tensor, otherwise: Tensor) -> Tensor:
        """Take each sequence's last own step of `(*batch, time, feature)`; `otherwise` if none."""
        assert self.lengths is not None
        index = (self.lengths - 1).clamp(min=0)[..., None, None]
        index = index.expand(*sequence.shape[:-2], 1, sequence.shape[-1])
        last = sequence.gather(-2, index).squeeze(-2)
        return torch.where(self.lengths.unsqueeze(-1) > 0, last, otherwise)

    def own_final_state(self, executor: Executor, plan: Plan) -> Tensor:
        """Compute the state at each sequence's own end without all states.

        Moved to the right, every sequence ends at the last step, and the zeros before it leave a
        zero state as it is; the initial state moves on its own, by A to the power of the length.
        """
        assert self.lengths is not None
        shift = self.steps - self.lengths.unsqueeze(-1)
        index = torch.arange(self.steps, device=self.inputs.device) - shift
        moved = self.inputs.gather(-2, index.clamp(min=0).unsqueeze(-1).expand_as(self.inputs))
        moved = torch.where((index >= 0).unsqueeze(-1), moved, 0)
        driven = executor.final_state(self.system, plan, moved, None)
        if self.state is None:
            return driven
        if is_open(self.steps):
            states = free_response(self.system.A, self.state, self.steps)
            return driven + self.at_end(states, self.state)
        most = largest(self.lengths, self.steps)
        return driven + power_each(self.system.A, self.state, self.lengths, most)

    def finish(self, outputs: Tensor, state: Tensor) -> Result:
        """Put copies side by side again, cast the outputs, and give the state memory of its own.

        Writing into one of outputs, final state and what the caller passed then changes no other.
        """
        if self.given.copies > 1:
            state = state.flatten(-2)
            axes = outputs.ndim - (self.inputs.ndim - 1)  # 1 with an axis of time, else 0
            outputs = (outputs.movedim(-3, -2) if axes else outputs).flatten(-2)
        return Result(outputs.to(self.result_dtype), state.clone())


def arrange(
    recurrence: LinearRecurrence,
    inputs: Tensor,
    state: Tensor | None,
    lengths: Tensor | None,
) -> Call:
    """Check a call and bring it into the form that executors take."""
    if not isinstance(recurrence, LinearRecurrence):
        raise TypeError(
            f"`recurrence` is of type {type(recurrence).__name__}: expected a LinearRecurrence. "
            "Of a StateSpace, pass `discretize(system, dt)`; of a module, call the module."
        )
    inputs = check_inputs(recurrence, inputs)
    batches = {"recurrence": recurrence.batch_shape, "inputs": inputs.shape[:-2]}
    if state is not None:
        state = check_state(recurrence, state)
        batches["initial_state"] = state.shape[:-1]
    if lengths is not None:
        lengths = check_lengths(lengths, inputs)
        batches["lengths"] = lengths.shape
    batch = broadcast(**batches)

    common = common_dtype(*recurrence.leaves().values(), inputs)
    dtype = common_dtype(inputs.new_empty(0, dtype=accumulation_dtype(common)), state)
    result = common if accumulation_dtype(common) == dtype else dtype
    cast = recurrence
    if any(leaf.dtype != dtype for leaf in recurrence.leaves().values()):
        cast = recurrence.to(dtype)
    inputs = inputs.to(dtype).expand(*batch, -1, -1)
    state = None if state is None else state.to(dtype).expand(*batch, -1)
    system = cast.per_copy()
    if recurrence.copies > 1:
        groups = (recurrence.copies, -1)
        inputs = inputs.unflatten(-1, groups).movedim(-2, -3)
        state = None if state is None else state.unflatten(-1, groups)
    if lengths is not None:
        lengths = lengths.expand(batch)
        lengths = lengths.unsqueeze(-1) if recurrence.copies > 1 else lengths
        lengths = lengths.expand(inputs.shape[:-2])
        mask = inside(lengths, inputs.shape[-2])
        inputs = torch.where(mask.unsqueeze(-1), inputs, 0)
        system = without_padding(system, mask)
    call = Call(recurrence, cast, system, inputs, state, lengths, result)
    if (
        state is None
        and inputs.shape[-2] == 1
        and records_gradient(*recurrence.A.leaves().values())
    ):
        # In one step from no state A multiplies nothing, and its gradient would be None, not zeros.
        return replace(call, state=call.start())
    return call


def check_inputs(recurrence: LinearRecurrence, inputs: Tensor) -> Tensor:
    """See that inputs fit the recurrence."""
    inputs = check_tensor("inputs", inputs)
    size, steps = recurrence.input_size, recurrence.steps
    if inputs.ndim < 2 or inputs.shape[-1] != size:
        hint = ""
        if inputs.ndim >= 2 and inputs.shape[-2] == size:
            hint = " If time is the last axis then pass `inputs.mT`."
        elif size == 1:
            hint = " If time is the last axis then pass `inputs.unsqueeze(-1)`."
        raise ValueError(
            f"`inputs` has shape {tuple(inputs.shape)}, but the recurrence has {size} inputs: "
            f"expected (*batch, time, {size}).{hint}"
        )
    if steps is not None and inputs.shape[-2] != steps:
        raise ValueError(
            f"`inputs` has {inputs.shape[-2]} steps, but the recurrence is time-varying and has "
            f"matrices for {steps}: expected as many."
        )
    if inputs.device != recurrence.device:
        raise ValueError(
            f"`inputs` is on {inputs.device} and the recurrence on {recurrence.device}: expected "
            f"one device. Pass `recurrence.to(inputs.device)`."
        )
    return inputs


def check_state(recurrence: LinearRecurrence, state: Tensor) -> Tensor:
    """See that an initial state fits the recurrence."""
    state = check_tensor("initial_state", state)
    if state.ndim < 1 or state.shape[-1] != recurrence.state_size:
        raise ValueError(
            f"`initial_state` has shape {tuple(state.shape)}, but the recurrence has "
            f"{recurrence.state_size} states: expected (*batch, {recurrence.state_size})."
        )
    return state


def check_lengths(lengths: Tensor, inputs: Tensor) -> Tensor:
    """See that lengths are whole numbers between 0 and the number of steps."""
    lengths = to_tensor("lengths", lengths)
    if lengths.is_floating_point() or lengths.is_complex() or lengths.dtype == torch.bool:
        raise TypeError(
            f"`lengths` has dtype {lengths.dtype}: expected whole numbers (*batch). Pass "
            "`lengths.long()`, or of a mask (*batch, time) `mask.sum(-1)`."
        )
    lengths = lengths.to(inputs.device, torch.int64)
    if is_seen((lengths < 0) | (lengths > inputs.shape[-2])):
        raise ValueError(
            f"`lengths` are between {int(lengths.min())} and {int(lengths.max())}: expected 0 to "
            f"{inputs.shape[-2]}, the number of steps of `inputs`."
        )
    return lengths


def check_plan(plan: Plan, executor: Executor, call: Call) -> Plan:
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
        return plan
    raise ValueError(
        f"`plan` does not fit this call: {reason}. Pass `plan=None`, or make another with "
        "`executor.prepare(recurrence, length)`."
    )


def inside(lengths: Tensor, steps: int) -> Tensor:
    """Which steps are a sequence's own, `(*batch, time)`."""
    return torch.arange(steps, device=lengths.device) < lengths.unsqueeze(-1)


def without_padding(system: LinearRecurrence, mask: Tensor) -> LinearRecurrence:
    """Put zeros where a varying system's matrices belong to no sequence's own steps.

    They could be NaN there, and 0 · NaN is NaN in the gradient.
    """
    if not system.time_varying:
        return system

    def clean(leaf: Tensor, core: int) -> Tensor:
        batch = leaf.shape[: leaf.ndim - core]
        used = mask
        while used.ndim > len(batch):
            used = used.any(0)
        for axis, size in enumerate(batch[-used.ndim :]):
            used = used.any(axis, keepdim=True) if size == 1 else used
        return torch.where(used[(..., *[None] * core)], leaf, 0)

    return system.map_batched(clean)


def largest(lengths: Tensor, steps: int) -> int:
    """The longest length, if it can be seen: powers beyond it could overflow for nothing."""
    if torch.compiler.is_compiling():
        return steps
    try:
        return int(lengths.max())
    except RuntimeError:  # inside vmap no value can be looked at
        return steps
