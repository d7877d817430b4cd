"""A network that reads a whole sequence, keeps all of it, and thinks in several layers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from linrec import Result
from lmu.experiments.models.network import SampleNetwork
from lmu.memory import LegendreMemory


class DeepClassifier(SampleNetwork):
    """A memory, read at the last step only, and layers of rectified units after it.

        m_n = Σ_j Ā^(n-j) B̄ x_j      h_0 = normalised (√(θ / (2i+1)) m_{n,i} for each i, x_n)
        h_k = dropout(relu(W_k h_{k-1} + b_k))      scores = W h_K + b

    With these factors the memory holds the coefficients of orthonormal polynomials: distances
    between its states are those between what it remembers. There is no trained input encoder, for
    the reason given in `SequenceClassifier`.

    Args:
        classes: how many classes.
        hidden_sizes: width of each layer.
        order: d, the entries of the memory's state.
        theta: length of the memory's window, in steps.
        dropout: share of each layer's units that is dropped in training.

    Example:
        >>> import torch
        >>> network = DeepClassifier(classes=10, hidden_sizes=(8, 8), order=6, theta=50.0)
        >>> network(torch.randn(3, 50, 1)).shape
        torch.Size([3, 10])
    """

    factors: Tensor

    def __init__(
        self,
        *,
        classes: int,
        hidden_sizes: Sequence[int],
        order: int,
        theta: float,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.memory = LegendreMemory(1, order, theta)
        factors = (theta / (2 * torch.arange(order) + 1)).sqrt()
        self.register_buffer("factors", torch.cat([factors, torch.ones(1)]))
        self.normalised = nn.BatchNorm1d(order + 1, affine=False)
        sizes = [order + 1, *hidden_sizes]
        layers = [
            nn.Sequential(nn.Linear(below, above), nn.ReLU(), nn.Dropout(dropout))
            for below, above in zip(sizes, hidden_sizes, strict=False)
        ]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], classes))

    def features(self, inputs: Tensor) -> Tensor:
        """Compute the memory's last state beside the last input: `(*batch, order + 1)`."""
        return self.seen(self.memory.final(inputs).outputs, inputs[..., -1, :])

    def seen(self, memory: Tensor, input: Tensor) -> Tensor:
        """Scale a state of the memory, and put the input beside it."""
        return self.factors * torch.cat([memory, input], dim=-1)

    def head(self, features: Tensor) -> Tensor:
        """Compute the classes' scores (logits) `(*batch, classes)` from the features."""
        rows = self.normalised(features.reshape(-1, features.shape[-1]))
        scores = self.layers(rows)
        return scores.view(*features.shape[:-1], scores.shape[-1])

    @property
    def state_size(self) -> int:
        """Numbers kept from step to step."""
        return self.memory.order

    def run(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Result:
        """Read a block; arguments and result as of `SampleNetwork.run`."""
        result = self.memory(inputs, initial_state, lengths)
        return result._replace(outputs=self.head(self.seen(result.outputs, inputs)))

    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Read one time step; the outputs are the scores if the sequence ended here."""
        memory, state = self.memory.step(input, state)
        return Result(self.head(self.seen(memory, input)), state)

    def stream(self, inputs: Tensor) -> Tensor:
        """Compute the scores after the last step, reading one step at a time."""
        memory, state = self.memory.step(inputs[..., 0, :])
        for input in inputs[..., 1:, :].unbind(-2):
            memory, state = self.memory.step(input, state)
        return self.head(self.seen(memory, inputs[..., -1, :]))
