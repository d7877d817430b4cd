"""A network that reads a series and predicts it, at every step."""

import torch
from torch import Tensor, nn

from linrec import Result
from lmu.experiments.models.network import SampleNetwork
from lmu.layers import ParallelLMU


class SeriesPredictor(SampleNetwork):
    """One LMU, a dense layer and a linear output, at every time step.

        m_t = Σ_j Ā^(t-j) B̄ x_j      o_t = relu(W_m m_t + W_x x_t + b_o)
        y_t = w · relu(W_1 o_t + b_1) + b_2

    There is no trained input encoder, for the reason given in `SequenceClassifier`: all memory
    states (m_t, x_t) can be computed once. The offset would differ from one in b_o only until
    the window has filled.

    Args:
        hidden_size: width of o.
        dense_size: width of the layer after it.
        order: d, the entries of the memory's state.
        theta: length of the memory's window, in steps.

    Example:
        >>> import torch
        >>> network = SeriesPredictor(hidden_size=8, dense_size=4, order=6, theta=20.0)
        >>> network(torch.randn(3, 50, 1)).shape
        torch.Size([3, 50, 1])

    References:
        Chilkuri and Eliasmith 2021, equations 18–20 and 26.
    """

    def __init__(self, *, hidden_size: int, dense_size: int, order: int, theta: float) -> None:
        super().__init__()
        self.lmu = ParallelLMU(1, hidden_size, 1, order, theta, input_projection=False)
        self.prediction = nn.Sequential(
            nn.Linear(hidden_size, dense_size), nn.ReLU(), nn.Linear(dense_size, 1)
        )

    def features(self, inputs: Tensor) -> Tensor:
        """Compute the memory's states beside the inputs: `(*batch, time, order + 1)`."""
        return torch.cat([self.lmu.memory(inputs).outputs, inputs], dim=-1)

    def head(self, features: Tensor) -> Tensor:
        """Compute the predictions `(*batch, time, 1)` from the features."""
        memory, input = features.split([features.shape[-1] - 1, 1], dim=-1)
        return self.prediction(self.lmu.read(memory, input))

    @property
    def state_size(self) -> int:
        """Numbers kept from step to step."""
        return self.lmu.state_size

    def run(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Result:
        """Read a block; arguments and result as of `SampleNetwork.run`."""
        result = self.lmu(inputs, initial_state, lengths)
        return result._replace(outputs=self.prediction(result.outputs))

    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Read one time step; the outputs are the prediction made at it."""
        result = self.lmu.step(input, state)
        return result._replace(outputs=self.prediction(result.outputs))

    def stream(self, inputs: Tensor) -> Tensor:
        """Compute the predictions at every step, reading one step at a time."""
        return torch.stack(list(self.steps(inputs)), dim=-2)
