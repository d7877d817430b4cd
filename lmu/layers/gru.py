"""The GRU as a layer."""

from torch import nn

from lmu.layers.torch_recurrent import TorchRecurrent


class GRU(TorchRecurrent):
    """`torch.nn.GRU`, with the state in one tensor and padding that has no effect.

        r, z = σ(W x_t + U h_{t-1} + b)        n = tanh(W' x_t + b' + r (U' h_{t-1} + b″))
        h_t = (1 - z) n + z h_{t-1}

    torch gives r and z two biases each, which are added; both are trained.

    Args:
        input_size: the size of x.
        hidden_size: the size of h.
        depth: how many layers, on top of each other.
        dropout: the share of outputs that are dropped between layers in training.

    The state is [h_1 … h_depth]. Weights begin with W Glorot-uniform, U orthogonal and biases at
    zero.

    Example:
        >>> import torch, lmu
        >>> lmu.layers.GRU(input_size=3, hidden_size=4)(torch.randn(2, 7, 3)).outputs.shape
        torch.Size([2, 7, 4])

    References:
        Cho et al. 2014, Learning Phrase Representations using RNN Encoder-Decoder for Statistical
        Machine Translation. (The place of r is torch's.)
    """

    def __init__(
        self, input_size: int, hidden_size: int, *, depth: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__(input_size, hidden_size, depth, kinds=1)
        between = dropout if depth > 1 else 0.0
        self.gru = nn.GRU(input_size, hidden_size, depth, batch_first=True, dropout=between)
        self.reset_parameters()

    @property
    def module(self) -> nn.GRU:
        """The module of torch."""
        return self.gru
