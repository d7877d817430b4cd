"""Any layer with a linear readout: the networks that others are compared with."""

import torch
from torch import Tensor, nn

from linrec import Result
from lmu.experiments.models.network import SampleNetwork
from lmu.layers import Layer


class LayerClassifier(SampleNetwork):
    """A layer, read at the last step only, and a linear layer to the classes.

    Nothing of it is frozen: the features are the inputs themselves.

    Args:
        layer: reads the sequence.
        classes: how many classes.

    Example:
        >>> import torch, lmu
        >>> network = LayerClassifier(lmu.layers.LSTM(1, 8), classes=10)
        >>> network(torch.randn(3, 50, 1)).shape
        torch.Size([3, 10])
    """

    def __init__(self, layer: Layer, classes: int) -> None:
        super().__init__()
        self.layer, self.input_size = layer, layer.input_size
        self.scores = nn.Linear(layer.output_size, classes)

    def features(self, inputs: Tensor) -> Tensor:
        """Return the inputs."""
        return inputs

    def head(self, features: Tensor) -> Tensor:
        """Compute the classes' scores (logits) `(*batch, classes)` from the inputs."""
        return self.scores(self.layer.final(features).outputs)

    @property
    def state_size(self) -> int:
        """Numbers kept from step to step."""
        return self.layer.state_size

    def run(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Result:
        """Read a block; arguments and result as of `SampleNetwork.run`."""
        result = self.layer(inputs, initial_state, lengths)
        return result._replace(outputs=self.scores(result.outputs))

    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Read one time step; the outputs are the scores if the sequence ended here."""
        result = self.layer.step(input, state)
        return result._replace(outputs=self.scores(result.outputs))

    def stream(self, inputs: Tensor) -> Tensor:
        """Compute the scores after the last step, reading one step at a time."""
        *_, last = self.steps(inputs)
        return last


class LayerPredictor(SampleNetwork):
    """A layer and a linear layer after it, at every time step.

    Nothing of it is frozen: the features are the inputs themselves.

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
        super().__init__()
        self.layer, self.input_size = layer, layer.input_size
        between = (nn.Linear(layer.output_size, dense_size), nn.ReLU()) if dense_size else ()
        last = nn.Linear(dense_size or layer.output_size, outputs)
        self.prediction = nn.Sequential(*between, last) if between else last

    def features(self, inputs: Tensor) -> Tensor:
        """Return the inputs."""
        return inputs

    def head(self, features: Tensor) -> Tensor:
        """Compute the predictions `(*batch, time, outputs)` from the inputs."""
        return self.prediction(self.layer(features).outputs)

    @property
    def state_size(self) -> int:
        """Numbers kept from step to step."""
        return self.layer.state_size

    def run(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Result:
        """Read a block; arguments and result as of `SampleNetwork.run`."""
        result = self.layer(inputs, initial_state, lengths)
        return result._replace(outputs=self.prediction(result.outputs))

    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Read one time step; the outputs are the prediction made at it."""
        result = self.layer.step(input, state)
        return result._replace(outputs=self.prediction(result.outputs))

    def stream(self, inputs: Tensor) -> Tensor:
        """Compute the predictions at every step, reading one step at a time."""
        return torch.stack(list(self.steps(inputs)), dim=-2)
