"""Layers, and each of them written once more: a plain loop over the equations of its paper.

A loop is given the layer's parameters by name, and inputs `(batch, time, input_size)`; it starts
from nothing, and knows nothing of linrec.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from linrec import nn

Own = Mapping[str, Tensor]
Loop = Callable[[Own, Tensor], Tensor]


def affine(own: Own, name: str, x: Tensor) -> Tensor:
    """W x + b of a `torch.nn.Linear`."""
    y = x @ own[f"{name}.weight"].T
    return y + own[f"{name}.bias"] if f"{name}.bias" in own else y


def g(a: Tensor) -> Tensor:
    """Feng et al. 2024, appendix B."""
    return torch.where(a >= 0, a + 0.5, torch.sigmoid(a))


def min_gru(own: Own, inputs: Tensor) -> Tensor:
    """Feng et al. 2024, section 3.1, with g."""
    h, outputs = inputs.new_zeros(()), []
    for x in inputs.unbind(1):
        z, candidate = affine(own, "projection", x).chunk(2, -1)
        z = torch.sigmoid(z)
        h = (1 - z) * h + z * g(candidate)
        outputs.append(h)
    return torch.stack(outputs, 1)


def min_lstm(own: Own, inputs: Tensor) -> Tensor:
    """Feng et al. 2024, section 3.2, with g."""
    h, outputs = inputs.new_zeros(()), []
    for x in inputs.unbind(1):
        f, i, candidate = affine(own, "projection", x).chunk(3, -1)
        f, i = torch.sigmoid(f), torch.sigmoid(i)
        h = f / (f + i) * h + i / (f + i) * g(candidate)
        outputs.append(h)
    return torch.stack(outputs, 1)


def ema(own: Own, inputs: Tensor) -> Tensor:
    """Ma et al. 2023, section 3.1."""
    alpha, delta = torch.sigmoid(own["rate"]), torch.sigmoid(own["damping"])
    order = alpha.shape[1]
    h, outputs = torch.zeros_like(alpha), []
    for x in inputs.unbind(1):
        u = own["drive"] * x.unsqueeze(-1)
        h = alpha * u + (1 - alpha * delta) * h
        outputs.append((own["read"] * h).sum(-1) / order**0.5 + own["around"] * x)
    return torch.stack(outputs, 1)


def lru(own: Own, inputs: Tensor) -> Tensor:
    """Orvieto et al. 2023, section 3 and appendix A."""
    poles = torch.exp(torch.complex(-own["log_decay"].exp(), own["log_phase"].exp()))
    B, C = (own[name][..., 0] + 1j * own[name][..., 1] for name in "BC")
    s, outputs = torch.zeros_like(poles), []
    for x in inputs.unbind(1):
        s = poles * s + own["log_scale"].exp() * (x.to(B.dtype) @ B.T)
        outputs.append((s @ C.T).real + own["D"] * x)
    return torch.stack(outputs, 1)


LAYERS: dict[str, tuple[Callable[[], nn.RecurrentLayer], Loop]] = {
    "MinGRU": (lambda: nn.MinGRU(3, 4), min_gru),
    "MinLSTM, no bias": (lambda: nn.MinLSTM(3, 4, bias=False), min_lstm),
    "EMA": (lambda: nn.EMA(3, 2), ema),
    "LRU": (lambda: nn.LRU(3, 5), lru),
}
