"""The state-space model of Mamba-2."""

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from linrec.executors import Executor
from linrec.nn.heads import attention, head_size
from linrec.nn.initial_steps import inverse_softplus, log_uniform
from linrec.nn.recurrent import RecurrentLayer, split_heads, whole, widen
from linrec.planner import Auto
from linrec.systems import LinearRecurrence


class SSD(RecurrentLayer):
    """The state-space model of Mamba-2: each head has a matrix that decays at one rate.

        S_t = exp(-Δ_t a) S_{t-1} + Δ_t B_t x_tᵀ        y_t = S_tᵀ C_t + D x_t        for each head
        B_t = W_B x_t,  C_t = W_C x_t,  Δ_t = softplus(W_Δ x_t + b)

    All heads share B and C. Initially a is uniform from 1 to 16, softplus(b) log-uniform, D = 1.
    The rest of a Mamba-2 block (a short convolution, a gate, a norm) is not included.

    Args:
        width: channels, in and out.
        heads: number of equal parts of the channels, each with its own a, Δ and D.
        states: rows of each S.
        dt_min: the least step initially.
        dt_max: the largest step initially.
        executor: how the recurrence is run.

    Raises:
        ValueError: channels that cannot be divided among the heads, or steps that are not positive.

    Example:
        >>> import torch, linrec
        >>> linrec.nn.SSD(width=6, heads=2, states=4)(torch.randn(2, 7, 6)).outputs.shape
        torch.Size([2, 7, 6])

    References:
        Dao and Gu 2024, Transformers are SSMs: Generalized Models and Efficient Algorithms through
        Structured State Space Duality, sections 6 and 7.
    """

    def __init__(
        self,
        width: int,
        heads: int = 4,
        states: int = 64,
        *,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        executor: Executor = Auto(),
    ) -> None:
        head_size("width", width, heads)
        super().__init__(width, width, width * whole("states", states), executor)
        self.sizes = [states, states, heads]
        self.projection = nn.Linear(width, sum(self.sizes), bias=False)  # W_B, W_C, W_Δ
        self.dt_bias = nn.Parameter(inverse_softplus(log_uniform((heads,), dt_min, dt_max)))
        self.log_decay = nn.Parameter(torch.empty(heads).uniform_(1, 16).log())
        self.D = nn.Parameter(torch.ones(heads))

    def recurrence(self, inputs: Tensor) -> tuple[LinearRecurrence, Tensor]:
        """Make the recurrence, with a system for each head; see `RecurrentLayer.recurrence`."""
        B, C, dt = self.projection(inputs).split(self.sizes, -1)
        dt = softplus(widen(dt) + self.dt_bias)
        gates = split_heads(torch.exp(-dt * widen(self.log_decay).exp()), len(self.D))
        drive = split_heads(dt, len(self.D)) * split_heads(inputs, len(self.D))
        return attention(gates, B.unsqueeze(-3), C.unsqueeze(-3), drive)

    def read_out(self, read: Tensor, inputs: Tensor) -> Tensor:
        """Add D x; see `RecurrentLayer.read_out`."""
        return read + (self.D.unsqueeze(-1) * inputs.unflatten(-1, (len(self.D), -1))).flatten(-2)
