"""Networks that learn from a series while they predict it."""

import copy
import time
from collections.abc import Callable, Iterable
from typing import Any, Self

import torch
from torch import Tensor, nn

from linrec.nn import OnlineLayer
from lmu.experiments.models.network import Network
from lmu.layers import Layer

Make = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class OnlineNetwork(Network):
    """The base of networks that predict each sample from those before it, and then learn it.

    Each series starts from the initial weights. A sample is predicted before the network learns
    from it or from any later one.

    Attributes:
        predicted: the predictions for the last predicted series.
        milliseconds: the processor's time for each of their samples.
    """

    predicted: Tensor | None = None
    milliseconds: float = 0.0

    def learn(self, series: Tensor) -> Tensor:
        """Predict and learn one series.

        Args:
            series (time, 1): the samples; each is the target of the one before.

        Returns:
            predictions (time, 1): the prediction of the next sample, at each sample.
        """
        raise NotImplementedError

    def begun_anew(self) -> Self:
        """Copy the network, so that each series starts from the same weights."""
        self.predicted = None
        return copy.deepcopy(self)

    def features(self, inputs: Tensor) -> Tensor:
        """Return the series."""
        return inputs

    def head(self, features: Tensor) -> Tensor:
        """Predict the next sample at each of `features (series, time, 1)`, and learn them."""
        begun = time.process_time()
        with torch.enable_grad():
            found = [self.begun_anew().learn(series) for series in features]
        self.milliseconds = 1e3 * (time.process_time() - begun) / max(1, features[..., 0].numel())
        self.predicted = torch.stack(found) if found else features
        return self.predicted

    def stream(self, inputs: Tensor) -> Tensor:
        """Compute the outputs of `forward`, which already reads one sample at a time."""
        return self(inputs)


class OnlineReader(OnlineNetwork):
    """A layer, and a readout of its outputs, that learn at every sample.

    Gradients through the whole past are exact for a layer in `linrec.nn.OnlineLayer`, and for a
    layer without weights, such as a memory. For any other layer the gradient goes back `reach`
    samples: truncated backpropagation through time.

    Args:
        layer: reads the samples.
        readout: from the layer's outputs to one number.
        optimizer: from the parameters to an optimiser.
        reach: how many samples the gradient goes back from the error of the last one.

    Example:
        >>> import torch, linrec
        >>> exact = linrec.nn.OnlineLayer(linrec.nn.MinGRU(1, 4))
        >>> adam = lambda parameters: torch.optim.Adam(parameters, lr=0.01)
        >>> OnlineReader(exact, torch.nn.Linear(4, 1), adam)(torch.randn(2, 9, 1)).shape
        torch.Size([2, 9, 1])

    References:
        Williams and Peng 1990, An Efficient Gradient-Based Algorithm for On-Line Training of
        Recurrent Network Trajectories (truncation).
    """

    def __init__(
        self, layer: Layer | OnlineLayer, readout: nn.Module, optimizer: Make, reach: int = 1
    ) -> None:
        super().__init__()
        self.layer, self.readout, self.optimizer, self.reach = layer, readout, optimizer, reach
        self.fitted = sum(p.numel() for p in self.parameters() if p.requires_grad)

    def learn(self, series: Tensor) -> Tensor:
        """Predict and learn one series `(time, 1)`."""
        optimizer = self.optimizer([p for p in self.parameters() if p.requires_grad])
        state: Any = None  # of the layer, or of `OnlineLayer`
        found, said = list[Tensor](), torch.zeros(0)
        for now, sample in enumerate(series):
            if now:
                optimizer.zero_grad()
                (said - sample).square().sum().backward()
                optimizer.step()
            if isinstance(self.layer, OnlineLayer):
                outputs, state = self.layer.step(sample, state)
            elif self.reach == 1:
                outputs, end = self.layer.step(sample, state)
                state = end.detach()
            else:
                window = series[max(0, now + 1 - self.reach) : now + 1]
                outputs = self.layer.final(window, state).outputs
                if now + 1 >= self.reach:  # the next window begins one sample later
                    with torch.no_grad():
                        state = self.layer.step(window[0], state).final_state
            said = self.readout(outputs)
            found.append(said.detach())
        return torch.stack(found) if found else series


class RecursiveLeastSquares(OnlineNetwork):
    """A linear function of the last samples, refitted at every sample to all samples so far.

        k = P z / (λ + zᵀ P z)      w ← w + k (y - wᵀ z)      P ← (P - k zᵀ P) / λ

    Args:
        delays: how many of the last samples are in z, besides a constant.
        forgetting: λ, the factor by which each older sample counts less; 1: all count alike.

    Example:
        >>> import torch
        >>> line = torch.arange(40.0).cos().view(1, -1, 1)
        >>> error = RecursiveLeastSquares(2, forgetting=0.5)(line)[:, :-1] - line[:, 1:]
        >>> bool(error[:, 20:].abs().max() < 1e-3)
        True

    References:
        Haykin 2002, Adaptive Filter Theory, chapter 9.
    """

    def __init__(self, delays: int, forgetting: float = 1.0) -> None:
        super().__init__()
        self.delays, self.forgetting = delays, forgetting
        self.fitted = delays + 1
        self.weights = nn.Parameter(torch.zeros(delays + 1, dtype=torch.float64))

    @torch.no_grad()
    def learn(self, series: Tensor) -> Tensor:
        """Predict and learn one series `(time, 1)`."""
        size, found, weights = self.delays + 1, list[Tensor](), self.weights
        spread = 1e4 * torch.eye(size, dtype=torch.float64)
        read = torch.zeros(size, dtype=torch.float64)
        read[-1] = 1.0
        for now, sample in enumerate(series.double()):
            if now:
                gain = spread @ read
                gain = gain / (self.forgetting + read @ gain)
                weights = weights + gain * (sample - weights @ read)
                spread = (spread - torch.outer(gain, read @ spread)) / self.forgetting
                spread = (spread + spread.T) / 2  # symmetric but for rounding
            read[1:-1] = read[:-2].clone()
            read[0] = sample
            found.append((weights @ read).view(1))
        return torch.stack(found).to(series.dtype) if found else series
