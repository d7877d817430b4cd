"""A linear recurrence as a module, which owns its tensors."""

from collections.abc import Collection, Mapping
from typing import Any, Self, overload

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from linrec.constraints import BoundParameters, ParametricFamily
from linrec.executors import Executor, Result
from linrec.lengths import expand_lengths, last_step
from linrec.nn.packed import TakesPacked
from linrec.nn.plans import PlanCache, Template
from linrec.nn.pretrained import Pretrained
from linrec.nn.sampled import SampledSystem
from linrec.nn.segments import run_segments
from linrec.planner import Auto
from linrec.run import step
from linrec.systems import LinearRecurrence, StateSpace


class Recurrence(Pretrained, TakesPacked):
    """A linear recurrence as a module: its matrices are buffers, or parameters where trained.

        x_t = A x_{t-1} + B u_t        y_t = C x_t + D u_t

    For a symbolic recurrence, the module owns the recurrence's parameters instead, by name. The
    assumptions of their symbols (positive, between bounds) hold throughout training: the module
    then trains ρ, and the parameter is exp(ρ) or lower + (upper - lower)·σ(ρ), by
    `torch.nn.utils.parametrize`.

    A frozen recurrence keeps its plan (kernels, powers) from call to call; a trained one prepares
    anew in each. Works with `.to`, `state_dict`, `torch.func.functional_call`, `torch.compile` and
    autocast (under which it computes in the dtype of its matrices).

    A `StateSpace` gives a `SampledSystem`, whose calls take the `dt` of each step.

    Args:
        recurrence: the system; its tensors are copied. It may be one of `linrec.symbolic`, or one
            in continuous time, for which the other arguments are those of `SampledSystem`.
        trainable: which of "A", "B", "C", "D" are parameters. (One tensor of a structure that has
            several is named as in the state dict: "A_diagonal".) For a symbolic recurrence, the
            names of its parameters.
        executor: how it runs.
        parameters: for a symbolic recurrence, the values to start from, by name; tensors
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
        >>> lag = linrec.nn.Recurrence(linrec.StateSpace(A=[[-1.0]], B=[[1.0]]))
        >>> lag(torch.ones(3, 1), dt=torch.tensor([1.0, 0.5, 2.5])).outputs.squeeze()
        tensor([0.6321, 0.7769, 0.9817])
    """

    @overload
    def __new__(cls, recurrence: StateSpace, **options: Any) -> SampledSystem: ...

    @overload
    def __new__(cls, *args: Any, **options: Any) -> Self: ...

    def __new__(cls, *args: Any, **options: Any) -> Any:
        """Make a `SampledSystem` if the system is in continuous time."""
        given = args[0] if args else options.get("recurrence")
        if cls is Recurrence and isinstance(given, StateSpace):
            options.pop("recurrence", None)
            return SampledSystem(given, *args[1:], **options)
        return super().__new__(cls, *args, **options)

    def __init__(
        self,
        recurrence: LinearRecurrence | ParametricFamily,
        *,
        trainable: Collection[str] = (),
        executor: Executor = Auto(),
        parameters: Mapping[Any, Any] | None = None,
    ) -> None:
        super().__init__()
        shape = as_template(recurrence, parameters)
        trainable = [trainable] if isinstance(trainable, str) else list(trainable)
        trained = resolve_trainable(shape, trainable)
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
        # The tensors are put into this; for a recurrence it holds no numbers itself.
        self.shape = shape.to("meta") if isinstance(shape, LinearRecurrence) else shape
        self.leaf_names = tuple(self.shape.leaves())
        self.plans = PlanCache(executor)

    @property
    def recurrence(self) -> LinearRecurrence:
        """The recurrence of the present tensors."""
        leaves = {name: getattr(self, name) for name in self.leaf_names}
        return self.plans.recurrence(self.shape, leaves)

    @property
    def input_size(self) -> int:
        """The number of inputs, m."""
        return self.recurrence.input_size

    @property
    def output_size(self) -> int:
        """The number of outputs, p."""
        return self.recurrence.output_size

    @property
    def state_size(self) -> int:
        """The number of states, n."""
        return self.recurrence.state_size

    def arguments(self) -> dict[str, object]:
        """Return the constructor arguments of a module of the same form."""
        if not isinstance(self.shape, LinearRecurrence):
            raise ValueError(
                "The recurrence is symbolic, and symbols are not written into folders. Save "
                "`state_dict()`, and make the module of its equations again."
            )
        trainable = [name for name, _ in self.named_parameters()]
        executor = self.plans.executor
        return {"recurrence": self.shape, "trainable": trainable, "executor": executor}

    def as_recurrence(self) -> LinearRecurrence:
        """Return the recurrence that is the whole module, for `linrec.Stream`."""
        return self.recurrence

    def forward(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> Result:
        """Run all steps; arguments and result as in `linrec.run`.

        (With resets, A is unchanged: sequences are run piece by piece.)
        """
        if resets is not None:
            return run_segments(self, inputs, initial_state, lengths, resets)
        return self.plans.run(self.recurrence, inputs, initial_state, lengths)

    def final(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> Result:
        """Run for the last step only; arguments and result as in `linrec.final`."""
        if resets is not None:
            outputs, state = self(inputs, initial_state, lengths, resets)
            return Result(last_step(outputs, expand_lengths(lengths, outputs)), state)
        return self.plans.final(self.recurrence, inputs, initial_state, lengths)

    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Run one step; arguments and result as in `linrec.step`."""
        return step(self.recurrence, input, state)

    def _apply(self, fn: Any, recurse: bool = True) -> "Recurrence":
        self.plans.clear()  # plans are invalid for moved tensors, and would only keep memory in use
        return super()._apply(fn, recurse)

    def extra_repr(self) -> str:
        """Describe the sizes."""
        shape = self.recurrence
        copies = f", copies={shape.copies}" if shape.copies > 1 else ""
        return (
            f"{type(shape.A).__name__}, states={shape.state_size}, inputs={shape.input_size}, "
            f"outputs={shape.output_size}{copies}"
        )


def as_template(recurrence: object, parameters: Mapping[Any, Any] | None) -> Template:
    """Return the template of a module: a recurrence, or a symbolic one with its parameters."""
    if isinstance(recurrence, LinearRecurrence) and parameters is None:
        return recurrence
    bound_parameters = getattr(recurrence, "bound_parameters", None)
    if bound_parameters is not None:
        return bound_parameters(parameters or {})
    given = "" if parameters is None else " and `parameters` are given"
    raise TypeError(
        f"`recurrence` is of type {type(recurrence).__name__}{given}: expected a "
        "LinearRecurrence, a symbolic one and `parameters`, or a StateSpace."
    )


def check_names(shape: BoundParameters, trained: Collection[str]) -> None:
    """Refuse parameter names that a module uses for something else.

    `torch.nn.utils.parametrize` keeps constraints in a `ModuleDict`, which refuses the names of its
    own attributes, such as `update`.
    """
    own = {"", "shape", "leaf_names", "plans", "parametrizations"}
    known = {*own, *vars(nn.Module()), *dir(Recurrence)}
    in_a_dict = {*vars(nn.ModuleDict()), *dir(nn.ModuleDict)}
    for name in shape.leaves():
        constrained = name in trained and name in shape.constraints
        if "." in name or name in known or (constrained and name in in_a_dict):
            raise ValueError(
                f"A parameter is called `{name}`, a name that a module cannot give to a tensor: "
                "expected another one. Rename its symbol."
            )


def resolve_trainable(shape: Template, trainable: list[str]) -> set[str]:
    """Resolve `trainable`: tensor names, or the letter of a matrix."""
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
