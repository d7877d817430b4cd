"""The LSTM as a layer, the papers' baseline."""

from torch import nn

from lmu.layers.torch_recurrent import TorchRecurrent


class LSTM(TorchRecurrent):
    """`torch.nn.LSTM`, with the state in one tensor and padding that has no effect.

        i, f, o = σ(W x_t + U h_{t-1} + b)        g = tanh(W' x_t + U' h_{t-1} + b')
        c_t = f c_{t-1} + i g                     h_t = o tanh(c_t)

    torch gives each gate two biases, which are added. Here the second is kept at zero and not
    trained, so that the number of parameters is that of the papers: 4·h·(x + h + 1).

    Args:
        input_size: the size of x.
        hidden_size: the size of h.
        depth: how many layers, on top of each other.
        dropout: the share of outputs that are dropped between layers in training.

    The state is [h_1 … h_depth, c_1 … c_depth]. Weights begin as in Keras: W Glorot-uniform, U
    orthogonal, biases at zero except the forget gate's, at one.

    Example:
        >>> import torch, lmu
        >>> layer = lmu.layers.LSTM(input_size=1, hidden_size=25, depth=4)
        >>> sum(p.numel() for p in layer.parameters() if p.requires_grad)
        18000

    References:
        Hochreiter and Schmidhuber 1997, Long Short-Term Memory.
    """

    def __init__(
        self, input_size: int, hidden_size: int, *, depth: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__(input_size, hidden_size, depth, kinds=2)
        between = dropout if depth > 1 else 0.0
        self.lstm = nn.LSTM(input_size, hidden_size, depth, batch_first=True, dropout=between)
        self.reset_parameters()

    @property
    def module(self) -> nn.LSTM:
        """The module of torch."""
        return self.lstm

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        super().reset_parameters()
        for name, parameter in self.lstm.named_parameters():
            if name.startswith("bias_ih"):
                nn.init.ones_(parameter.data[self.output_size : 2 * self.output_size])
            if name.startswith("bias_hh"):
                parameter.requires_grad_(False)
