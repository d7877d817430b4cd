"""Training times of layers by the number of steps, compared with torch's recurrent layers."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from linrec.benchmark.recurrences import quickest
from linrec.nn import (
    LRU,
    S4D,
    S5,
    SSD,
    DeltaNet,
    GatedDeltaNet,
    GatedLinearAttention,
    LinOSS,
    MinGRU,
    MinLSTM,
    Retention,
    SelectiveSSM,
)

BATCH, WIDTH = 8, 64
STEPS = (64, 256, 1024, 4096)
QUICK_STEPS = (64, 256, 1024)

# Layers of one width. The first two are torch's, which run step by step.
MODELS: dict[str, Callable[[int], nn.Module]] = {
    "torch.nn.GRU": lambda width: nn.GRU(width, width, batch_first=True),
    "torch.nn.LSTM": lambda width: nn.LSTM(width, width, batch_first=True),
    "MinGRU": lambda width: MinGRU(width, width),
    "MinLSTM": lambda width: MinLSTM(width, width),
    "LRU": LRU,
    "S4D": S4D,
    "S5": S5,
    "LinOSS": LinOSS,
    "SelectiveSSM": SelectiveSSM,
    "SSD": SSD,
    "GatedLinearAttention": GatedLinearAttention,
    "Retention": Retention,
    "DeltaNet": DeltaNet,
    "GatedDeltaNet": GatedDeltaNet,
}


def training_step(layer: nn.Module, inputs: torch.Tensor) -> Callable[[], None]:
    """Make a training step: outputs of all steps, and gradients in inputs and parameters."""
    inputs = inputs.clone().requires_grad_()
    weights = torch.randn_like(layer(inputs)[0])

    def step() -> None:
        layer.zero_grad()
        inputs.grad = None
        (weights * layer(inputs)[0]).sum().backward()

    return step


def measure_models(seconds: float, quick: bool = False) -> Iterator[dict[str, Any]]:
    """Time a training step of all layers in turn, for each number of steps.

    Args:
        seconds: how long the layers take turns, for each number of steps.
        quick: whether to leave out the longest sequences and take fewer turns.

    Returns:
        Rows of model, steps, parameters and seconds.
    """
    torch.manual_seed(0)
    layers = {name: make(WIDTH) for name, make in MODELS.items()}
    for steps in QUICK_STEPS if quick else STEPS:
        inputs = torch.randn(BATCH, steps, WIDTH)
        ways = {name: training_step(layer, inputs) for name, layer in layers.items()}
        for name, taken in quickest(ways, seconds, 1 if quick else 3).items():
            parameters = sum(each.numel() for each in layers[name].parameters())
            yield {"model": name, "steps": steps, "parameters": parameters, "seconds": taken}
