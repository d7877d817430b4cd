"""The simplified Legendre Memory Unit of 2021, trained in parallel over time."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from linrec import Auto, Executor, Result
from linrec.lengths import expand_lengths
from linrec.nn import Layer
from linrec.nn.checks import check_step, check_steps
from linrec.nn.segments import run_segments
from lmu.layers.padding import last_own_step, own_steps
from lmu.memory import LegendreMemory


class ParallelLMU(Layer):
    """The simplified Legendre Memory Unit: nonlinear layers around a memory that is linear in time.

        u_t = f₁(U_x x_t + b_u)
        m_t = Ā m_{t-1} + B̄ u_t
        o_t = f₂(W_m m_t + W_x x_t + b_o)

    It trains in parallel over time, and runs one step at a time with the same result.

    Args:
        input_size: the size of x.
        hidden_size: the size of o.
        channels: the size of u, how many signals are remembered.
        order: how many polynomials, d, per channel.
        theta: the length of the window, in steps.
        input_activation: f₁. None: the identity.
        activation: f₂, any function of tensors that takes each step by itself. None: ReLU.
        input_projection: whether there are U_x and b_u; without them, u = f₁(x) and channels =
            input_size.
        input_skip: whether there is W_x.
        bias: whether there are b_u and b_o.
        memory_dropout: the share of memory states that are dropped in training.
        method: how the memory is discretised; `LegendreMemory` describes the methods.
        trainable_theta: whether the length of the window is trained.
        executor: how the memory is run.

    W_m begins Glorot-normal, U_x and W_x as `torch.nn.Linear` does, biases at zero.

    Raises:
        ValueError: sizes that do not fit together.

    Example:
        >>> import torch, lmu
        >>> layer = lmu.ParallelLMU(input_size=3, hidden_size=8, channels=2, order=6, theta=50)
        >>> outputs, state = layer(torch.randn(4, 100, 3))
        >>> outputs.shape, state.shape
        (torch.Size([4, 100, 8]), torch.Size([4, 12]))

    References:
        Chilkuri and Eliasmith 2021, eqs 18-20 (and 24-26 for the forms of the memory).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        channels: int,
        order: int,
        theta: float,
        *,
        input_activation: Callable[[Tensor], Tensor] | None = None,
        activation: Callable[[Tensor], Tensor] | None = None,
        input_projection: bool = True,
        input_skip: bool = True,
        bias: bool = True,
        memory_dropout: float = 0.0,
        method: str = "zoh",
        trainable_theta: bool = False,
        executor: Executor = Auto(),
    ) -> None:
        super().__init__()
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size)):
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"`{name}` is {size!r}: expected a whole number of 1 or more.")
        if not input_projection and channels != input_size:
            raise ValueError(
                f"`channels` is {channels} and `input_size` {input_size}: without a projection "
                "the inputs are the channels. Pass equal numbers, or `input_projection=True`."
            )
        self.input_size, self.hidden_size = input_size, hidden_size
        self.output_size, self.state_size = hidden_size, channels * order
        self.encoder = nn.Linear(input_size, channels, bias) if input_projection else nn.Identity()
        self.input_activation = nn.Identity() if input_activation is None else input_activation
        self.memory = LegendreMemory(
            channels, order, theta, method, trainable_theta, executor=executor
        )
        self.memory_dropout = nn.Dropout(memory_dropout)
        self.memory_to_hidden = nn.Linear(channels * order, hidden_size, bias)
        self.input_to_hidden = nn.Linear(input_size, hidden_size, False) if input_skip else None
        self.activation = nn.ReLU() if activation is None else activation
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        nn.init.xavier_normal_(self.memory_to_hidden.weight)
        for layer in (self.encoder, self.input_to_hidden, self.memory_to_hidden):
            if isinstance(layer, nn.Linear):
                if layer is not self.memory_to_hidden:
                    layer.reset_parameters()
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

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
            inputs (*batch, time, input_size): x.
            initial_state (*batch, channels·order): the memory before the first step.
            lengths (*batch): the steps of each right-padded sequence; padding has no effect, and
                outputs there are zero.
            dt (*batch, time): the length of each step, in the unit of `theta`, for samples that
                are not evenly spaced; differentiable, and ignored past a sequence's end. None: 1
                for all.
            resets (*batch, time): True where the state before a step is forgotten. None: nowhere.

        Returns:
            `outputs (*batch, time, hidden_size)` and the memory at each sequence's own end,
            `final_state (*batch, channels·order)`.
        """
        if resets is not None:
            return run_segments(self, inputs, initial_state, lengths, resets, dt=dt)
        check_steps(self, inputs)
        lengths = None if lengths is None else expand_lengths(lengths, inputs)
        mask = None if lengths is None else own_steps(inputs, lengths)
        if mask is not None:
            inputs = torch.where(mask, inputs, 0)
        memory, state = self.memory(self.encode(inputs), initial_state, lengths, **at_times(dt))
        outputs = self.read(memory, inputs)
        return Result(outputs if mask is None else torch.where(mask, outputs, 0), state)

    def final(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
        dt: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> Result:
        """Compute the last step only, without all states of the memory; arguments as of `forward`.

        Returns:
            `outputs (*batch, hidden_size)` of each sequence's last step (zero where it has none),
            and `final_state (*batch, channels·order)`.
        """
        if resets is not None:
            outputs, state = self(inputs, initial_state, lengths, dt, resets)
            return Result(last_own_step(outputs, lengths), state)
        check_steps(self, inputs)
        if lengths is None and inputs.shape[-2] == 0:
            lengths = torch.zeros(inputs.shape[:-2], dtype=torch.int64, device=inputs.device)
        if lengths is None:
            memory, state = self.memory.final(self.encode(inputs), initial_state, **at_times(dt))
            last = inputs[..., -1, :]
            return Result(self.read(memory, last), state)
        lengths = expand_lengths(lengths, inputs)
        inputs = torch.where(own_steps(inputs, lengths), inputs, 0)
        memory, state = self.memory.final(
            self.encode(inputs), initial_state, lengths, **at_times(dt)
        )
        outputs = self.read(memory, last_own_step(inputs, lengths))
        return Result(torch.where(lengths.unsqueeze(-1) > 0, outputs, 0), state)

    def step(
        self, input: Tensor, state: Tensor | None = None, dt: Tensor | float | None = None
    ) -> Result:
        """Run one step, for streaming.

        Args:
            input (*batch, input_size): x_t.
            state (*batch, channels·order): the memory before this step. None: zeros.
            dt (*batch): the length of this step, in the unit of `theta`. None: 1.

        Returns:
            `outputs (*batch, hidden_size)` and `state (*batch, channels·order)`.
        """
        check_step(self, input)
        memory, state = self.memory.step(self.encode(input), state, **at_times(dt))
        return Result(self.read(memory, input), state)

    def encode(self, inputs: Tensor) -> Tensor:
        """Compute the memory's input, u = f₁(U_x x + b_u), for `inputs (*batch, input_size)`."""
        if isinstance(self.encoder, nn.Identity) and not isinstance(
            self.input_activation, nn.Identity
        ):
            inputs = inputs.clone()  # an activation may work in place
        return self.input_activation(self.encoder(inputs))

    def read(self, memory: Tensor, inputs: Tensor) -> Tensor:
        """Compute the outputs, o = f₂(W_m m + W_x x + b_o), each step by itself.

        Args:
            memory (*batch, channels·order): m.
            inputs (*batch, input_size): x.
        """
        hidden = self.memory_to_hidden(self.memory_dropout(memory))
        if self.input_to_hidden is not None:
            hidden = hidden + self.input_to_hidden(inputs)
        return self.activation(hidden)


def at_times(dt: Tensor | float | None) -> dict[str, Any]:
    """Return the keyword `dt` for a memory, or nothing where all steps have length 1."""
    return {} if dt is None else {"dt": dt}
