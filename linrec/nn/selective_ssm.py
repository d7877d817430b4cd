"""The selective state-space model of Mamba."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from linrec.executors import Executor
from linrec.nn.initial_steps import inverse_softplus, log_uniform
from linrec.nn.recurrent import SkipLayer, split_heads, whole, widen
from linrec.planner import Auto
from linrec.structures import Diagonal
from linrec.systems import LinearRecurrence


class SelectiveSSM(SkipLayer):
    """The selective state-space model of Mamba: the inputs set decay, gain and readout.

        s_t = exp(Δ_t A) s_{t-1} + Δ_t B_t x_t        y_t = C_t · s_t + D x_t       for each channel
        B_t = W_B x_t,  C_t = W_C x_t,  Δ_t = softplus(W_Δ W_r x_t + b),  A = -exp(a)

    Each channel has its own A (states,) and Δ; all share B and C. Initially A = -(1, 2, …, states),
    D = 1, softplus(b) is log-uniform, and W_Δ within 1/√rank. The rest of a Mamba block (a short
    convolution, a gate) is not included.

    Args:
        width: channels, in and out.
        states: states for each channel.
        rank: the rank of W_Δ W_r. None: width / 16, rounded up.
        dt_min: the least step initially.
        dt_max: the largest step initially.
        executor: how the recurrence is run.

    Raises:
        ValueError: steps that are not positive.

    Example:
        >>> import torch, linrec
        >>> linrec.nn.SelectiveSSM(width=3, states=4)(torch.randn(2, 7, 3)).outputs.shape
        torch.Size([2, 7, 3])

    References:
        Gu and Dao 2023, Mamba: Linear-Time Sequence Modeling with Selective State Spaces,
        algorithm 2 (S6) and section 3.6.
    """

    def __init__(
        self,
        width: int,
        states: int = 16,
        *,
        rank: int | None = None,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        executor: Executor = Auto(),
    ) -> None:
        super().__init__(width, width, width * whole("states", states), executor)
        rank = math.ceil(width / 16) if rank is None else whole("rank", rank)
        self.sizes = [rank, states, states]
        self.projection = nn.Linear(width, sum(self.sizes), bias=False)  # W_r, W_B, W_C
        self.dt = nn.Linear(rank, width)
        nn.init.uniform_(self.dt.weight, -(rank**-0.5), rank**-0.5)
        with torch.no_grad():
            self.dt.bias.copy_(inverse_softplus(log_uniform((width,), dt_min, dt_max)))
        self.log_decay = nn.Parameter(torch.arange(1, states + 1.0).log().repeat(width, 1))
        self.D = nn.Parameter(torch.ones(width))

    def recurrence(self, inputs: Tensor) -> tuple[LinearRecurrence, Tensor]:
        """Make the recurrence, with a system for each channel; see `RecurrentLayer.recurrence`."""
        low, B, C = self.projection(inputs).split(self.sizes, -1)
        # This is softplus, whose own compiled gradient has the wrong layout (torch 2.13).
        dt = -logsigmoid(-widen(self.dt(low)))
        rates = split_heads(dt, self.input_size)  # (*batch, width, time, 1)
        gates = torch.exp(-rates * widen(self.log_decay).exp().unsqueeze(-2))
        # One B and one C for all channels.
        B, C = B.unsqueeze(-3).unsqueeze(-1), C.unsqueeze(-3).unsqueeze(-2)
        drive = split_heads(dt * inputs, self.input_size)
        return LinearRecurrence(Diagonal(gates), B, C, time_varying=True), drive
