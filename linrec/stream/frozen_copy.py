"""The copy that a stream runs: a recurrence or module as it was when the stream began."""

import copy
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from linrec._tensors.annotated import is_tuple, named_modules
from linrec._tensors.arguments import check_tensor
from linrec._tensors.dtypes import accumulation_dtype
from linrec._tensors.full_precision import full_precision, under_autocast
from linrec._tensors.shapes import show
from linrec.executors import Executor, Result
from linrec.nn import PlanCache
from linrec.planner import Auto
from linrec.run import run
from linrec.run import step as linrec_step
from linrec.stream.prepared import BlockPlans, PreparedStep
from linrec.systems import LinearRecurrence


class HeldRecurrence:
    """A copy of a recurrence, ready to be fed.

    Args:
        recurrence: the system. If it varies in time, its matrices are not used: each block brings
            its own.
        executor: how blocks are run.
    """

    def __init__(self, recurrence: LinearRecurrence, executor: Executor) -> None:
        leaves = {name: leaf.detach().clone() for name, leaf in recurrence.leaves().items()}
        self.given, self.executor = recurrence.with_leaves(leaves), executor
        self.state_dtype = accumulation_dtype(recurrence.dtype)
        self.device, self.dtype = recurrence.device, recurrence.dtype
        self.input_size, self.state_size = recurrence.input_size, recurrence.state_size
        self.batch_shape = recurrence.batch_shape
        self.varying = recurrence.time_varying
        self.cast = self.given.to(self.state_dtype)
        self.prepared = None if self.varying else PreparedStep(self.cast)
        self.plans = BlockPlans(self.cast, executor)

    def __reduce__(self) -> tuple[object, ...]:
        return HeldRecurrence, (self.given, self.executor)  # steps and plans are made anew

    def leaves(self) -> dict[str, Tensor]:
        """List the tensors that identify the system; none for one that varies."""
        return {} if self.varying else self.given.leaves()

    def kinds(self) -> list[str]:
        """List the classes and options that identify the system."""
        options = [f"copies={self.given.copies}"]
        if self.varying:
            sizes = (self.input_size, self.state_size, self.given.output_size)
            options.append(f"time_varying, inputs, states and outputs {sizes}")
        return [type(self.given).__name__, type(self.given.A).__name__, *options]

    def fast_step(self) -> PreparedStep | None:
        """Return the step for samples of the states' dtype, or None if there is none."""
        return self.prepared if self.given.dtype == self.state_dtype else None

    def cast_samples(self, samples: Tensor) -> tuple[Tensor, torch.dtype]:
        """Check the dtype of samples; return them cast, and the dtype of outputs."""
        common = torch.promote_types(self.given.dtype, samples.dtype)
        if accumulation_dtype(common) != self.state_dtype:
            raise TypeError(
                f"`samples` have dtype {samples.dtype} and the system {self.given.dtype}: expected "
                f"no wider ones. Pass `samples.to({self.state_dtype})`, or make the stream of "
                f"`recurrence.to({accumulation_dtype(common)})`."
            )
        return samples.to(self.state_dtype), common

    def step(self, sample: Tensor, state: Tensor, piece: LinearRecurrence | None) -> Result:
        """Run one step."""
        outputs, state = self.block(sample.unsqueeze(-2), state, None, piece)
        return Result(outputs.squeeze(-2), state)

    def block(
        self,
        samples: Tensor,
        state: Tensor,
        lengths: Tensor | None,
        piece: LinearRecurrence | None,
    ) -> Result:
        """Run a block `(*streams, time, m)` of any length from a state."""
        samples, common = self.cast_samples(samples)
        if self.varying:
            piece = self.checked(piece, samples.shape[-2])
            outputs, state = run(piece, samples, state, lengths=lengths, executor=self.executor)
        elif samples.shape[-2] == 1 and lengths is None and self.prepared is not None:
            with full_precision(samples):
                outputs, state = self.prepared(samples.squeeze(-2), state)
            outputs = outputs.unsqueeze(-2)
        elif samples.shape[:-1].numel():
            outputs, state = self.plans.run(samples, state, lengths)
        else:
            outputs, state = run(self.cast, samples, state, lengths=lengths)
        return Result(outputs.to(common), state)

    def checked(self, piece: LinearRecurrence | None, steps: int) -> LinearRecurrence:
        """Check that the matrices of a block have the sizes and the dtype of the stream."""
        given = self.given
        if not isinstance(piece, LinearRecurrence):
            raise TypeError(
                f"`matrices` is {piece!r}, and the recurrence of this stream varies in time: "
                f"expected a `LinearRecurrence` with the matrices of these {steps} steps. Pass "
                "`stream.push(samples, matrices=LinearRecurrence(A, B, …, time_varying=True))`."
            )
        sizes = [(r.input_size, r.state_size, r.output_size, r.copies) for r in (piece, given)]
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"`matrices` have inputs, states, outputs and copies {sizes[0]}: expected "
                f"{sizes[1]}, those of the stream's recurrence."
            )
        if piece.dtype != given.dtype:
            raise TypeError(
                f"`matrices` have dtype {piece.dtype}: expected {given.dtype}, that of the "
                f"stream's recurrence. Pass `matrices.to({given.dtype})`."
            )
        leaves = {name: leaf.detach() for name, leaf in piece.leaves().items()}
        return piece.with_leaves(leaves)


class HeldModule:
    """A copy of a module, in evaluation mode and without gradients, ready to be fed.

    Args:
        module: has `step(input, state)`, which returns outputs and the next state, one tensor. If
            `run`, or else `forward`, does the same for blocks `(*streams, time, input_size)`, it
            runs them; otherwise, as for a cell, blocks are run step by step.
    """

    varying, batch_shape = False, torch.Size()

    def __init__(self, module: nn.Module) -> None:
        check_protocol(module)
        self.module = copy.deepcopy(module).requires_grad_(False).eval()
        for part in self.module.modules():
            if part is not self.module and is_recurrence(part):
                freeze(part)
        self.input_size, self.state_size = (int(getattr(module, n)) for n in SIZES)
        tensors = [*self.module.parameters(), *self.module.buffers()]
        leaf = next((tensor for tensor in tensors if is_number(tensor)), torch.empty(0))
        self.device, self.dtype = leaf.device, leaf.dtype
        self.one_step = cast(Callable[..., Any], self.module.step)
        self.all_steps = cast(Callable[..., Any], getattr(self.module, "run", self.module))
        # A module that does not return outputs and a state is refused now, not at the first sample.
        with torch.no_grad():
            tried = self.step(self.zeros(1, self.input_size), None)
            self.outputs, self.state_dtype = tried.outputs[0], tried.final_state.dtype
            self.takes_blocks = self.runs(self.zeros(1, 2, self.input_size))

    def zeros(self, *shape: int) -> Tensor:
        """Make zeros in the module's dtype, on its device."""
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    def leaves(self) -> dict[str, Tensor]:
        """List the tensors that identify the module."""
        return self.module.state_dict()

    def kinds(self) -> list[str]:
        """List the classes that identify the module."""
        named = ((name, type(each)) for name, each in named_modules(self.module))
        return [f"{name}: {kind.__module__}.{kind.__qualname__}" for name, kind in named]

    def fast_step(self) -> None:
        """Return None: a module checks its arguments itself."""

    def step(
        self, sample: Tensor, state: Tensor | None, piece: LinearRecurrence | None = None
    ) -> Result:
        """Run one step."""
        found = self.one_step(sample, state)
        outputs, state = self.pair(found)
        expected = (*sample.shape[:-1], self.state_size)
        if outputs is not None and state is not None and state.shape == expected:
            return Result(outputs, state)
        got = type(found).__name__ if state is None else f"state of shape {show(state.shape)}"
        raise TypeError(
            f"`{type(self.module).__name__}.step` returned a {got}: expected outputs and a state "
            f"of shape {show(expected)}, two tensors."
        )

    def pair(self, found: object) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """Split a result into outputs and state; two Nones if it is something else."""
        if is_tuple(found) and len(found) == 2:
            outputs, state = found
            if isinstance(outputs, Tensor) and isinstance(state, Tensor):
                return outputs, state
        return None, None

    def runs(self, samples: Tensor) -> bool:
        """Whether the module returns outputs of every step of a block, and the state after it."""
        try:
            outputs, state = self.pair(self.all_steps(samples, None))
        except (TypeError, ValueError, RuntimeError):  # it takes one step, or no state
            return False
        if outputs is None or state is None:
            return False
        expected = (*samples.shape[:-1], *self.outputs.shape)
        return outputs.shape == expected and state.shape == (*samples.shape[:-2], self.state_size)

    def block(
        self,
        samples: Tensor,
        state: Tensor,
        lengths: Tensor | None,
        piece: LinearRecurrence | None,
    ) -> Result:
        """Run a block `(*streams, time, m)` of any length from a state."""
        if self.takes_blocks:
            if lengths is None:
                return Result(*self.all_steps(samples, state))
            outputs, state = self.all_steps(samples, state, lengths)
            steps = torch.arange(samples.shape[-2], device=self.device)
            own = steps < lengths.to(self.device).unsqueeze(-1)
            return Result(torch.where(own[(..., *[None] * self.outputs.ndim)], outputs, 0), state)
        shape = (*samples.shape[:-2], 0, *self.outputs.shape)
        outputs, axis = [self.outputs.new_zeros(shape)], -1 - self.outputs.ndim
        own = None if lengths is None else lengths.to(self.device)
        for t, sample in enumerate(samples.unbind(-2)):
            output, after = self.step(sample, state)
            if own is not None:
                output = torch.where((t < own)[(..., *[None] * self.outputs.ndim)], output, 0)
                after = torch.where((t < own).unsqueeze(-1), after, state)
            outputs.append(output.unsqueeze(axis))
            state = after
        return Result(torch.cat(outputs, axis), state)


Held = HeldRecurrence | HeldModule
HOOKS = ("_forward_hooks", "_forward_pre_hooks")
SIZES = ("input_size", "state_size")


def hold(system: object, executor: Executor | None) -> Held:
    """Copy a recurrence or module for a stream.

    A module that is nothing but a recurrence returns it from `as_recurrence()`; it is then run as
    that recurrence, and its weights are not read again.
    """
    if isinstance(system, nn.Module) and is_recurrence(system):
        recurrence = recurrence_of(system)
        own = getattr(system, "plans", None)
        own = own.executor if isinstance(own, PlanCache) else Auto()
        return HeldRecurrence(recurrence, executor or own)
    if isinstance(system, LinearRecurrence):
        return HeldRecurrence(system, executor or Auto())
    if not isinstance(system, nn.Module):
        raise TypeError(
            f"`system` is of type {type(system).__name__}: expected a LinearRecurrence or a module "
            "with `step`. Of a StateSpace, pass `discretize(system, dt)`."
        )
    if executor is not None:
        raise ValueError(
            f"`executor` is {executor} and the system a {type(system).__name__}, which has "
            "executors of its own: expected None. Give it to the module."
        )
    return HeldModule(system)


def is_recurrence(module: nn.Module) -> bool:
    """Whether a module is nothing but the recurrence that its `as_recurrence()` returns.

    A subclass that overrides `forward` or `step` computes something else, and so may hooks.
    """
    whole = next((kind for kind in type(module).__mro__ if "as_recurrence" in vars(kind)), None)
    if whole is None or any(getattr(module, name) for name in HOOKS):
        return False
    return not any(
        name in vars(module) or getattr(type(module), name, None) is not getattr(whole, name, None)
        for name in ("forward", "step", "__call__")
    )


def recurrence_of(module: nn.Module) -> LinearRecurrence:
    """Make the recurrence that a module is, without gradients."""
    with torch.no_grad():
        return cast(Callable[[], LinearRecurrence], module.as_recurrence)()


class Frozen:
    """A frozen recurrence in the place of a module.

    Args:
        recurrence: the recurrence.
        executor: how it runs.
    """

    def __init__(self, recurrence: LinearRecurrence, executor: Executor) -> None:
        self.held = HeldRecurrence(recurrence, executor)

    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Run one step, as the module's own `step`."""
        held = self.held
        step, dtype = held.fast_step(), held.state_dtype
        fits = input.dtype == dtype and input.shape[-1] == held.input_size
        if step is None or state is None or not fits or state.dtype != dtype:
            return linrec_step(held.given, input, state)
        if state.shape[:-1] != input.shape[:-1] or under_autocast(input.device.type):
            return linrec_step(held.given, input, state)
        return Result(*step(input, state))

    def forward(
        self, inputs: Tensor, initial_state: Tensor | None = None, lengths: Tensor | None = None
    ) -> Result:
        """Run all steps, as the module's own `forward`."""
        held = self.held
        plain = inputs.dtype == held.given.dtype == held.state_dtype and inputs.ndim > 1
        if initial_state is None or not plain or not inputs.shape[:-1].numel():
            return run(held.given, inputs, initial_state, lengths=lengths, executor=held.executor)
        return held.plans.run(inputs, initial_state, lengths)


def freeze(module: nn.Module) -> None:
    """Replace the recurrence inside a module by a frozen one, permanently."""
    recurrence = recurrence_of(module)
    plans = getattr(module, "plans", None)
    frozen = Frozen(recurrence, plans.executor if isinstance(plans, PlanCache) else Auto())
    vars(module).update(step=frozen.step, forward=frozen.forward)


def check_protocol(module: nn.Module) -> None:
    """Refuse a module that cannot be stepped."""
    name = type(module).__name__
    if not callable(getattr(module, "step", None)):
        raise TypeError(
            f"`{name}` has no `step`: expected a module with `step(input, state)`, such as those "
            "of `linrec.nn` and `lmu`."
        )
    missing = [each for each in SIZES if not isinstance(getattr(module, each, None), int)]
    if missing:
        raise TypeError(
            f"`{name}` does not say its {' and '.join(missing)}: expected whole numbers, as "
            "attributes, so that streams can begin with a state of zeros."
        )


def is_number(tensor: Tensor) -> bool:
    """Whether a tensor has floating-point or complex numbers."""
    return tensor.is_floating_point() or tensor.is_complex()


def check_samples(held: Held, samples: object, streams: torch.Size) -> Tensor:
    """Check the shape of samples: one per stream, or a block."""
    samples = check_tensor("samples", samples)
    m, axes = held.input_size, len(streams)
    fits = samples.ndim in (axes + 1, axes + 2) and samples.shape[-1] == m
    if not fits or samples.shape[:axes] != streams:
        block = show((*streams, "time", m)).replace("'", "")  # type: ignore[arg-type]  # a word
        raise ValueError(
            f"`samples` have shape {show(samples.shape)}: expected {show((*streams, m))}, one "
            f"sample of each stream, or {block}, a block."
        )
    if samples.device != held.device:
        raise ValueError(
            f"`samples` are on {samples.device} and the stream on {held.device}: expected one "
            f"device. Pass `samples.to({str(held.device)!r})`."
        )
    return samples.detach()
