"""The Legendre Memory Unit of 2019 over whole sequences, in parallel where its options allow."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import linrec
from linrec import LinearRecurrence, Result
from linrec.lengths import expand_lengths
from linrec.nn import Layer
from linrec.nn.checks import check_steps
from linrec.nn.segments import run_segments
from lmu.cell import LMUCell
from lmu.hidden_module import HiddenCall, NoModule, States, is_cell
from lmu.layers.padding import last_own_step, own_steps, without_padding


@dataclass(frozen=True)
class Parallelism:
    """A printable report of how an `LMU` runs, and why.

    Attributes:
        memory_reason: why the memory goes step by step; None: it runs in parallel.
        hidden_reason: why the hidden module goes step by step; None: it runs in parallel.
        executors: the table of `linrec.explain` for the memory; None if it goes step by step.
    """

    memory_reason: str | None
    hidden_reason: str | None
    executors: object | None

    @property
    def parallel(self) -> bool:
        """Whether everything runs in parallel."""
        return self.memory_reason is None and self.hidden_reason is None

    def __str__(self) -> str:
        lines = [
            f"{part}: in parallel over time."
            if reason is None
            else f"{part}: step by step, {reason}."
            for part, reason in (("memory", self.memory_reason), ("hidden", self.hidden_reason))
        ]
        return "\n".join(lines if self.executors is None else [*lines, str(self.executors)])


class LMU(LMUCell, Layer):
    """The Legendre Memory Unit over whole sequences.

        u_t = e_x x_t + e_h h_{t-1} + e_m m_{t-1} + b_u
        m_t = Ā m_{t-1} + B̄ u_t
        h_t = f(m_t, x_t; h_{t-1})

    The memory runs in parallel unless e_h feeds the hidden module back into it; e_m is then part
    of its matrix. The hidden module runs in parallel unless it is a recurrent cell. The other
    parts go step by step; `explain` names them.

    The arguments are those of `LMUCell`, and weights can be loaded from one into the other.

    Args:
        input_size: the size of x.
        channels: the size of u.
        order: how many polynomials, d, for each channel.
        theta: the length of the window, in steps.
        hidden: f: None, a recurrent cell, or any module that is applied to each step by itself. Its
            inputs are always `(rows, features)`, with the steps of all sequences as rows.
        hidden_to_memory: whether there is e_h.
        memory_to_memory: whether there is e_m.
        input_to_hidden: whether f sees the input. Without f: whether the outputs are the memory
            followed by the input.
        input_projection: whether there are e_x and b_u.
        bias: whether there is b_u.
        trainable_theta: whether the length of the window is trained.
        method: the method of `linrec.discretize` for Ā and B̄, as in `LegendreMemory`.
        input_dropout: the share of x and h that is dropped before the memory in training, the same
            entries at all steps of a sequence.
        recurrent_dropout: the share of m that is dropped before e_m in training, in the same way.
        initializers: how the weights begin.
        executor: how the memory is run where it runs in parallel.

    Raises:
        ValueError: sizes that do not fit together, or `hidden_to_memory` without a hidden module.
        TypeError: a hidden module that does not return one tensor, such as `nn.LSTM`.

    Example:
        >>> import torch, lmu
        >>> hidden = torch.nn.LSTMCell(2 * 6, 8)
        >>> unit = lmu.LMU(3, channels=2, order=6, theta=50, hidden=hidden)
        >>> outputs, state = unit(torch.randn(4, 100, 3))
        >>> outputs.shape, state.shape
        (torch.Size([4, 100, 8]), torch.Size([4, 28]))
        >>> print(unit.explain(100, (4,)))
        memory: in parallel over time.
        hidden: step by step, since LSTMCell is recurrent.
        executor...

    References:
        Voelker, Kajić and Eliasmith 2019, Legendre Memory Units, eqs 1-7.
    """

    def forward(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> Result:
        """Run all steps; dropout draws its entries once for all of them.

        Args:
            inputs (*batch, time, input_size): x.
            initial_state (*batch, state_size): the memory, then h (and c). None: zeros.
            lengths (*batch): the steps of each right-padded sequence; padding has no effect, and
                outputs there are zero.
            resets (*batch, time): True where the state before a step is forgotten. None: nowhere.

        Returns:
            `outputs (*batch, time, output_size)` and the state at each sequence's own end,
            `final_state (*batch, state_size)`.
        """
        if resets is not None:
            return run_segments(self, inputs, initial_state, lengths, resets)
        inputs, memory, states, lengths, batch = self.prepare_call(inputs, initial_state, lengths)
        mask = None if lengths is None else own_steps(inputs, lengths)
        hidden = self.make_hidden_call(padded=mask is not None)
        if self.why_memory_steps() is not None:
            outputs, memory, states = self.run_all_steps(hidden, inputs, memory, states, mask)
        else:
            memories, memory = self.memory.plans.run(
                self.recurrence(),
                self.drive(inputs),
                omit_zero_state(initial_state, memory),
                lengths,
            )
            memories = memories.to(self.dtype)
            if self.why_hidden_steps() is not None:
                outputs, states = self.run_hidden_steps(hidden, memories, inputs, states, mask)
            elif isinstance(hidden, NoModule):
                # (Memories in rows and back would tie an exported graph to its number of steps.)
                outputs, _ = hidden.step(memories, inputs, ())
            else:
                # One axis of rows, as in `step`: a module may name the axis that it works on.
                rows = memories.flatten(0, 1), inputs.flatten(0, 1)
                own = None if mask is None else mask.flatten(0, 1)
                outputs = hidden.step(*rows, (), own)[0].unflatten(0, inputs.shape[:2])
        if mask is not None:
            outputs = torch.where(mask, outputs, 0)
        state = torch.cat([memory, *states], -1)
        return Result(outputs.view(*batch, *outputs.shape[1:]), state.view(*batch, state.shape[-1]))

    def final(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> Result:
        """Compute the last step only, without all states of a memory that runs in parallel.

        Args:
            inputs (*batch, time, input_size): x.
            initial_state (*batch, state_size): the memory, then h (and c). None: zeros.
            lengths (*batch): the steps of each right-padded sequence.
            resets (*batch, time): True where the state before a step is forgotten. None: nowhere.

        Returns:
            `outputs (*batch, output_size)` of each sequence's last step (zero where it has none),
            and `final_state (*batch, state_size)`.
        """
        check_steps(self, inputs)
        steps = self.why_memory_steps() or self.why_hidden_steps() or not inputs.shape[-2]
        if steps or resets is not None:
            return Layer.final(self, inputs, initial_state, lengths, resets)
        inputs, memory, _, lengths, batch = self.prepare_call(inputs, initial_state, lengths)
        last, memory = self.memory.plans.final(
            self.recurrence(), self.drive(inputs), omit_zero_state(initial_state, memory), lengths
        )
        own = None if lengths is None else lengths.unsqueeze(-1) > 0
        hidden, last = self.make_hidden_call(padded=own is not None), last.to(self.dtype)
        outputs, _ = hidden.step(last, last_own_step(inputs, lengths), (), own)
        if own is not None:
            outputs = torch.where(own, outputs, 0)
        state = memory.clone()  # without a module the outputs are the memory
        return Result(outputs.view(*batch, self.output_size), state.view(*batch, state.shape[-1]))

    def explain(self, length: int, batch_shape: Sequence[int] = ()) -> Parallelism:
        """Explain which parts run in parallel over time, and why the others cannot.

        Args:
            length: how many steps.
            batch_shape: the batch axes of the inputs.

        Returns:
            How each part runs, to print or to read.
        """
        memory, executors = self.why_memory_steps(), None
        if memory is None:
            with torch.no_grad():
                recurrence = self.recurrence()
            executors = linrec.explain(recurrence, length, batch_shape, prepared=self.frozen_memory)
        hidden = self.why_hidden_steps() if memory is None else "with the memory"
        return Parallelism(memory, hidden, executors)

    @property
    def frozen_memory(self) -> bool:
        """Whether the memory's recurrence is not trained, so that its plan can be kept."""
        return self.memory_to_memory is None and self.memory.log_theta is None

    def why_memory_steps(self) -> str | None:
        """Say why the memory cannot run in parallel over time; None if it can."""
        if self.hidden_to_memory is not None:
            return "since hidden_to_memory makes it depend on the hidden module's last output"
        if self.memory_to_memory is not None and self.training and self.recurrent_dropout:
            return "since recurrent_dropout gives every sequence a matrix of its own in training"
        return None

    def why_hidden_steps(self) -> str | None:
        """Say why the hidden module cannot run in parallel over time; None if it can."""
        return f"since {type(self.hidden).__name__} is recurrent" if is_cell(self.hidden) else None

    def recurrence(self) -> LinearRecurrence:
        """Make the memory's recurrence, with e_m in it: m_t = (Ā + B̄ e_m) m_{t-1} + B̄ u_t."""
        alone = self.memory.recurrence_of(None)
        if self.memory_to_memory is None:
            return alone
        assert alone.B is not None
        # (In float32 at least, as in `step_weights`: the sum of two halves would lose e_m.)
        alone = alone.to(torch.promote_types(alone.dtype, torch.float32))
        assert alone.B is not None
        A, B = (torch.block_diag(*[M] * self.channels) for M in (alone.A.to_dense(), alone.B))
        return LinearRecurrence(A + B @ self.memory_to_memory.weight.to(B.dtype), B)

    def prepare_call(
        self, inputs: Tensor, state: Tensor | None, lengths: Tensor | None
    ) -> tuple[Tensor, Tensor, States, Tensor | None, torch.Size]:
        """Check a call, put the batch into rows, and put zeros into the padding."""
        check_steps(self, inputs)
        batch, count = inputs.shape[:-2], math.prod(inputs.shape[:-2])
        if lengths is not None:
            lengths = expand_lengths(lengths, inputs).reshape(count)
        rows = without_padding(inputs.reshape(count, *inputs.shape[-2:]), lengths)
        memory, states = self.unpack_state(state, rows, batch)
        return rows, memory, states, lengths, batch

    def run_all_steps(
        self,
        hidden: HiddenCall,
        inputs: Tensor,
        memory: Tensor,
        states: States,
        mask: Tensor | None,
    ) -> tuple[Tensor, Tensor, States]:
        """Run memory and hidden module one step after the other."""
        weights = self.step_weights(inputs)
        memory = memory.to(weights.A.dtype)
        drives = self.drive(inputs).unbind(1)
        own = [None] * len(drives) if mask is None else mask.unbind(1)
        outputs = []
        for drive, given, active in zip(drives, hidden.inputs(inputs).unbind(1), own, strict=True):
            following = self.next_memory(weights, drive, memory, states)
            output, after = hidden.step(following.to(self.dtype), given, states, active)
            memory = keep_ended(active, following, memory)
            states = tuple(map(keep_ended, [active] * len(states), after, states))
            outputs.append(output)
        return self.stack_steps(outputs, memory), memory, states

    def run_hidden_steps(
        self,
        hidden: HiddenCall,
        memories: Tensor,
        inputs: Tensor,
        states: States,
        mask: Tensor | None,
    ) -> tuple[Tensor, States]:
        """Run the hidden module alone, one step after the other."""
        own = [None] * inputs.shape[1] if mask is None else mask.unbind(1)
        each = zip(memories.unbind(1), hidden.inputs(inputs).unbind(1), own, strict=True)
        outputs = []
        for memory, given, active in each:
            output, after = hidden.step(memory, given, states, active)
            states = tuple(map(keep_ended, [active] * len(states), after, states))
            outputs.append(output)
        return self.stack_steps(outputs, memories), states

    def stack_steps(self, outputs: list[Tensor], like: Tensor) -> Tensor:
        """Stack steps, `(rows, time, output_size)`, even if there are none."""
        if outputs:
            return torch.stack(outputs, 1)
        return like.new_zeros(like.shape[0], 0, self.output_size)


def keep_ended(active: Tensor | None, after: Tensor, before: Tensor) -> Tensor:
    """Take `after` where a sequence goes on, `active (rows, 1)`, else `before`."""
    return after if active is None else torch.where(active, after, before)


def omit_zero_state(initial_state: Tensor | None, memory: Tensor) -> Tensor | None:
    """Return the memory, or None where there is no initial state: zeros need not be carried."""
    return None if initial_state is None else memory
