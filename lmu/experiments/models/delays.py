"""Memories that are read at several delays, and need no training."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from linrec import Auto, Executor
from lmu.experiments.models.network import Network, SampleNetwork
from lmu.legendre import decoder
from lmu.memory import LegendreMemory


class DelayReader(SampleNetwork):
    """A Legendre memory with a readout in closed form.

        m_t = Ā m_{t-1} + B̄ x_t        y_t = C m_t ≈ (x_{t-k} for each delay k)
        C_ki = P̃_i((k + ½) / θ)

    The half is there because the input is held for a step: the window has the value x_{t-k} from k
    to k + 1 steps ago. The readout begins with these values and may be trained further.

    Args:
        order: how many polynomials, d.
        theta: the length of the window, in steps.
        delays: k, in steps, from 0 to below theta.
        executor: how the memory is run.

    Raises:
        ValueError: a delay outside the window.

    Example:
        >>> import torch
        >>> reader = DelayReader(order=6, theta=100, delays=[0, 50])
        >>> reader(torch.ones(1, 300, 1))[0, -1].round(decimals=3)
        tensor([1., 1.], grad_fn=<RoundBackward1>)

    References:
        Voelker, Kajić and Eliasmith 2019, eq. 3 and section 4.1.
    """

    def __init__(
        self, *, order: int, theta: float, delays: Sequence[int], executor: Executor = Auto()
    ) -> None:
        super().__init__()
        self.memory = LegendreMemory(1, order, theta, executor=executor)
        self.readout = nn.Linear(order, len(delays), bias=False)
        fractions = [(delay + 0.5) / theta for delay in delays]
        with torch.no_grad():
            self.readout.weight.copy_(decoder(order, fractions))

    @property
    def reader(self) -> LegendreMemory:
        """The memory."""
        return self.memory

    def read_out(self, outputs: Tensor) -> Tensor:
        """Compute the signal at each delay from the memory."""
        return self.readout(outputs)


class KeptSamples(Network):
    """A plain memory, which keeps samples at regular intervals and interpolates them.

        y_t = Σ_j x_{s_j} Π_{i≠j} (t - k - s_i) / (s_j - s_i)        for each delay k

    s are the times of the kept samples nearest to t - k; t itself may be one, since the present
    sample needs no memory. A new sample replaces the oldest; until then the memory stays as it is.

    Args:
        kept: how many samples are kept.
        theta: the length of the window, in steps.
        delays: k, in steps, from 0 to below theta.
        points: how many samples are interpolated, 2 or more.

    Raises:
        ValueError: a delay outside of the window, or fewer samples kept than interpolated.

    Example:
        >>> import torch
        >>> memory = KeptSamples(kept=12, theta=100, delays=[0, 50], points=4)
        >>> memory(torch.arange(300.0).reshape(1, -1, 1))[0, -1].detach()
        tensor([299., 249.])
    """

    def __init__(self, *, kept: int, theta: int, delays: Sequence[int], points: int = 8) -> None:
        super().__init__()
        if not 2 <= points < kept:
            raise ValueError(f"`points` is {points}: expected 2 to {kept - 1}, of {kept} samples.")
        if any(not 0 <= delay < theta for delay in delays):
            raise ValueError(f"`delays` is {list(delays)}: expected 0 to {theta - 1}.")
        self.delays, self.points = tuple(delays), points
        # Half of the points are older than the oldest time that is asked for.
        self.spacing = -(-theta // (kept - 1 - points // 2))
        # `--epochs` trains this; it is 1 otherwise.
        self.scale = nn.Parameter(torch.ones(()))

    def features(self, inputs: Tensor) -> Tensor:
        """Return the samples."""
        return inputs

    def head(self, features: Tensor) -> Tensor:
        """Compute the signal at each delay, `(*batch, time, delays)`."""
        return self.scale * torch.stack([self.recall(features, each) for each in self.delays], -1)

    def recall(self, samples: Tensor, delay: int) -> Tensor:
        """Interpolate the signal of `delay` steps ago, `(*batch, time)`."""
        now = torch.arange(samples.shape[-2], device=samples.device)
        spacing, points, last = self.spacing, self.points, now // self.spacing
        newest = last + (now % spacing > 0)  # the present sample, unless it is kept itself
        first = torch.minimum((now - delay) // spacing - (points // 2 - 1), newest - (points - 1))
        index = first.unsqueeze(-1) + torch.arange(points, device=now.device)
        times = torch.minimum(index * spacing, now.unsqueeze(-1))
        values = samples[..., 0][..., times.clamp(min=0)] * (times >= 0)
        weights = lagrange(times.double(), (now - delay).double().unsqueeze(-1))
        return (values * weights).sum(-1).to(samples.dtype)

    def stream(self, inputs: Tensor) -> Tensor:
        """Compute the outputs; each depends on samples that are kept at its time alone."""
        return self(inputs)


def lagrange(nodes: Tensor, at: Tensor) -> Tensor:
    """Compute weights of values at `nodes (*batch, points)`, for a polynomial `at (*batch, 1)`."""
    others = ~torch.eye(nodes.shape[-1], dtype=torch.bool, device=nodes.device)
    above = torch.where(others, (at - nodes).unsqueeze(-2), 1).prod(-1)
    below = torch.where(others, nodes.unsqueeze(-1) - nodes.unsqueeze(-2), 1).prod(-1)
    return above / below
