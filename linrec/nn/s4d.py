"""The diagonal state-space model with a system for each channel."""

import math

import torch
from torch import Tensor, nn

from linrec.discretization import discretize
from linrec.executors import Executor
from linrec.nn.initial_steps import log_uniform
from linrec.nn.recurrent import SkipLayer, complex_of, split_heads, whole, widen
from linrec.planner import Auto
from linrec.structures import Diagonal
from linrec.systems import LinearRecurrence, StateSpace

# The initial imaginary parts of the poles n = 0 … states - 1.
POLES = {
    "lin": lambda n: math.pi * n,
    "inv": lambda n: 2 * len(n) / math.pi * (2 * len(n) / (2 * n + 1) - 1),
}


class S4D(SkipLayer):
    """The diagonal state-space model: each channel has its own system and step length.

        s'(t) = Λ s(t) + 1 x(t)        y(t) = 2 Re(C s(t)) + D x(t)
        Λ = -exp(a) + i ω,             discretised with a step exp(b) for each channel

    Initially Re Λ = -1/2, Im Λ_n = π n ("lin") or N/π (N/(2n+1) - 1) ("inv", N = 2·states), real
    and imaginary parts of C are ~ N(0, 1/2), D ~ N(0, 1), and steps are log-uniform. Each state
    stands for a conjugate pair.

    Args:
        width: channels, in and out.
        states: complex states for each channel.
        poles: the initial poles, "lin" or "inv".
        dt_min: the least step initially.
        dt_max: the largest step initially.
        method: how it is discretised, as in `linrec.discretize`; "zoh" or "bilinear".
        executor: how the recurrence is run.

    Raises:
        ValueError: unknown poles, or steps that are not positive.

    Example:
        >>> import torch, linrec
        >>> linrec.nn.S4D(width=3, states=8)(torch.randn(2, 7, 3)).outputs.shape
        torch.Size([2, 7, 3])

    References:
        Gu, Gupta, Goel and Ré 2022, On the Parameterization and Initialization of Diagonal State
        Space Models, sections 3 and 4 (S4D-Lin, S4D-Inv).
    """

    def __init__(
        self,
        width: int,
        states: int = 32,
        *,
        poles: str = "lin",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        method: str = "zoh",
        executor: Executor = Auto(),
    ) -> None:
        super().__init__(width, width, 2 * width * whole("states", states), executor)
        if poles not in POLES:
            raise ValueError(f"`poles` is {poles!r}: expected one of {', '.join(POLES)}.")
        self.method = method
        frequencies = POLES[poles](torch.arange(states).double()).to(torch.get_default_dtype())
        self.log_decay = nn.Parameter(torch.full((width, states), math.log(0.5)))
        self.frequency = nn.Parameter(frequencies.repeat(width, 1))
        self.log_dt = nn.Parameter(log_uniform((width,), dt_min, dt_max))
        self.C = nn.Parameter(torch.randn(width, states, 2) / 2**0.5)
        self.D = nn.Parameter(torch.randn(width))

    def recurrence(self, inputs: Tensor) -> tuple[LinearRecurrence, Tensor]:
        """Make the recurrence, with a system for each channel; see `RecurrentLayer.recurrence`."""
        poles = torch.complex(-widen(self.log_decay).exp(), widen(self.frequency))
        C = 2 * complex_of(self.C).unsqueeze(-2)
        system = StateSpace(Diagonal(poles), torch.ones_like(poles).unsqueeze(-1), C)
        steps = widen(self.log_dt).exp()
        sampled = discretize(system, steps, self.method, dt_per="system")
        return sampled, split_heads(inputs, self.input_size)
