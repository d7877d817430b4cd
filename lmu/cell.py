"""The Legendre Memory Unit of 2019: its weights, and one step of it."""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from linrec import Auto, Executor, Result
from linrec.nn import Pretrained
from linrec.nn.checks import check_input, check_size
from lmu.hidden_module import (
    HiddenCall,
    States,
    infer_output_size,
    is_cell,
    is_lstm,
    make_hidden_call,
    unwrap,
)
from lmu.initializers import VOELKER_2019, Initializer, Initializers
from lmu.memory import LegendreMemory


@dataclass(frozen=True, eq=False)
class StepWeights:
    """The matrices and masks that all steps of a call share, computed once.

    Attributes:
        A (order, order): Āᵀ.
        B (1, order): B̄ᵀ.
        e_h (hidden_size, channels): transposed; None without this connection.
        e_m (channels·order, channels): transposed; None without this connection.
        hidden_mask (rows, hidden_size): the factors of dropout for h on its way to the memory.
        memory_mask (rows, channels·order): the same for m.
    """

    A: Tensor
    B: Tensor
    e_h: Tensor | None
    e_m: Tensor | None
    hidden_mask: Tensor | None
    memory_mask: Tensor | None


class LMUCell(Pretrained, nn.Module):
    """One step of the Legendre Memory Unit of 2019, with or without each of its connections.

        u_t = e_x x_t + e_h h_{t-1} + e_m m_{t-1} + b_u
        m_t = Ā m_{t-1} + B̄ u_t
        h_t = f(m_t, x_t; h_{t-1})

    f is the hidden module. The unit of 2019 is the one whose f is `nn.RNNCell(..., bias=False)`,
    h_t = tanh(W_m m_t + W_x x_t + W_h h_{t-1}), with all three connections: `LMUCell.original`.

    Args:
        input_size: the size of x.
        channels: the size of u, how many signals are remembered (`memory_d` of keras-lmu).
        order: how many polynomials, d, per channel.
        theta: the length of the window, in steps.
        hidden: f. None: the outputs are the memory. A cell, `nn.RNNCell`, `nn.GRUCell` or
            `nn.LSTMCell` or a class derived from one, is recurrent. Any other module, such as
            `nn.Sequential(nn.Linear(...), nn.ReLU())`, is applied to each step by itself. It takes
            `(rows, features)`: the memory, channels·order numbers, and with `input_to_hidden` the
            input after it, input_size more.
        hidden_to_memory: whether there is e_h.
        memory_to_memory: whether there is e_m.
        input_to_hidden: whether f sees the input. Without f: whether the outputs are the memory
            followed by the input.
        input_projection: whether there are e_x and b_u; without them, u = x + ... and channels =
            input_size.
        bias: whether there is b_u.
        trainable_theta: whether the length of the window is trained.
        method: the method of `linrec.discretize` for Ā and B̄, as in `LegendreMemory`.
        input_dropout: the share of x and h that is dropped before the memory in training. Each
            call drops other entries, because a cell does not know where a sequence begins. `LMU`
            drops the same entries at all steps of a sequence.
        recurrent_dropout: the share of m that is dropped before e_m in training, in the same way.
        initializers: how the weights begin.
        executor: how `LMU` runs the memory where it can run in parallel.

    The state is one tensor `(*batch, state_size)`: the memory, followed by h, and c of an LSTM,
    where they are needed for the next step. `LMU` has the same keys in its state dict.

    A hidden module that is not exactly one of torch's cells is called once on zeros, to find its
    output size. Every call includes its hooks and parametrisations, and passes tensors that are
    not the unit's own state, so that the module may write into them. Initialisers leave
    parametrised weights alone.

    Raises:
        ValueError: sizes that do not fit together, or `hidden_to_memory` without a hidden module.
        TypeError: a hidden module that does not return one tensor, such as `nn.LSTM`.

    Example:
        >>> import torch, lmu
        >>> cell = lmu.LMUCell.original(input_size=3, hidden_size=8, order=6, theta=50)
        >>> outputs, state = cell(torch.randn(4, 3))
        >>> outputs, state = cell(torch.randn(4, 3), state)
        >>> outputs.shape, state.shape
        (torch.Size([4, 8]), torch.Size([4, 14]))

    References:
        Voelker, Kajić and Eliasmith 2019, Legendre Memory Units, eqs 1-7.
    """

    only_first = ("initializers",)  # options that only the initial weights depend on

    def __init__(
        self,
        input_size: int,
        channels: int,
        order: int,
        theta: float,
        hidden: nn.Module | None = None,
        *,
        hidden_to_memory: bool = False,
        memory_to_memory: bool = False,
        input_to_hidden: bool = False,
        input_projection: bool = True,
        bias: bool = False,
        trainable_theta: bool = False,
        method: str = "zoh",
        input_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        initializers: Initializers = VOELKER_2019,
        executor: Executor = Auto(),
    ) -> None:
        super().__init__()
        if not isinstance(input_size, int) or input_size < 1:
            raise ValueError(
                f"`input_size` is {input_size!r}: expected a whole number of 1 or more."
            )
        if not input_projection and channels != input_size:
            raise ValueError(
                f"`channels` is {channels} and `input_size` {input_size}: without a projection "
                "the inputs are the channels. Pass equal numbers, or `input_projection=True`."
            )
        for name, share in (
            ("input_dropout", input_dropout),
            ("recurrent_dropout", recurrent_dropout),
        ):
            if not 0 <= share < 1:
                raise ValueError(f"`{name}` is {share}: expected a share from 0 to below 1.")
        if hidden is not None and not isinstance(hidden, nn.Module):
            raise TypeError(
                f"`hidden` is of type {type(hidden).__name__}: expected an `nn.Module`, or None. "
                "Pass `hidden=torch.nn.RNNCell(…)`, say."
            )
        if hidden_to_memory and hidden is None:
            raise ValueError(
                "`hidden_to_memory` is True, but `hidden` is None: expected a module to connect. "
                "Pass `hidden=...`, or `hidden_to_memory=False`."
            )
        self.memory = LegendreMemory(
            channels, order, theta, method, trainable_theta, executor=executor
        )
        self.input_size, self.channels, self.order = input_size, channels, order
        self.memory_size = channels * order
        self.input_to_hidden = input_to_hidden
        self.hidden = hidden
        seen = self.memory_size + input_size * input_to_hidden
        self.output_size = seen if hidden is None else infer_output_size(hidden, seen)
        self.input_to_memory = nn.Linear(input_size, channels, bias) if input_projection else None
        self.hidden_to_memory = (
            nn.Linear(self.output_size, channels, False) if hidden_to_memory else None
        )
        self.memory_to_memory = (
            nn.Linear(self.memory_size, channels, False) if memory_to_memory else None
        )
        self.input_dropout, self.recurrent_dropout = input_dropout, recurrent_dropout
        self.initializers = initializers
        self.reset_parameters()

    @classmethod
    def original(
        cls,
        input_size: int,
        hidden_size: int,
        order: int,
        theta: float,
        *,
        trainable_theta: bool = False,
        method: str = "zoh",
        initializers: Initializers = VOELKER_2019,
    ) -> Self:
        """Make the unit of 2019: one channel, tanh units, all connections, no biases.

        Args:
            input_size: the size of x.
            hidden_size: how many tanh units.
            order: how many polynomials, d.
            theta: the length of the window, in steps.
            trainable_theta: whether the length of the window is trained.
            method: "zoh" or "euler".
            initializers: how the weights begin.

        Returns:
            The unit; its state is the memory, followed by h.
        """
        return cls(
            input_size,
            1,
            order,
            theta,
            nn.RNNCell(order + input_size, hidden_size, bias=False),
            hidden_to_memory=True,
            memory_to_memory=True,
            input_to_hidden=True,
            trainable_theta=trainable_theta,
            method=method,
            initializers=initializers,
        )

    def reset_parameters(self) -> None:
        """Draw the weights anew; in the hidden module, only those with an initialiser."""
        chosen = self.initializers
        for connection, initializer in (
            (self.input_to_memory, chosen.input_to_memory),
            (self.hidden_to_memory, chosen.hidden_to_memory),
            (self.memory_to_memory, chosen.memory_to_memory),
        ):
            if connection is not None:
                fill(connection.weight, initializer)
        if self.input_to_memory is not None and self.input_to_memory.bias is not None:
            nn.init.zeros_(self.input_to_memory.bias)
        weight = find_first_weight(self.hidden)
        if weight is not None:
            fill(weight[:, : self.memory_size], chosen.memory_to_hidden)
            if self.input_to_hidden:
                fill(weight[:, self.memory_size :], chosen.input_to_hidden)
        cell = unwrap(self.hidden)
        if isinstance(cell, nn.RNNCellBase):
            fill(cell._parameters.get("weight_hh"), chosen.hidden_to_hidden)

    @property
    def hidden_states(self) -> int:
        """The number of the hidden module's tensors in the state.

        For an LSTM these are h and c, for another cell h, for other modules h if the memory sees
        it.
        """
        if is_cell(self.hidden):
            return 1 + is_lstm(self.hidden)
        return int(self.hidden_to_memory is not None)

    @property
    def state_size(self) -> int:
        """The number of entries of the state: the memory, then the hidden states."""
        return self.memory_size + self.hidden_states * self.output_size

    def forward(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Run one step; arguments and result as of `step`."""
        return self.step(input, state)

    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Run one step.

        Args:
            input (*batch, input_size): x_t.
            state (*batch, state_size): the state that the previous step returned. None: zeros.

        Returns:
            `outputs (*batch, output_size)` and `state (*batch, state_size)`.
        """
        check_input("input", input, self.input_size, self.dtype)
        batch = input.shape[:-1]
        rows = input.reshape(math.prod(batch), self.input_size)
        weights, hidden = self.step_weights(rows), self.make_hidden_call()
        memory, states = self.unpack_state(state, rows, batch)
        drive, given = (f(rows.unsqueeze(1)).squeeze(1) for f in (self.drive, hidden.inputs))
        memory = self.next_memory(weights, drive, memory.to(weights.A.dtype), states)
        output, states = hidden.step(memory.to(self.dtype), given, states)
        state = torch.cat([memory, *states], -1)
        return Result(output.view(*batch, self.output_size), state.view(*batch, state.shape[-1]))

    def step_weights(self, rows: Tensor) -> StepWeights:
        """Discretise and transpose the matrices for all steps of a call, and draw the dropout.

        The memory is accumulated, as in runs in parallel, in float32 at least.
        """
        recurrence = self.memory.recurrence_of(None)
        dtype = torch.promote_types(self.dtype, torch.float32)
        e_h, e_m = self.hidden_to_memory, self.memory_to_memory
        assert recurrence.B is not None
        return StepWeights(
            recurrence.A.to_dense().mT.to(dtype),
            recurrence.B.mT.to(dtype),
            None if e_h is None else e_h.weight.mT,
            None if e_m is None else e_m.weight.mT,
            None if e_h is None else self.mask(rows, self.output_size, self.input_dropout),
            None if e_m is None else self.mask(rows, self.memory_size, self.recurrent_dropout),
        )

    def make_hidden_call(self, padded: bool = False) -> HiddenCall:
        """Choose how to call the hidden module, which can change between calls of the unit."""
        return make_hidden_call(
            self.hidden,
            self.memory_size,
            self.input_size * self.input_to_hidden,
            self.output_size,
            self.hidden_states,
            self.dtype,
            padded,
        )

    def mask(self, rows: Tensor, size: int, share: float) -> Tensor | None:
        """Draw a dropout mask `(rows, size)`, the same for every step of a call."""
        if not self.training or not share:
            return None
        return dropout(rows.new_ones(rows.shape[0], size), share)

    def drive(self, inputs: Tensor) -> Tensor:
        """Compute e_x x + b_u for `inputs (rows, time, input_size)`."""
        mask = self.mask(inputs, self.input_size, self.input_dropout)
        inputs = inputs if mask is None else inputs * mask.unsqueeze(1)
        return inputs if self.input_to_memory is None else self.input_to_memory(inputs)

    def next_memory(
        self, weights: StepWeights, drive: Tensor, memory: Tensor, states: States
    ) -> Tensor:
        """Compute m_t for a batch of rows from m_{t-1}, h_{t-1} and e_x x_t + b_u."""
        u = drive
        if weights.e_h is not None:
            u = torch.addmm(u, apply_mask(states[0], weights.hidden_mask), weights.e_h)
        if weights.e_m is not None:
            remembered = memory.to(u.dtype)
            u = torch.addmm(u, apply_mask(remembered, weights.memory_mask), weights.e_m)
        # Āᵀ and B̄ᵀ serve all channels, each of which is a row of its own here.
        driven = u.reshape(-1, 1).to(memory.dtype) * weights.B
        memory = torch.addmm(driven, memory.view(-1, self.order), weights.A)
        return memory.view(u.shape[0], self.memory_size)

    def unpack_state(
        self, state: Tensor | None, rows: Tensor, batch: torch.Size
    ) -> tuple[Tensor, States]:
        """Split a state into memory and hidden states, with the batch in rows."""
        sizes = [self.memory_size, *[self.output_size] * self.hidden_states]
        size, dtype = sum(sizes), self.dtype
        if state is None:
            state = rows.new_zeros(rows.shape[0], size, dtype=dtype)
        else:
            check_size("state", state, size)
            state = state.expand(*batch, -1).reshape(rows.shape[0], size)
        memory, *states = state.split(sizes, -1)
        return memory.contiguous(), tuple(part.to(dtype) for part in states)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the memory and of the whole unit."""
        memory = self.memory
        return (memory.A if memory.log_theta is None else memory.log_theta).dtype

    def extra_repr(self) -> str:
        """Name the sizes."""
        return f"{self.input_size}, output_size={self.output_size}, state_size={self.state_size}"


def find_first_weight(hidden: nn.Module | None) -> Tensor | None:
    """Find the first weight that a hidden module's input meets; None if it is parametrised."""
    cell = unwrap(hidden)
    if cell is None:
        return None
    if isinstance(cell, nn.RNNCellBase):
        return cell._parameters.get("weight_ih")
    first = next((m for m in cell.modules() if isinstance(m, nn.Linear)), None)
    return None if first is None else first._parameters.get("weight")


def fill(weight: Tensor | None, initializer: Initializer | None) -> None:
    """Fill a matrix, or a part of one, by an initialiser."""
    if weight is not None and initializer is not None:
        with torch.no_grad():
            initializer(weight)


def apply_mask(values: Tensor, mask: Tensor | None) -> Tensor:
    """Apply a dropout mask."""
    return values if mask is None else values * mask
