"""A memory that is read at several delays, and needs no training."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from linrec import Auto, Executor
from lmu.experiments.models.network import SampleNetwork
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
