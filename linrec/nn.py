"""Modules that own tensors, and build a fresh recurrence of them in every call."""

from collections.abc import Collection, Mapping
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from linrec._checks import accumulation_dtype, is_computed, records_gradient
from linrec.constraints import BoundParameters, ParametricFamily
from linrec.executors import Executor, Plan, Result
from linrec.planner import Auto
from linrec.run import run_kept, step
from linrec.systems import LinearRecurrence


@final
class PlanKeeper:
    """Run recurrences, and keep the plans of those that are not being trained.

    A plan says itself whether it still stands for a recurrence; one that does not is made anew.
    The plans of the last few lengths are kept. They are no part of a copy, a pickle or a state
    dict.

    Args:
        executor: how recurrences are run.
    """

    capacity = 8

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.plans: dict[tuple[Any, ...], Plan] = {}
        self.last: LinearRecurrence | None = None

    def recurrence(self, shape: "Shape", leaves: dict[str, Tensor]) -> LinearRecurrence:
        """Put tensors into a shape; the same tensors as last time give the same recurrence.

        A value that holds tensors follows what is written into them. Wrappers that end with a
        transform, and results of a graph, are not held on to.
        """
        if torch.compiler.is_compiling():
            return shape.with_leaves(leaves)
        if self.last is not None and are_same(self.last, leaves):
            return self.last
        made, self.last = shape.with_leaves(leaves), None
        lasting = all(leaf.is_leaf and has_memory(leaf) for leaf in leaves.values())
        if lasting and are_same(made, leaves):
            self.last = made
        return made

    def clear(self) -> None:
        """Let go of everything."""
        self.plans.clear()
        self.last = None

    def run(
        self,
        recurrence: LinearRecurrence,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Result:
        """As `linrec.run`."""
        plan = self.plan(recurrence, inputs, initial_state, last_only=False)
        return run_kept(recurrence, inputs, initial_state, lengths, self.executor, plan, False)

    def final(
        self,
        recurrence: LinearRecurrence,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Result:
        """As `linrec.final`."""
        plan = self.plan(recurrence, inputs, initial_state, last_only=True)
        return run_kept(recurrence, inputs, initial_state, lengths, self.executor, plan, True)

    def plan(
        self,
        recurrence: LinearRecurrence,
        inputs: Tensor,
        state: Tensor | None,
        *,
        last_only: bool,
    ) -> Plan | None:
        """Find or make the plan of a call; None where it has to be made in the call itself."""
        if not isinstance(inputs, Tensor) or not is_computed(inputs):  # refused in the call
            return None
        if inputs.ndim < 2 or not inputs.shape[-2]:
            return None
        if torch.compiler.is_compiling():  # a side effect that a compiled graph should not have
            return None
        leaves = recurrence.leaves().values()
        if not all(map(has_memory, leaves)):
            return None
        length, given = inputs.shape[-2], None if state is None else state.dtype
        gradient = records_gradient(inputs, state)
        key = (length, last_only, gradient, inputs.dtype, given, *inputs.shape[:-2])
        kept = self.plans.get(key)
        if kept is not None and kept.why_not(recurrence, length) is None:
            return kept
        dtype = accumulation_dtype(torch.promote_types(recurrence.dtype, inputs.dtype))
        if {dtype, given or dtype} != {accumulation_dtype(recurrence.dtype)}:
            return None
        if any(leaf.requires_grad for leaf in leaves):
            return None
        executor = self.executor
        if isinstance(executor, Auto):
            executor = executor.select(
                recurrence,
                length,
                inputs.shape[:-2],
                last_only=last_only,
                prepared=True,
                gradient=gradient,
            )
        if executor.why_not(recurrence, length) is not None:
            return None
        plan = self.same(executor, recurrence, length)
        if plan is None:
            # Tensors made in inference mode could not be used in training afterwards.
            with torch.inference_mode(False), torch.no_grad():
                plan = executor.prepare(recurrence, length)
        self.plans.pop(key, None)
        for oldest in list(self.plans)[: -self.capacity + 1]:
            self.plans.pop(oldest, None)
        self.plans[key] = plan
        return plan

    def same(self, executor: Executor, recurrence: LinearRecurrence, length: int) -> Plan | None:
        """Find the plan of a call that differs in nothing but its batch."""
        for plan in list(self.plans.values()):  # another thread may be keeping one
            if plan.executor == executor and plan.why_not(recurrence, length) is None:
                return plan
        return None

    def __deepcopy__(self, memo: dict[int, Any]) -> "PlanKeeper":
        return PlanKeeper(self.executor)

    def __getstate__(self) -> dict[str, Any]:
        return {"executor": self.executor, "plans": {}, "last": None}


Shape = LinearRecurrence | BoundParameters


class Recurrence(nn.Module):
    """A linear recurrence as a module: its matrices are buffers, or parameters where trained.

        x_t = A x_{t-1} + B u_t        y_t = C x_t + D u_t

    Of a symbolic recurrence the module owns the parameters instead, by their names. What their
    symbols say of them (positive, between bounds) stays true in training: the module then trains
    ρ with exp(ρ) or lower + (upper - lower)·σ(ρ) the parameter, by `torch.nn.utils.parametrize`.

    A frozen recurrence keeps its plan (kernels, powers) from call to call; a trained one prepares
    anew in each. Works with `.to`, `state_dict`, `torch.func.functional_call`, `torch.compile` and
    autocast (under which it computes in the dtype of its matrices).

    Args:
        recurrence: the system; its tensors are copied. Or one of `linrec.symbolic`.
        trainable: which of "A", "B", "C", "D" are parameters. (Of a structure of several
            tensors, one alone is named as in the state dict: "A_diagonal".) Of a symbolic
            recurrence the names of its parameters.
        executor: how it is run.
        parameters: of a symbolic recurrence the values to start from, by name; tensors
            `(*batch)` make a batch of systems. None: the recurrence has numbers already.

    Raises:
        ValueError: a trainable name that the recurrence does not have, or a missing value.

    Example:
        >>> import torch, linrec
        >>> average = linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]])
        >>> module = linrec.nn.Recurrence(average, trainable=["A"])
        >>> outputs, final_state = module(torch.ones(2, 3, 1))
        >>> outputs.shape, [name for name, _ in module.named_parameters()]
        (torch.Size([2, 3, 1]), ['A'])
    """

    def __init__(
        self,
        recurrence: LinearRecurrence | ParametricFamily,
        *,
        trainable: Collection[str] = (),
        executor: Executor = Auto(),
        parameters: Mapping[Any, Any] | None = None,
    ) -> None:
        super().__init__()
        shape = as_shape(recurrence, parameters)
        trainable = [trainable] if isinstance(trainable, str) else list(trainable)
        trained = chosen(shape, trainable)
        if isinstance(shape, BoundParameters):
            check_names(shape, trained)
        for name, leaf in shape.leaves().items():
            copy = leaf.detach().clone(memory_format=torch.contiguous_format)
            if name in trained:
                self.register_parameter(name, nn.Parameter(copy))
            else:
                self.register_buffer(name, copy)
        if isinstance(shape, BoundParameters):
            for name in (name for name in shape.constraints if name in trained):
                parametrize.register_parametrization(self, name, shape.constraints[name])
        # What the tensors are put into; of a recurrence it holds no numbers.
        self.shape = shape.to("meta") if isinstance(shape, LinearRecurrence) else shape
        self.plans = PlanKeeper(executor)

    @property
    def recurrence(self) -> LinearRecurrence:
        """The recurrence of the present tensors."""
        leaves = {name: getattr(self, name) for name in self.shape.leaves()}
        return self.plans.recurrence(self.shape, leaves)

    def forward(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Result:
        """Run all steps; arguments and result as of `linrec.run`."""
        return self.plans.run(self.recurrence, inputs, initial_state, lengths)

    def final(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Result:
        """Run for the last step only; arguments and result as of `linrec.final`."""
        return self.plans.final(self.recurrence, inputs, initial_state, lengths)

    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Run one step; arguments and result as of `linrec.step`."""
        return step(self.recurrence, input, state)

    def _apply(self, fn: Any, recurse: bool = True) -> "Recurrence":
        self.plans.clear()  # they refuse moved tensors, and would only hold on to memory
        return super()._apply(fn, recurse)

    def extra_repr(self) -> str:
        """Say its sizes."""
        shape = self.recurrence
        copies = f", copies={shape.copies}" if shape.copies > 1 else ""
        return (
            f"{type(shape.A).__name__}, states={shape.state_size}, inputs={shape.input_size}, "
            f"outputs={shape.output_size}{copies}"
        )


def as_shape(recurrence: object, parameters: Mapping[Any, Any] | None) -> Shape:
    """See what a module is to be made of."""
    if isinstance(recurrence, LinearRecurrence) and parameters is None:
        return recurrence
    bound_parameters = getattr(recurrence, "bound_parameters", None)
    if bound_parameters is not None:
        return bound_parameters(parameters or {})
    given = "" if parameters is None else " and `parameters` are given"
    raise TypeError(
        f"`recurrence` is of type {type(recurrence).__name__}{given}: expected a "
        "LinearRecurrence, or a symbolic one and `parameters`. Of a StateSpace, pass "
        "`discretize(system, dt)`."
    )


def check_names(shape: BoundParameters, trained: Collection[str]) -> None:
    """Refuse names of parameters that a module has another use for.

    `torch.nn.utils.parametrize` keeps constraints in a `ModuleDict`, which takes no name of one
    of its own attributes, as `update`.
    """
    known = {"", "shape", "plans", "parametrizations", *vars(nn.Module()), *dir(Recurrence)}
    in_a_dict = {*vars(nn.ModuleDict()), *dir(nn.ModuleDict)}
    for name in shape.leaves():
        constrained = name in trained and name in shape.constraints
        if "." in name or name in known or (constrained and name in in_a_dict):
            raise ValueError(
                f"A parameter is called `{name}`, a name that a module cannot give to a tensor: "
                "expected another one. Rename its symbol."
            )


def chosen(shape: Shape, trainable: list[str]) -> set[str]:
    """Find the tensors that are asked for by their own names, or by that of their matrix."""
    names = list(shape.leaves())
    meant = {name: {name} for name in names}
    if isinstance(shape, LinearRecurrence):
        meant = {name: {name, name.partition("_")[0]} for name in names}
    unknown = [wanted for wanted in trainable if not any(wanted in own for own in meant.values())]
    if unknown:
        raise ValueError(
            f"`trainable` names {unknown}, which the recurrence does not have: expected some "
            f"of {sorted(names)}."
        )
    return {name for name in names if meant[name] & set(trainable)}


def are_same(recurrence: LinearRecurrence, leaves: dict[str, Tensor]) -> bool:
    """Whether a recurrence is made of these very tensors."""
    return all(leaves.get(name) is leaf for name, leaf in recurrence.leaves().items())


def has_memory(tensor: Tensor) -> bool:
    """Whether a tensor outlives the call: inside vmap and torch.func.grad it is a wrapper."""
    try:
        tensor.data_ptr()
    except RuntimeError:
        return False
    return True
