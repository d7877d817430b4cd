"""The weights and the step of the Legendre Memory Unit of 2019, which all its forms have."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear

from linrec import Auto, Executor, Result
from lmu.initializers import VOELKER_2019, Initializer, Initializers
from lmu.memory import LegendreMemory


@dataclass(frozen=True, eq=False)
class Update:
    """What all steps of a call have in common, computed once.

    Attributes:
        A (order, order): Āᵀ.
        B (1, order): B̄ᵀ.
        e_h (hidden_size, channels): transposed; None without this connection.
        e_m (channels·order, channels): likewise.
        hidden_mask (rows, hidden_size): what dropout leaves of h on its way to the memory.
        memory_mask (rows, channels·order): likewise of m.
        units: what `LegendreUnit.units` returns.
    """

    A: Tensor
    B: Tensor
    e_h: Tensor | None
    e_m: Tensor | None
    hidden_mask: Tensor | None
    memory_mask: Tensor | None
    units: "Units | None"


class Units(NamedTuple):
    """The weights of plain units, h_t = f(W_m m_t + W_h h_{t-1} + below_t), as products want them.

    Attributes:
        W_h (hidden_size, hidden_size): transposed.
        W_m (channels·order, hidden_size): transposed.
        activation: f.
    """

    W_h: Tensor
    W_m: Tensor
    activation: Callable[[Tensor], Tensor]


class LegendreUnit(nn.Module):
    """The weights and the step of a Legendre Memory Unit; `LMUCell` and `LMU` say how it is called.

    The keys of the state dict are the same in both, so that one takes the weights of the other.
    """

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
        discretizer: str = "zoh",
        dropout: float = 0.0,
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
        for name, share in (("dropout", dropout), ("recurrent_dropout", recurrent_dropout)):
            if not 0 <= share < 1:
                raise ValueError(f"`{name}` is {share}: expected a share from 0 to below 1.")
        for name, wanted in (
            ("hidden_to_memory", hidden_to_memory),
            ("input_to_hidden", input_to_hidden),
        ):
            if wanted and hidden is None:
                raise ValueError(
                    f"`{name}` is True, but `hidden` is None: expected a module to connect. Pass "
                    f"`hidden=...`, or `{name}=False`."
                )
        self.memory = LegendreMemory(
            channels, order, theta, discretizer, trainable_theta, executor=executor
        )
        self.input_size, self.channels, self.order = input_size, channels, order
        self.memory_size = channels * order
        self.feeds_input = input_to_hidden
        self.hidden = hidden
        seen = self.memory_size + input_size * input_to_hidden
        self.output_size = self.memory_size if hidden is None else output_size(hidden, seen)
        # Of an LSTM h and c are carried from step to step, of another cell h, of other modules
        # nothing unless the memory is told of it.
        self.gates_cell = isinstance(hidden, nn.LSTMCell)
        self.recurrent = isinstance(hidden, nn.RNNCellBase)
        self.carried = 1 + self.gates_cell if self.recurrent else int(hidden_to_memory)
        self.state_size = self.memory_size + self.carried * self.output_size
        self.input_to_memory = nn.Linear(input_size, channels, bias) if input_projection else None
        self.hidden_to_memory = (
            nn.Linear(self.output_size, channels, False) if hidden_to_memory else None
        )
        self.memory_to_memory = (
            nn.Linear(self.memory_size, channels, False) if memory_to_memory else None
        )
        self.dropout, self.recurrent_dropout = dropout, recurrent_dropout
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
        discretizer: str = "zoh",
        initializers: Initializers = VOELKER_2019,
    ) -> Self:
        """Make the unit of 2019: one channel, tanh units, all connections, no biases.

        Args:
            input_size: the size of x.
            hidden_size: how many tanh units.
            order: how many polynomials, d.
            theta: the length of the window, in steps.
            trainable_theta: whether the length of the window is trained.
            discretizer: "zoh" or "euler".
            initializers: how the weights begin.

        Returns:
            The unit, of which the state is the memory and then h.
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
            discretizer=discretizer,
            initializers=initializers,
        )

    def reset_parameters(self) -> None:
        """Draw the weights anew; of the hidden module those that have an initialiser."""
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
        weight = first_weight(self.hidden)
        if weight is not None:
            fill(weight[:, : self.memory_size], chosen.memory_to_hidden)
            if self.feeds_input:
                fill(weight[:, self.memory_size :], chosen.input_to_hidden)
        if isinstance(self.hidden, nn.RNNCellBase):
            fill(self.hidden.weight_hh, chosen.hidden_to_hidden)

    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Run one step.

        Args:
            input (*batch, input_size): x_t.
            state (*batch, state_size): what the step before returned. None: zeros.

        Returns:
            `outputs (*batch, output_size)` and `final_state (*batch, state_size)`.
        """
        check_input("input", input, self.input_size, self.dtype)
        batch = input.shape[:-1]
        rows = input.reshape(batch.numel(), self.input_size)
        update = self.update(rows)
        memory, carried = self.unpacked(state, rows, batch)
        drive, below = (f(rows.unsqueeze(1)).squeeze(1) for f in (self.drive, self.below))
        memory = memory.to(self.dtype)
        output, memory, carried = self.advance(update, drive, below, memory, carried)
        state = torch.cat([memory, *carried], -1)
        return Result(output.view(*batch, self.output_size), state.view(*batch, self.state_size))

    def update(self, rows: Tensor) -> Update:
        """Discretise and transpose the matrices for all steps of a call, and draw the dropout."""
        recurrence = self.memory.recurrence
        e_h, e_m = self.hidden_to_memory, self.memory_to_memory
        assert recurrence.B is not None
        return Update(
            recurrence.A.to_dense().mT,
            recurrence.B.mT,
            None if e_h is None else e_h.weight.mT,
            None if e_m is None else e_m.weight.mT,
            None if e_h is None else self.mask(rows, self.output_size, self.dropout),
            None if e_m is None else self.mask(rows, self.memory_size, self.recurrent_dropout),
            self.units(),
        )

    def units(self) -> Units | None:
        """Take an `nn.RNNCell` apart, so that one step of it is two products; None of others."""
        if not isinstance(self.hidden, nn.RNNCell):
            return None
        W_m = self.hidden.weight_ih[:, : self.memory_size].mT
        activation = torch.tanh if self.hidden.nonlinearity == "tanh" else torch.relu
        return Units(self.hidden.weight_hh.mT, W_m, activation)

    def mask(self, rows: Tensor, size: int, share: float) -> Tensor | None:
        """Draw what dropout multiplies by, `(rows, size)`: the same at every step of a call."""
        if not self.training or not share:
            return None
        return dropout(rows.new_ones(len(rows), size), share)

    def drive(self, inputs: Tensor) -> Tensor:
        """Compute e_x x + b_u for `inputs (rows, time, input_size)`."""
        mask = self.mask(inputs, self.input_size, self.dropout)
        inputs = inputs if mask is None else inputs * mask.unsqueeze(1)
        return inputs if self.input_to_memory is None else self.input_to_memory(inputs)

    def below(self, inputs: Tensor) -> Tensor:
        """Compute what the hidden module gets of `inputs (rows, time, input_size)`.

        That is x, but for plain units W_x x + b, of all steps at once.
        """
        if not isinstance(self.hidden, nn.RNNCell):
            return inputs
        cell = self.hidden
        bias = cell.bias_ih + cell.bias_hh if cell.bias else inputs.new_zeros(self.output_size)
        if not self.feeds_input:
            return bias.expand(*inputs.shape[:2], -1)
        return linear(inputs, cell.weight_ih[:, self.memory_size :], bias)

    def advance(
        self,
        update: Update,
        drive: Tensor,
        below: Tensor,
        memory: Tensor,
        carried: tuple[Tensor, ...],
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Compute output, memory and what is carried from those of the step before, by rows."""
        u = drive
        if update.e_h is not None:
            u = torch.addmm(u, kept_of(carried[0], update.hidden_mask), update.e_h)
        if update.e_m is not None:
            u = torch.addmm(u, kept_of(memory, update.memory_mask), update.e_m)
        # Āᵀ and B̄ᵀ serve all channels, which stand in rows of their own meanwhile.
        driven = u.reshape(-1, 1) * update.B
        memory = torch.addmm(driven, memory.view(-1, self.order), update.A)
        memory = memory.view(len(u), self.memory_size)
        output, carried = self.respond(update.units, memory, below, carried)
        return output, memory, carried

    def respond(
        self, units: Units | None, memory: Tensor, below: Tensor, carried: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Compute the hidden module's output, and what of it is carried to the next step."""
        if self.hidden is None:
            return memory, ()
        if units is not None:
            # Products that add to one another: a concatenation would copy h and m at each step.
            both = torch.addmm(torch.addmm(below, carried[0], units.W_h), memory, units.W_m)
            output = units.activation(both)
            return output, (output,)
        seen = torch.cat([memory, below], -1) if self.feeds_input else memory
        if self.gates_cell:
            carried = self.hidden(seen, carried)
            return carried[0], carried
        output = self.hidden(seen, *carried) if self.recurrent else self.hidden(seen)
        return output, (output,) * self.carried

    def unpacked(
        self, state: Tensor | None, rows: Tensor, batch: torch.Size
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Take a state apart into the memory and what is carried, with the batch in rows."""
        if state is None:
            state = rows.new_zeros(len(rows), self.state_size, dtype=self.dtype)
        else:
            check_size("state", state, self.state_size)
            state = state.expand(*batch, -1).reshape(len(rows), self.state_size)
        sizes = [self.memory_size, *[self.output_size] * self.carried]
        memory, *carried = state.split(sizes, -1)
        return memory.contiguous(), tuple(part.to(self.dtype) for part in carried)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the memory, which is that of the whole unit."""
        return next(chain(self.memory.parameters(), self.memory.buffers())).dtype

    def extra_repr(self) -> str:
        """Say its sizes."""
        return f"{self.input_size}, output_size={self.output_size}, state_size={self.state_size}"


def check_size(name: str, tensor: Tensor, size: int) -> None:
    """Refuse a tensor whose last axis does not fit."""
    if tensor.ndim < 1 or tensor.shape[-1] != size:
        raise ValueError(
            f"`{name}` has shape {tuple(tensor.shape)}: expected {size} numbers on the last "
            f"axis, (*batch, {size})."
        )


def check_input(name: str, tensor: Tensor, size: int, dtype: torch.dtype) -> None:
    """Refuse a tensor whose last axis does not fit, or whose dtype is not that of the weights."""
    check_size(name, tensor, size)
    # Autocast casts by itself what meets weights.
    if tensor.dtype != dtype and not torch.is_autocast_enabled(tensor.device.type):
        raise TypeError(
            f"`{name}` has dtype {tensor.dtype}: expected {dtype}, that of the weights. Pass "
            f"`{name}.to({dtype})`."
        )


def output_size(hidden: nn.Module, seen: int) -> int:
    """Find out how many numbers a hidden module returns, and see that it takes `seen`."""
    if isinstance(hidden, nn.RNNCellBase):
        takes, gives = hidden.input_size, hidden.hidden_size
    else:
        trial = copy.deepcopy(hidden).eval()
        tensors = [*trial.parameters(), *trial.buffers(), torch.empty(0)]
        like = next(tensor for tensor in tensors if tensor.is_floating_point())
        try:
            with torch.no_grad():
                made = trial(like.new_zeros(2, seen))
            takes, gives = seen, made.shape[-1] if isinstance(made, Tensor) else type(made)
        except RuntimeError as error:
            takes, gives = str(error), 0
    if takes != seen:
        raise ValueError(
            f"`hidden` does not take {seen} numbers ({takes}): expected a module for the memory's "
            "channels·order, and input_size more with `input_to_hidden=True`."
        )
    if not isinstance(gives, int):
        raise TypeError(
            f"`hidden` is of type {type(hidden).__name__} and returns a {gives.__name__}: expected "
            "a module of single steps, which returns one tensor. Pass a cell in place of a module "
            f"of whole sequences, such as `nn.LSTMCell({seen}, size)` in place of `nn.LSTM`."
        )
    return gives


def first_weight(hidden: nn.Module | None) -> Tensor | None:
    """Find the matrix that a hidden module's input meets first."""
    if hidden is None:
        return None
    if isinstance(hidden, nn.RNNCellBase):
        return hidden.weight_ih
    return next((m.weight for m in hidden.modules() if isinstance(m, nn.Linear)), None)


def fill(weight: Tensor, initializer: Initializer | None) -> None:
    """Let an initialiser fill a matrix, or a part of one."""
    if initializer is not None:
        with torch.no_grad():
            initializer(weight)


def kept_of(values: Tensor, mask: Tensor | None) -> Tensor:
    """Drop what a mask drops."""
    return values if mask is None else values * mask
