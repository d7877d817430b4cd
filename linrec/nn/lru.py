"""The linear recurrent unit."""

import math

import torch
from torch import Tensor, nn

from linrec.executors import Executor
from linrec.nn.recurrent import SkipLayer, complex_of, whole, widen
from linrec.planner import Auto
from linrec.structures import Diagonal
from linrec.systems import LinearRecurrence


class LRU(SkipLayer):
    """The linear recurrent unit: a complex diagonal that stays inside the unit circle.

        s_t = λ s_{t-1} + γ (B x_t)        y_t = Re(C s_t) + D x_t
        λ = exp(-exp(ν) + i exp(θ))        γ = exp(c),  √(1 - |λ|²) at first

    Initially λ is uniform in the ring r_min ≤ |λ| ≤ r_max, with phases from 0 to max_phase; real
    and imaginary parts of B ~ N(0, 1/(2·width)), of C ~ N(0, 1/states); D ~ N(0, 1), a diagonal.

    Args:
        width: features of a step, in and out.
        states: complex states.
        r_min: the least |λ| initially.
        r_max: the largest |λ| initially; at most 1.
        max_phase: the largest phase initially, in radians per step.
        executor: how the recurrence is run.

    Raises:
        ValueError: not 0 ≤ r_min < r_max ≤ 1, or no positive phase.

    Example:
        >>> import torch, linrec
        >>> layer = linrec.nn.LRU(width=3, states=8, r_min=0.9, r_max=0.999)
        >>> outputs, state = layer(torch.randn(2, 7, 3))
        >>> outputs.shape, state.shape
        (torch.Size([2, 7, 3]), torch.Size([2, 16]))

    References:
        Orvieto, Smith, Gu, Fernando, Gulcehre, Pascanu and De 2023, Resurrecting Recurrent Neural
        Networks for Long Sequences, sections 3.3, 3.4 and appendix A.
    """

    def __init__(
        self,
        width: int,
        states: int = 64,
        *,
        r_min: float = 0.0,
        r_max: float = 1.0,
        max_phase: float = 2 * math.pi,
        executor: Executor = Auto(),
    ) -> None:
        super().__init__(width, width, 2 * whole("states", states), executor)
        if not 0 <= r_min < r_max <= 1 or not max_phase > 0:
            raise ValueError(
                f"`r_min`, `r_max` and `max_phase` are {r_min}, {r_max} and {max_phase}: expected "
                "0 <= r_min < r_max <= 1 and a positive phase."
            )
        self.ring = (r_min, r_max, max_phase)
        self.log_decay = nn.Parameter(torch.empty(states))
        self.log_phase = nn.Parameter(torch.empty(states))
        self.log_scale = nn.Parameter(torch.empty(states))
        self.B = nn.Parameter(torch.empty(states, width, 2))
        self.C = nn.Parameter(torch.empty(width, states, 2))
        self.D = nn.Parameter(torch.empty(width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the published initial values."""
        r_min, r_max, max_phase = self.ring
        states, width, _ = self.B.shape
        # |λ|² is uniform, so that λ is uniform in the ring's area; and neither 0 nor 1.
        uniform = torch.rand(2, states, dtype=torch.float64).clamp(1e-12, 1 - 1e-6)
        square = r_min**2 + (r_max**2 - r_min**2) * uniform[0]
        with torch.no_grad():
            self.log_decay.copy_((-0.5 * square.log()).log())
            self.log_phase.copy_((max_phase * uniform[1]).log())
            self.log_scale.copy_(0.5 * torch.log1p(-square))
        nn.init.normal_(self.B, std=(2 * width) ** -0.5)
        nn.init.normal_(self.C, std=states**-0.5)
        nn.init.normal_(self.D)

    def recurrence(self, inputs: Tensor) -> tuple[LinearRecurrence, Tensor]:
        """Make the recurrence, the same for all inputs; see `RecurrentLayer.recurrence`."""
        decay, phase = widen(self.log_decay).exp(), widen(self.log_phase).exp()
        B = widen(self.log_scale).exp().unsqueeze(-1) * complex_of(self.B)
        poles = torch.polar(torch.exp(-decay), phase)
        return LinearRecurrence(Diagonal(poles), B, complex_of(self.C)), inputs
