"""Any layer with a trained readout: networks for comparison."""

from torch import Tensor, nn

from lmu.experiments.models.network import SampleNetwork
from lmu.layers import Layer


class LayerNetwork(SampleNetwork):
    """A layer and a readout, both trained: the base of the two networks below.

    Args:
        layer: reads the sequence.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer, self.input_size = layer, layer.input_size

    @property
    def reader(self) -> Layer:
        """The layer."""
        return self.layer


class LayerClassifier(LayerNetwork):
    """A layer, read at the last step only, and a linear layer to the classes.

    Args:
        layer: reads the sequence.
        classes: how many classes.

    Example:
        >>> import torch, lmu
        >>> network = LayerClassifier(lmu.layers.LSTM(1, 8), classes=10)
        >>> network(torch.randn(3, 50, 1)).shape
        torch.Size([3, 10])
    """

    at_end = True

    def __init__(self, layer: Layer, classes: int) -> None:
        super().__init__(layer)
        self.scores = nn.Linear(layer.output_size, classes)

    def read_out(self, outputs: Tensor) -> Tensor:
        """Compute the classes' scores (logits) from the layer's outputs."""
        return self.scores(outputs)


class LayerPredictor(LayerNetwork):
    """A layer, followed by a linear layer at every time step.

    Args:
        layer: reads the sequence.
        outputs: how many numbers are predicted at each step.
        dense_size: rectified units between; 0: there are none.

    Example:
        >>> import torch, lmu
        >>> network = LayerPredictor(lmu.layers.LSTM(1, 8))
        >>> network(torch.randn(3, 50, 1)).shape
        torch.Size([3, 50, 1])
    """

    def __init__(self, layer: Layer, outputs: int = 1, dense_size: int = 0) -> None:
        super().__init__(layer)
        between = (nn.Linear(layer.output_size, dense_size), nn.ReLU()) if dense_size else ()
        last = nn.Linear(dense_size or layer.output_size, outputs)
        self.prediction = nn.Sequential(*between, last) if between else last

    def read_out(self, outputs: Tensor) -> Tensor:
        """Compute the predictions from the layer's outputs."""
        return self.prediction(outputs)
