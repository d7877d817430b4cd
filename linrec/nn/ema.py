"""Exponential moving averages with learned rates."""

import torch
from torch import Tensor, nn

from linrec.executors import Executor
from linrec.nn.recurrent import RecurrentLayer, split_heads, whole, widen
from linrec.planner import Auto
from linrec.structures import Diagonal
from linrec.systems import LinearRecurrence


class EMA(RecurrentLayer):
    """The damped moving averages of Mega, several for each channel.

        h_t = (1 - α δ) h_{t-1} + α β x_t        y_t = η · h_t / √order + ω x_t
        α = σ(a),  δ = σ(d)                      each channel by itself: h, α, δ, β, η (order,)

    Initially a, d ~ N(0, 0.2²), β ~ ±1 + N(0, 0.02²), signs alternating, and η, ω ~ N(0, 1).

    Args:
        width: channels, in and out.
        order: moving averages for each channel.
        executor: how the recurrence is run.

    Example:
        >>> import torch, linrec
        >>> linrec.nn.EMA(width=3)(torch.randn(2, 7, 3)).outputs.shape
        torch.Size([2, 7, 3])

    References:
        Ma, Zhou, Kong, He, Gui, Neubig, May and Zettlemoyer 2023, Mega: Moving Average Equipped
        Gated Attention, section 3.1 (ω: the authors' code).
    """

    def __init__(self, width: int, order: int = 2, *, executor: Executor = Auto()) -> None:
        super().__init__(width, width, width * whole("order", order), executor)
        self.rate = nn.Parameter(torch.empty(width, order))
        self.damping = nn.Parameter(torch.empty(width, order))
        self.drive = nn.Parameter(torch.empty(width, order))
        self.read = nn.Parameter(torch.empty(width, order))
        self.around = nn.Parameter(torch.empty(width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the published initial values."""
        nn.init.normal_(self.rate, std=0.2)
        nn.init.normal_(self.damping, std=0.2)
        nn.init.normal_(self.drive, std=0.02)
        nn.init.normal_(self.read)
        nn.init.normal_(self.around)
        with torch.no_grad():
            self.drive[:, ::2] += 1
            self.drive[:, 1::2] -= 1

    def recurrence(self, inputs: Tensor) -> tuple[LinearRecurrence, Tensor]:
        """Make the recurrence, with a system for each channel; see `RecurrentLayer.recurrence`."""
        rate, damping = torch.sigmoid(widen(self.rate)), torch.sigmoid(widen(self.damping))
        B, C = rate * self.drive, self.read / self.read.shape[-1] ** 0.5
        A = Diagonal(1 - rate * damping)
        averages = LinearRecurrence(A, B.unsqueeze(-1), C.unsqueeze(-2))
        return averages, split_heads(inputs, self.input_size)

    def read_out(self, read: Tensor, inputs: Tensor) -> Tensor:
        """Add ω x; see `RecurrentLayer.read_out`."""
        return read + self.around * inputs
