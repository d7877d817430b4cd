"""Networks of one parallel LMU with a frozen memory, which is computed once."""

import torch
from torch import Tensor, nn

from lmu.experiments.models.network import SampleNetwork
from lmu.layers import ParallelLMU


class FrozenMemoryNetwork(SampleNetwork):
    """One LMU without an input encoder, and a readout: the base of the two networks below.

    The features are the memory's states m next to the inputs x. The trained part begins with
    o = relu(W_m m + W_x x + b_o).

    Args:
        hidden_size: width of o.
        order: d, the entries of the memory's state.
        theta: length of the memory's window, in steps.
        memory_dropout: share of the entries of m that is dropped in training.
    """

    def __init__(
        self, hidden_size: int, order: int, theta: float, memory_dropout: float = 0.0
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

    @property
    def reader(self) -> ParallelLMU:
        """The LMU."""
        return self.lmu

    def features(self, inputs: Tensor) -> Tensor:
        """Compute memory and input: `(*batch, order + 1)` at the end, or `(*batch, time, …)`."""
        memory = self.lmu.memory
        if self.at_end:
            return torch.cat([memory.final(inputs).outputs, inputs[..., -1, :]], dim=-1)
        return torch.cat([memory(inputs).outputs, inputs], dim=-1)

    def head(self, features: Tensor) -> Tensor:
        """Compute the outputs, one for each row of features."""
        memory, input = features.split([features.shape[-1] - 1, 1], dim=-1)
        return self.read_out(self.lmu.read(memory, input))


class SequenceClassifier(FrozenMemoryNetwork):
    """One LMU, read at the last step only, and a linear layer to the classes.

        m_n = Σ_j Ā^(n-j) B̄ x_j      o_n = relu(W_m m_n + W_x x_n + b_o)      scores = W o_n + b

    There is no trained input encoder u = U_x x + b_u: with one input channel, its scale can be part
    of W_m, and its offset moves m_n by a constant, which can be part of b_o. The function class is
    the same, and the features (m_n, x_n) can be computed once.

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

    at_end = True

    def __init__(
        self,
        *,
        classes: int,
        hidden_size: int,
        order: int,
        theta: float,
        memory_dropout: float = 0.0,
    ) -> None:
        super().__init__(hidden_size, order, theta, memory_dropout)
        self.scores = nn.Linear(hidden_size, classes)

    def read_out(self, outputs: Tensor) -> Tensor:
        """Compute the classes' scores (logits) from o."""
        return self.scores(outputs)


class SeriesPredictor(FrozenMemoryNetwork):
    """One LMU, a dense layer and a linear output, at every time step.

        m_t = Σ_j Ā^(t-j) B̄ x_j      o_t = relu(W_m m_t + W_x x_t + b_o)
        y_t = w · relu(W_1 o_t + b_1) + b_2

    There is no trained input encoder, for the reason given in `SequenceClassifier`. Its offset
    would differ from an offset in b_o only until the window has filled.

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
        super().__init__(hidden_size, order, theta)
        self.prediction = nn.Sequential(
            nn.Linear(hidden_size, dense_size), nn.ReLU(), nn.Linear(dense_size, 1)
        )

    def read_out(self, outputs: Tensor) -> Tensor:
        """Compute the predictions from o."""
        return self.prediction(outputs)
