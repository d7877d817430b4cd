"""Forced oscillators."""

import torch
from torch import Tensor, nn

from linrec.executors import Executor
from linrec.nn.recurrent import SkipLayer, whole, widen
from linrec.planner import Auto
from linrec.structures import BlockDiagonal
from linrec.systems import LinearRecurrence

SCHEMES = ("implicit", "symplectic")


class LinOSS(SkipLayer):
    """Oscillators driven by the inputs, whose positions the outputs read.

        p''(t) = -a p(t) + B x(t)        y(t) = C p(t) + D x(t)        a = relu(â),  dt = σ(d)

    With the velocity v = p', a step is

        v_t = v_{t-1} + dt (-a p + B x_t)        p_t = p_{t-1} + dt v_t

    where p is p_t ("implicit", which loses energy: LinOSS-IM) or p_{t-1} ("symplectic", which keeps
    it, as long as dt² a < 4: LinOSS-IMEX). The state has each oscillator's velocity and position.

    Initially â and d are uniform from 0 to 1, entries of B within 1/√width, of C within 1/√states,
    and D ~ N(0, 1). B and C are real, as in the paper; in the authors' code they are complex.

    Args:
        width: features of a step, in and out.
        states: oscillators.
        scheme: "implicit" or "symplectic".
        executor: how the recurrence is run.

    Raises:
        ValueError: an unknown scheme.

    Example:
        >>> import torch, linrec
        >>> linrec.nn.LinOSS(width=3, states=8)(torch.randn(2, 7, 3)).outputs.shape
        torch.Size([2, 7, 3])

    References:
        Rusch and Rus 2025, Oscillatory State-Space Models, section 2.
    """

    def __init__(
        self,
        width: int,
        states: int = 64,
        *,
        scheme: str = "implicit",
        executor: Executor = Auto(),
    ) -> None:
        super().__init__(width, width, 2 * whole("states", states), executor)
        if scheme not in SCHEMES:
            raise ValueError(f"`scheme` is {scheme!r}: expected one of {', '.join(SCHEMES)}.")
        self.scheme = scheme
        self.stiffness = nn.Parameter(torch.rand(states))
        self.step_size = nn.Parameter(torch.rand(states))
        self.B = nn.Parameter(torch.empty(states, width).uniform_(-1, 1) / width**0.5)
        self.C = nn.Parameter(torch.empty(width, states).uniform_(-1, 1) / states**0.5)
        self.D = nn.Parameter(torch.randn(width))

    def recurrence(self, inputs: Tensor) -> tuple[LinearRecurrence, Tensor]:
        """Make the recurrence, the same for all inputs; see `RecurrentLayer.recurrence`."""
        dt, a = torch.sigmoid(widen(self.step_size)), torch.relu(widen(self.stiffness))
        one = torch.ones_like(a)
        if self.scheme == "implicit":
            # v_t (1 + dt² a) = v_{t-1} - dt a p_{t-1} + dt B x_t, and p_t = p_{t-1} + dt v_t.
            s = 1 / (1 + dt * dt * a)
            turn = [s, -dt * a * s, dt * s, s]
        else:
            s = one
            turn = [one, -dt * a, dt, 1 - dt * dt * a]
        A = BlockDiagonal(torch.stack(turn, -1).unflatten(-1, (2, 2)))
        push = torch.stack([dt * s, dt * dt * s], -1).flatten()
        B = push.unsqueeze(-1) * self.B.repeat_interleave(2, 0)
        C = torch.stack([torch.zeros_like(self.C), self.C], -1).flatten(-2)
        return LinearRecurrence(A, B, C), inputs
