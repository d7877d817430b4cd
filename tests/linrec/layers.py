"""Layers, each with a second implementation: a plain loop over the equations of its paper.

A loop is given the layer's parameters by name, and inputs `(batch, time, input_size)`; it starts
from nothing, and knows nothing of linrec.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

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


def complex_of(parts: Tensor) -> Tensor:
    """Real and imaginary parts, `(..., 2)`."""
    return parts[..., 0] + 1j * parts[..., 1]


def held_input(z: Tensor) -> Tensor:
    """(exp(z) - 1) / z by its series, in which no digits cancel, nor in its gradient."""
    total = term = torch.ones_like(z)
    for n in range(2, 40):
        term = term * z / n
        total = total + term
    return total


def s4d(own: Own, inputs: Tensor) -> Tensor:
    """Gu et al. 2022, eqs 2 to 4: zero-order hold of every pole."""
    poles = torch.complex(-own["log_decay"].exp(), own["frequency"])
    dt = own["log_dt"].exp().unsqueeze(-1)
    s, outputs = torch.zeros_like(poles), []
    for x in inputs.unbind(1):
        s = torch.exp(poles * dt) * s + dt * held_input(poles * dt) * x.unsqueeze(-1)
        outputs.append(2 * (complex_of(own["C"]) * s).sum(-1).real + own["D"] * x)
    return torch.stack(outputs, 1)


def s4d_bilinear(own: Own, inputs: Tensor) -> Tensor:
    """Gu et al. 2022, by the trapezoidal rule: (2 - z) s⁺ = (2 + z) s + (x + x⁺) dt, y of s⁺."""
    poles = torch.complex(-own["log_decay"].exp(), own["frequency"])
    dt = own["log_dt"].exp().unsqueeze(-1)
    s, outputs = torch.zeros_like(poles), []
    for x in inputs.unbind(1):
        # scipy's form, read at the end of the step: of w = s - dt x⁺ / (2 - z).
        s = ((2 + poles * dt) * s + dt * 4 / (2 - poles * dt) * x.unsqueeze(-1)) / (2 - poles * dt)
        read = s + dt / (2 - poles * dt) * x.unsqueeze(-1)
        outputs.append(2 * (complex_of(own["C"]) * read).sum(-1).real + own["D"] * x)
    return torch.stack(outputs, 1)


def s5(own: Own, inputs: Tensor) -> Tensor:
    """Smith et al. 2023, eqs 2 and 5 to 7."""
    poles = torch.complex(-own["log_decay"].exp(), own["frequency"])
    dt = own["log_dt"].exp()
    B, C = complex_of(own["B"]), complex_of(own["C"])
    s, outputs = torch.zeros_like(poles), []
    for x in inputs.unbind(1):
        s = torch.exp(poles * dt) * s + dt * held_input(poles * dt) * (x.to(B.dtype) @ B.T)
        outputs.append(2 * (s @ C.T).real + own["D"] * x)
    return torch.stack(outputs, 1)


def linoss(own: Own, inputs: Tensor) -> Tensor:
    """Rusch and Rus 2025, LinOSS-IM: both equations of a step solved at once."""
    a, dt = torch.relu(own["stiffness"]), torch.sigmoid(own["step_size"])
    v, p, outputs = torch.zeros_like(a), torch.zeros_like(a), []
    for x in inputs.unbind(1):
        push = v + dt * (x @ own["B"].T)
        # v = push - dt a p and p = p_before + dt v.
        p = (p + dt * push) / (1 + dt**2 * a)
        v = push - dt * a * p
        outputs.append(p @ own["C"].T + own["D"] * x)
    return torch.stack(outputs, 1)


def linoss_symplectic(own: Own, inputs: Tensor) -> Tensor:
    """Rusch and Rus 2025, LinOSS-IMEX."""
    a, dt = torch.relu(own["stiffness"]), torch.sigmoid(own["step_size"])
    v, p, outputs = torch.zeros_like(a), torch.zeros_like(a), []
    for x in inputs.unbind(1):
        v = v + dt * (x @ own["B"].T - a * p)
        p = p + dt * v
        outputs.append(p @ own["C"].T + own["D"] * x)
    return torch.stack(outputs, 1)


def selective_ssm(own: Own, inputs: Tensor) -> Tensor:
    """Gu and Dao 2023, algorithm 2."""
    A = -own["log_decay"].exp()
    states = A.shape[1]
    s, outputs = torch.zeros_like(A), []
    for x in inputs.unbind(1):
        low, B, C = affine(own, "projection", x).tensor_split([-2 * states, -states], -1)
        dt = F.softplus(affine(own, "dt", low))
        s = torch.exp(dt.unsqueeze(-1) * A) * s + (dt * x).unsqueeze(-1) * B.unsqueeze(-2)
        outputs.append((s * C.unsqueeze(-2)).sum(-1) + own["D"] * x)
    return torch.stack(outputs, 1)


def ssd(own: Own, inputs: Tensor) -> Tensor:
    """Dao and Gu 2024, section 6, as a loop over matrices."""
    heads = len(own["D"])
    states = (len(own["projection.weight"]) - heads) // 2
    S, outputs = inputs.new_zeros(()), []
    for x in inputs.unbind(1):
        B, C, dt = affine(own, "projection", x).split([states, states, heads], -1)
        dt = F.softplus(dt + own["dt_bias"])
        a = torch.exp(-dt * own["log_decay"].exp())
        values = x.unflatten(-1, (heads, -1))
        S = a[..., None, None] * S + torch.einsum("bh,bn,bhp->bhnp", dt, B, values)
        outputs.append((torch.einsum("bn,bhnp->bhp", C, S) + own["D"][:, None] * values).flatten(1))
    return torch.stack(outputs, 1)


def heads_of(own: Own, x: Tensor, sizes: list[int]) -> list[Tensor]:
    """q, k and v, each `(batch, 2, size)`."""
    parts = affine(own, "projection", x).split(sizes, -1)
    return [part.unflatten(-1, (2, -1)) for part in parts]


def gated(own: Own, x: Tensor, o: Tensor) -> Tensor:
    """W_o (o ⊙ silu(W_g x)) of heads that are normalised."""
    gate = F.silu(affine(own, "out.gate", x))
    return affine(own, "out.projection", o.flatten(1) * gate)


def gated_linear_attention(own: Own, inputs: Tensor) -> Tensor:
    """Yang et al. 2024, eq. 3 and section 4.4; two heads."""
    S, outputs = inputs.new_zeros(()), []
    for x in inputs.unbind(1):
        q, k, v = heads_of(own, x, [4, 4, 8])
        alpha = torch.sigmoid(affine(own, "forget.1", affine(own, "forget.0", x))) ** (1 / 16)
        S = alpha.unflatten(-1, (2, -1)).unsqueeze(-1) * S + k.unsqueeze(-1) * v.unsqueeze(-2)
        o = torch.einsum("bhk,bhkv->bhv", q, S) / k.shape[-1] ** 0.5
        o = F.layer_norm(o, o.shape[-1:], own["out.norm.weight"], own["out.norm.bias"])
        outputs.append(gated(own, x, o))
    return torch.stack(outputs, 1)


def retention(own: Own, inputs: Tensor) -> Tensor:
    """Sun et al. 2023, eq. 6: real numbers, q and k turned by their position; two heads."""
    S, outputs = inputs.new_zeros(()), []
    gamma = torch.tensor([1 - 2.0**-5, 1 - 2.0**-6], dtype=inputs.dtype)[:, None, None]
    theta = torch.tensor([1.0, 1e-4], dtype=inputs.dtype)
    for t, x in enumerate(inputs.unbind(1)):
        q, k, v = heads_of(own, x, [8, 8, 16])
        sin, cos = torch.sin(t * theta), torch.cos(t * theta)

        def turned(pairs: Tensor, sin: Tensor = sin, cos: Tensor = cos) -> Tensor:
            one, other = pairs[..., ::2], pairs[..., 1::2]
            return torch.cat([one * cos - other * sin, one * sin + other * cos], -1)

        S = gamma * S + turned(k).unsqueeze(-1) * v.unsqueeze(-2)
        o = torch.einsum("bhk,bhkv->bhv", turned(q), S) / 2  # √keys
        outputs.append(gated(own, x, F.layer_norm(o, o.shape[-1:])))
    return torch.stack(outputs, 1)


def delta(own: Own, x: Tensor, S: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """Yang et al. 2025, eq. 10, with what is in front of it and RMSNorm behind; two heads."""
    q, k, v = (F.silu(each) for each in heads_of(own, x, [8, 8, 8]))
    q, k = (each / (each.square().sum(-1, keepdim=True) + 1e-6).sqrt() for each in (q, k))
    beta = torch.sigmoid(affine(own, "beta", x))[..., None]
    S = alpha[..., None, None] * S
    S = S + (beta * k).unsqueeze(-1) * (v - torch.einsum("bhk,bhkv->bhv", k, S)).unsqueeze(-2)
    o = torch.einsum("bhk,bhkv->bhv", q, S) / k.shape[-1] ** 0.5
    scale = (o.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return S, own["out.norm.weight"] * o / scale


def delta_net(own: Own, inputs: Tensor) -> Tensor:
    """Schlag et al. 2021, Yang et al. 2024."""
    S, outputs = inputs.new_zeros(len(inputs), 2, 4, 4), []
    for x in inputs.unbind(1):
        S, o = delta(own, x, S, inputs.new_ones(2))
        outputs.append(affine(own, "out.projection", o.flatten(1)))
    return torch.stack(outputs, 1)


def gated_delta_net(own: Own, inputs: Tensor) -> Tensor:
    """Yang et al. 2025."""
    S, outputs = inputs.new_zeros(len(inputs), 2, 4, 4), []
    for x in inputs.unbind(1):
        dt = F.softplus(affine(own, "alpha", x) + own["dt_bias"])
        S, o = delta(own, x, S, torch.exp(-dt * own["log_decay"].exp()))
        outputs.append(gated(own, x, o))
    return torch.stack(outputs, 1)


LAYERS: dict[str, tuple[Callable[[], nn.RecurrentLayer], Loop]] = {
    "MinGRU": (lambda: nn.MinGRU(3, 4), min_gru),
    "MinLSTM, no bias": (lambda: nn.MinLSTM(3, 4, bias=False), min_lstm),
    "EMA": (lambda: nn.EMA(3, 2), ema),
    "LRU": (lambda: nn.LRU(3, 5), lru),
    "S4D": (lambda: nn.S4D(3, 4), s4d),
    "S4D-Inv, bilinear": (lambda: nn.S4D(3, 2, poles="inv", method="bilinear"), s4d_bilinear),
    "S5": (lambda: nn.S5(3, 4), s5),
    "S5, blocks": (lambda: nn.S5(3, 4, blocks=2), s5),
    "LinOSS": (lambda: nn.LinOSS(3, 4), linoss),
    "LinOSS, symplectic": (lambda: nn.LinOSS(3, 4, scheme="symplectic"), linoss_symplectic),
    "SelectiveSSM": (lambda: nn.SelectiveSSM(3, 4), selective_ssm),
    "SSD": (lambda: nn.SSD(6, 2, 4), ssd),
    "GatedLinearAttention": (lambda: nn.GatedLinearAttention(8, 2), gated_linear_attention),
    "Retention": (lambda: nn.Retention(8, 2), retention),
    "DeltaNet": (lambda: nn.DeltaNet(8, 2), delta_net),
    "GatedDeltaNet": (lambda: nn.GatedDeltaNet(8, 2), gated_delta_net),
}
