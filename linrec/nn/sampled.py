"""A continuous-time system as a module, sampled at arbitrary times."""

from collections.abc import Collection

import torch
from torch import Tensor, nn

from linrec._tensors.arguments import as_tensor
from linrec._tensors.known_values import has_values, may_keep
from linrec.discretization import discretize
from linrec.executors import Executor, Result
from linrec.lengths import expand_lengths, last_step, length_mask
from linrec.nn.packed import TakesPacked
from linrec.nn.plans import PlanCache
from linrec.nn.pretrained import Pretrained
from linrec.nn.segments import run_segments
from linrec.planner import Auto
from linrec.run import final as run_final
from linrec.run import run, step
from linrec.systems import LinearRecurrence, StateSpace


class TimedRecurrence(Pretrained, TakesPacked):
    """A recurrence whose steps may differ in length; with equal steps it runs by a kept plan.

    A subclass defines `recurrence_of` and creates the cache of plans.
    """

    plans: PlanCache

    def recurrence_of(self, dt: Tensor | None) -> LinearRecurrence:
        """Make the recurrence of steps of length `dt (*batch, time)`; None: equal steps."""
        raise NotImplementedError

    def forward(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
        dt: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> Result:
        """Run all steps.

        Args:
            inputs (*batch, time, m): u, each held over its step; or a `PackedSequence`, as the
                outputs are then.
            initial_state (*batch, n): the state before the first step. None: zeros.
            lengths (*batch): the steps of each right-padded sequence.
            dt (*batch, time): the length of each step; past a sequence's end it may be anything.
                None: the length that the module was made for.
            resets (*batch, time): True where the state before a step is forgotten. None: nowhere.

        Returns:
            `outputs (*batch, time, p)`, read at the end of each step, and
            `final_state (*batch, n)`.
        """
        if resets is not None:
            return run_segments(self, inputs, initial_state, lengths, resets, dt=dt)
        recurrence = self.recurrence_of(ignore_padding(dt, inputs, lengths))
        if dt is None:
            return self.plans.run(recurrence, inputs, initial_state, lengths)
        executor = self.plans.executor
        return run(recurrence, inputs, initial_state, lengths=lengths, executor=executor)

    def final(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
        dt: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> Result:
        """Run for the last step only; arguments as in `forward`.

        Returns:
            `outputs (*batch, p)` and `final_state (*batch, n)`.
        """
        if resets is not None:
            outputs, state = self(inputs, initial_state, lengths, dt, resets)
            return Result(last_step(outputs, expand_lengths(lengths, outputs)), state)
        recurrence = self.recurrence_of(ignore_padding(dt, inputs, lengths))
        if dt is None:
            return self.plans.final(recurrence, inputs, initial_state, lengths)
        executor = self.plans.executor
        return run_final(recurrence, inputs, initial_state, lengths=lengths, executor=executor)

    def step(
        self, input: Tensor, state: Tensor | None = None, dt: Tensor | float | None = None
    ) -> Result:
        """Run one step, for streaming.

        Args:
            input (*batch, m): u_t.
            state (*batch, n): the previous state. None: zeros.
            dt (*batch): the length of this step. None: the length that the module was made for.

        Returns:
            `outputs (*batch, p)` and `state (*batch, n)`.
        """
        if dt is None:
            return step(self.recurrence_of(None), input, state)
        now = as_tensor("dt", dt, torch.float64, "cpu").to(torch.float64)
        return step(self.recurrence_of(now.unsqueeze(-1)).at(0), input, state)


def ignore_padding(dt: Tensor | None, inputs: Tensor, lengths: Tensor | None) -> Tensor | None:
    """Put NaN, which `discretize` takes for padding, in place of lengths past a sequence's end."""
    if dt is None or lengths is None:
        return dt
    dt = as_tensor("dt", dt, torch.float64, inputs.device)
    if dt.shape[-1:] != inputs.shape[-2:-1]:
        return dt  # (not one for each step, which is refused later, with what was expected)
    lengths = expand_lengths(lengths, inputs)
    if dt.ndim <= lengths.ndim:  # lengths of several sequences, up to the end of the longest
        axes = range(lengths.ndim - dt.ndim + 1)
        lengths = lengths.amax(tuple(axes)) if lengths.numel() else lengths.new_zeros(())
    own = length_mask(lengths.to(dt.device), inputs.shape[-2])
    return torch.where(own, dt, torch.nan)


class SampledSystem(TimedRecurrence):
    """A linear system in continuous time, whose samples may be any time apart.

        x'(t) = A x(t) + B u(t)        y(t) = C x(t) + D u(t)

    Each call discretises it, with one step length for all samples or with the `dt` of each, with
    respect to which the module is differentiable. Equal steps share one matrix exponential. Sample
    t is held until the end of its step, where y_t is read.

    Args:
        system: the system; its tensors are copied.
        dt: the step length of calls without a `dt`, in the unit of time of `system`.
        method: the method of discretisation, one of `linrec.discretize` except "gbt".
        trainable: which of "A", "B", "C", "D" are parameters. (One tensor of a structure that has
            several is named as in the state dict: "A_left".)
        executor: how it runs.

    Raises:
        TypeError: `system` is not a `StateSpace`.
        ValueError: a trainable name that the system does not have, or a step that is not positive.

    Example:
        >>> import torch, linrec
        >>> lag = linrec.StateSpace(A=[[-1.0]], B=[[1.0]])
        >>> module = linrec.nn.SampledSystem(lag, trainable=["A"])
        >>> times = torch.tensor([1.0, 1.5, 4.0])
        >>> dt = torch.diff(times, prepend=torch.zeros(1))
        >>> module(torch.ones(3, 1), dt=dt).outputs.squeeze()  # 1 - exp(-times)
        tensor([0.6321, 0.7769, 0.9817], grad_fn=<SqueezeBackward0>)

    References:
        Franklin, Powell and Workman 1998, Digital Control of Dynamic Systems, section 4.3.
    """

    def __init__(
        self,
        system: StateSpace,
        *,
        dt: float = 1.0,
        method: str = "zoh",
        trainable: Collection[str] = (),
        executor: Executor = Auto(),
    ) -> None:
        super().__init__()
        if not isinstance(system, StateSpace):
            raise TypeError(
                f"`system` is of type {type(system).__name__}: expected a linrec.StateSpace. A "
                "LinearRecurrence is in discrete time already: pass it to `linrec.nn.Recurrence`."
            )
        self.dt, self.method = float(dt), method
        self.input_size, self.output_size = system.input_size, system.output_size
        self.state_size = system.state_size
        discretize(system, self.dt, method)  # refuses systems that it cannot discretise
        held = LinearRecurrence(system.A, *system.matrices())
        asked = {trainable} if isinstance(trainable, str) else set(trainable)
        names = {name: {name, name.partition("_")[0]} for name in held.leaves()}
        unknown = sorted(asked - set().union(*names.values()))
        if unknown:
            raise ValueError(
                f"`trainable` names {unknown}, which the system does not have: expected some of "
                f"{sorted(names)}."
            )
        for name, leaf in held.leaves().items():
            copy = leaf.detach().clone(memory_format=torch.contiguous_format)
            if names[name] & asked:
                self.register_parameter(name, nn.Parameter(copy))
            else:
                self.register_buffer(name, copy)
        self.shape = held.to("meta")  # the tensors are put into it; it holds no numbers
        self.plans = PlanCache(executor)
        # The frozen recurrence of the constructor's dt, and the tensors that it was made of.
        self.kept: tuple[list[Tensor], LinearRecurrence] | None = None

    @property
    def system(self) -> StateSpace:
        """The system of the present tensors."""
        held = self.shape.with_leaves({name: getattr(self, name) for name in self.shape.leaves()})
        B, C, D = held.matrices()
        return StateSpace(held.A, B, C, D)

    def recurrence(self, dt: Tensor | None = None) -> LinearRecurrence:
        """Discretise the system of the present tensors.

        Args:
            dt (*batch, time): the length of each step. None: the constructor's, for all steps.

        Returns:
            The recurrence, time-varying if there is a `dt`.
        """
        if dt is not None:
            return discretize(self.system, dt, self.method, dt_per="step")
        leaves = [getattr(self, name) for name in self.shape.leaves()]
        if torch.compiler.is_compiling() or not may_keep(*leaves):
            return discretize(self.system, self.dt, self.method)
        kept = self.kept
        if kept is None or not all(map(same_values, kept[0], leaves)):
            copies = [leaf.detach().clone() for leaf in leaves]
            kept = copies, discretize(self.system, self.dt, self.method)
            self.kept = kept if has_values(*leaves) else None
        return kept[1]

    recurrence_of = recurrence

    def arguments(self) -> dict[str, object]:
        """Return the constructor arguments of a module of the same form."""
        B, C, D = self.shape.matrices()
        return {
            "system": StateSpace(self.shape.A, B, C, D),
            "dt": self.dt,
            "method": self.method,
            "trainable": [name for name, _ in self.named_parameters()],
            "executor": self.plans.executor,
        }

    def __getstate__(self) -> dict[str, object]:
        return {**super().__getstate__(), "kept": None}

    def extra_repr(self) -> str:
        """Describe the sizes."""
        return (
            f"{type(self.shape.A).__name__}, states={self.state_size}, inputs={self.input_size}, "
            f"outputs={self.output_size}, dt={self.dt:g}, method={self.method!r}"
        )


def same_values(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal in values, shape, dtype and device."""
    known = has_values(one, other) and (one.dtype, one.device) == (other.dtype, other.device)
    return known and torch.equal(one, other)
