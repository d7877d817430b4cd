"""A network that remembers a whole sequence, and classifies it by several layers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lmu.experiments.models.network import SampleNetwork
from lmu.layers import LMU


class DeepClassifier(SampleNetwork):
    """A memory, read at the last step only, and layers of rectified units after it.

        m_n = Σ_j Ā^(n-j) B̄ x_j      h_0 = normalised (√(θ / (2i+1)) m_{n,i} for each i, x_n)
        h_k = dropout(relu(W_k h_{k-1} + b_k))      scores = W h_K + b

    With these factors the memory holds the coefficients of orthonormal polynomials. Distances
    between its states equal the distances between the remembered signals, and an adversary moves
    the states as far as it would move the inputs. There is no trained input encoder, for the reason
    given in `SequenceClassifier`.

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

    at_end = True
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
        self.memory = LMU(1, 1, order, theta, input_projection=False, input_to_hidden=True)
        factors = (theta / (2 * torch.arange(order) + 1)).sqrt()
        self.register_buffer("factors", torch.cat([factors, torch.ones(1)]))
        self.normalised = nn.BatchNorm1d(order + 1, affine=False)
        sizes = [order + 1, *hidden_sizes]
        layers = [
            nn.Sequential(nn.Linear(below, above), nn.ReLU(), nn.Dropout(dropout))
            for below, above in zip(sizes, hidden_sizes, strict=False)
        ]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], classes))

    @property
    def reader(self) -> LMU:
        """The memory, followed by the input."""
        return self.memory

    def features(self, inputs: Tensor) -> Tensor:
        """Compute the last state's coefficients and the last input: `(*batch, order + 1)`."""
        return self.factors * self.memory.final(inputs).outputs

    def head(self, features: Tensor) -> Tensor:
        """Compute the classes' scores (logits) `(*batch, classes)` from the features."""
        rows = self.normalised(features.reshape(-1, features.shape[-1]))
        scores = self.layers(rows)
        return scores.view(*features.shape[:-1], scores.shape[-1])

    def read_out(self, outputs: Tensor) -> Tensor:
        """Compute the scores from memory and input."""
        return self.head(self.factors * outputs)
