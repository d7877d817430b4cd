"""A network that reads a whole sequence and then names its class."""

import torch
from torch import Tensor, nn

from linrec import Result
from lmu.experiments.models.network import SampleNetwork
from lmu.layers import ParallelLMU


class SequenceClassifier(SampleNetwork):
    """One LMU, read at the last step only, and a linear layer to the classes.

        m_n = Σ_j Ā^(n-j) B̄ x_j      o_n = relu(W_m m_n + W_x x_n + b_o)      scores = W o_n + b

    There is no trained input encoder u = U_x x + b_u: with one input channel its scale is a scale
    of W_m, and its offset moves m_n by a constant, which b_o takes up. The function class is the
    same, and the features (m_n, x_n) can be computed once.

    Args:
        classes: how many classes.
        hidden_size: width of o.
        order: d, the entries of the memory's state.
        theta: length of the memory's window, in steps.
        memory_dropout: share of the entries of m_n that is dropped in training.

    Example:
        >>> import torch
        >>> network = SequenceClassifier(classes=10, hidden_size=8, order=6, theta=50.0)
        >>> network(torch.randn(3, 50, 1)).shape
        torch.Size([3, 10])

    References:
        Chilkuri and Eliasmith 2021, equations 18–20 and 25.
    """

    def __init__(
        self,
        *,
        classes: int,
        hidden_size: int,
        order: int,
        theta: float,
        memory_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.lmu = ParallelLMU(
            1,
            hidden_size,
            1,
            order,
            theta,
            memory_dropout=memory_dropout,
            input_projection=False,
        )
        self.scores = nn.Linear(hidden_size, classes)

    def features(self, inputs: Tensor) -> Tensor:
        """Compute the memory's last state beside the last input: `(*batch, order + 1)`."""
        memory = self.lmu.memory.final(inputs).outputs
        return torch.cat([memory, inputs[..., -1, :]], dim=-1)

    def head(self, features: Tensor) -> Tensor:
        """Compute the classes' scores (logits) `(*batch, classes)` from the features."""
        memory, last = features.split([features.shape[-1] - 1, 1], dim=-1)
        return self.scores(self.lmu.read(memory, last))

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
        return result._replace(outputs=self.scores(result.outputs))

    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Read one time step; the outputs are the scores if the sequence ended here."""
        result = self.lmu.step(input, state)
        return result._replace(outputs=self.scores(result.outputs))

    def stream(self, inputs: Tensor) -> Tensor:
        """Compute the scores after the last step, reading one step at a time."""
        *_, last = self.steps(inputs)
        return last
