"""A second implementation of each model of docs/models.md: a loop over its paper's equations.

A loop is given the tensors of the page by their names there, and knows nothing of linrec.
"""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from scipy.signal import cont2discrete
from torch import Tensor

Page = SimpleNamespace


def in_order(steps: Iterator[Tensor]) -> Tensor:
    """Put outputs side by side."""
    return torch.stack(list(steps), 1)


def ema(page: Page) -> Iterator[Tensor]:
    h = torch.zeros_like(page.alpha)
    for x in page.x.unbind(1):
        h = (1 - page.alpha * page.delta) * h + page.alpha * page.beta * x.unsqueeze(-1)
        yield (page.eta * h).sum(-1)


def lru(page: Page) -> Iterator[Tensor]:
    poles = torch.exp(torch.complex(-page.nu.exp(), page.theta.exp()))
    s = torch.zeros_like(poles)
    for x in page.x.unbind(1):
        s = poles * s + page.gamma * (x.to(s.dtype) @ page.B.T)
        yield (s @ page.C.T).real


def min_gru(page: Page) -> Iterator[Tensor]:
    h = torch.zeros_like(page.z[:, 0])
    for z, candidate in zip(page.z.sigmoid().unbind(1), page.candidate.unbind(1), strict=True):
        h = (1 - z) * h + z * candidate
        yield h


def min_lstm(page: Page) -> Iterator[Tensor]:
    h = torch.zeros_like(page.f[:, 0])
    gates = page.f.sigmoid().unbind(1), page.i.sigmoid().unbind(1)
    for f, i, candidate in zip(*gates, page.candidate.unbind(1), strict=True):
        h = f / (f + i) * h + i / (f + i) * candidate
        yield h


def hgrn(page: Page) -> Iterator[Tensor]:
    turn = torch.complex(page.theta.cos(), page.theta.sin())
    h = torch.zeros_like(page.c[:, 0])
    for f, c, gate in zip(page.f.unbind(1), page.c.unbind(1), page.gate.unbind(1), strict=True):
        kept = page.gamma + (1 - page.gamma) * f.sigmoid()
        h = kept * turn * h + (1 - kept) * c
        yield h.real * gate.sigmoid()


def lmu(page: Page) -> Iterator[Tensor]:
    """Of Chilkuri and Eliasmith 2021, eqs 1 and 2, discretised by scipy."""
    i, j = np.arange(4)[:, None], np.arange(4)[None, :]
    A = (2 * i + 1) * np.where(i < j, -1.0, (-1.0) ** np.abs(i - j + 1)) / 20.0
    B = (2 * i + 1) * (-1.0) ** i / 20.0
    sampled: Any = cont2discrete((A, B, np.eye(4), np.zeros((4, 1))), 1.0)
    A, B = torch.tensor(sampled[0]), torch.tensor(sampled[1])
    m = page.x.new_zeros(*page.x[:, 0].shape, 4)
    for x in page.x.unbind(1):
        m = m @ A.T + x.unsqueeze(-1) * B[:, 0]
        yield m.flatten(1)


def held_input(z: Tensor) -> Tensor:
    """(exp(z) - 1) / z by its series, of z cut into parts so small that no digits cancel.

    φ(2z) = φ(z) (exp(z) + 1) / 2.
    """
    z = z / 64
    total = term = torch.ones_like(z)
    for n in range(2, 30):
        term = term * z / n
        total = total + term
    for _ in range(6):
        total = total * (torch.exp(z) + 1) / 2
        z = 2 * z
    return total


def s4d(page: Page) -> Iterator[Tensor]:
    poles = torch.complex(-page.decay.exp(), page.frequency)
    dt, s = page.log_dt.exp().unsqueeze(-1), torch.zeros_like(poles)
    held, kept = dt * held_input(poles * dt), torch.exp(poles * dt)
    for x in page.x.unbind(1):
        s = kept * s + held * x.unsqueeze(-1)
        yield 2 * (page.C[:, 0] * s).sum(-1).real


def s5(page: Page) -> Iterator[Tensor]:
    poles = torch.complex(-page.decay.exp(), page.frequency)
    dt, s = page.log_dt.exp(), torch.zeros_like(poles)
    held, kept = dt * held_input(poles * dt), torch.exp(poles * dt)
    for x in page.x.unbind(1):
        s = kept * s + held * (x.to(s.dtype) @ page.B.T)
        yield 2 * (s @ page.C.T).real


def linoss(page: Page) -> Iterator[Tensor]:
    v, p = torch.zeros_like(page.a), torch.zeros_like(page.a)
    for x in page.x.unbind(1):
        push = v + page.dt * (x @ page.B.T)
        p = (p + page.dt * push) / (1 + page.dt**2 * page.a)
        v = push - page.dt * page.a * p
        yield p @ page.C.T


def mamba(page: Page) -> Iterator[Tensor]:
    s = torch.zeros_like(page.rate)
    each = (tensor.unbind(1) for tensor in (page.x, page.dt, page.B, page.C))
    for x, dt, B, C in zip(*each, strict=True):
        s = torch.exp(-dt.unsqueeze(-1) * page.rate) * s + (dt * x).unsqueeze(-1) * B.unsqueeze(1)
        yield (s * C.unsqueeze(1)).sum(-1)


def mamba_2(page: Page) -> Iterator[Tensor]:
    S = torch.zeros(())
    each = (tensor.unbind(1) for tensor in (page.x, page.dt, page.B, page.C))
    for x, dt, B, C in zip(*each, strict=True):
        S = torch.exp(-dt * page.rate).unsqueeze(-1) * S + outer(dt * B, x)
        yield read(S, C)


def linear_attention(page: Page) -> Iterator[Tensor]:
    S, z = torch.zeros(()), torch.zeros(())
    for q, k, v in triples(page):
        q, k = (torch.where(each > 0, each + 1, each.exp()) for each in (q, k))
        S, z = S + outer(k, v), z + k
        yield read(S, q) / (z * q).sum(-1, keepdim=True)


def retnet(page: Page) -> Iterator[Tensor]:
    S = torch.zeros(())
    for t, (q, k, v) in enumerate(triples(page)):
        q, k = turned(q, t * page.theta), turned(k, t * page.theta)
        S = (1 - 2.0**-5) * S + outer(k, v)
        yield read(S, q)


def gla(page: Page) -> Iterator[Tensor]:
    S = torch.zeros(())
    for (q, k, v), alpha in zip(triples(page), page.gates.unbind(1), strict=True):
        S = alpha.unsqueeze(-1) * S + outer(k, v)
        yield read(S, q)


def rwkv_6(page: Page) -> Iterator[Tensor]:
    S = torch.zeros(())
    for (r, k, v), w in zip(triples(page), page.gates.unbind(1), strict=True):
        new = outer(k, v)
        yield read(S + page.u.unsqueeze(-1) * new, r)
        S = w.unsqueeze(-1) * S + new


def delta_net(page: Page) -> Iterator[Tensor]:
    S = page.v.new_zeros(2, 4, 6)
    for (q, k, v), beta in zip(triples(page), page.beta.unbind(1), strict=True):
        S = S + outer(beta * k, v - read(S, k))
        yield read(S, q)


def gated_delta_net(page: Page) -> Iterator[Tensor]:
    S = page.v.new_zeros(2, 4, 6)
    gates = page.beta.unbind(1), page.gate.unbind(1)
    for (q, k, v), beta, alpha in zip(triples(page), *gates, strict=True):
        S = alpha.unsqueeze(-1) * S
        S = S + outer(beta * k, v - read(S, k))
        yield read(S, q)


def kda(page: Page) -> Iterator[Tensor]:
    S = page.v.new_zeros(2, 4, 6)
    gates = page.beta.unbind(1), page.gates.unbind(1)
    for (q, k, v), beta, alpha in zip(triples(page), *gates, strict=True):
        S = alpha.unsqueeze(-1) * S
        S = S + outer(beta * k, v - read(S, k))
        yield read(S, q)


def comba(page: Page) -> Iterator[Tensor]:
    S = page.v.new_zeros(2, 4, 6)
    gates = page.beta.unbind(1), page.gate.unbind(1)
    for (q, k, v), beta, alpha in zip(triples(page), *gates, strict=True):
        p = page.b * k
        S = alpha.unsqueeze(-1) * S + outer(beta * k, v - read(S, p))
        yield read(S, q - page.d * p)


def rwkv_7(page: Page) -> Iterator[Tensor]:
    S = page.v.new_zeros(2, 6, 4)  # (values, keys)
    rest = page.kappa.unbind(1), page.a.unbind(1), page.gates.unbind(1)
    for (r, k, v), kappa, a, w in zip(triples(page), *rest, strict=True):
        S = S @ (torch.diag_embed(w) - outer(kappa, a * kappa)) + outer(v, k)
        yield (S @ r.unsqueeze(-1)).squeeze(-1)


def gated_delta_product(page: Page) -> Iterator[Tensor]:
    S = page.v.new_zeros(2, 4, 6)
    for t, (q, alpha) in enumerate(zip(page.q.unbind(1), page.gate.unbind(1), strict=True)):
        S = alpha.unsqueeze(-1) * S
        for j in (2 * t, 2 * t + 1):
            k, v, beta = (each[:, j] for each in (page.keys_of, page.values_of, page.strength))
            S = S + outer(beta * k, v - read(S, k))
        yield read(S, q)


def triples(page: Page) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """q, k and v of each step."""
    return zip(page.q.unbind(1), page.k.unbind(1), page.v.unbind(1), strict=True)


def outer(left: Tensor, right: Tensor) -> Tensor:
    """left rightᵀ."""
    return left.unsqueeze(-1) * right.unsqueeze(-2)


def read(S: Tensor, q: Tensor) -> Tensor:
    """Sᵀ q."""
    return (S * q.unsqueeze(-1)).sum(-2)


def turned(pairs: Tensor, angle: Tensor) -> Tensor:
    """Pairs of neighbours, turned in their planes."""
    one, other, sin, cos = pairs[..., ::2], pairs[..., 1::2], angle.sin(), angle.cos()
    return torch.cat([one * cos - other * sin, one * sin + other * cos], -1)


LOOPS: dict[str, Callable[[Page], Iterator[Tensor]]] = {
    "EMA and Mega": ema,
    "LRU": lru,
    "minGRU": min_gru,
    "minLSTM": min_lstm,
    "HGRN": hgrn,
    "LMU": lmu,
    "S4D": s4d,
    "S5": s5,
    "LinOSS": linoss,
    "Mamba": mamba,
    "Mamba-2": mamba_2,
    "Linear attention": linear_attention,
    "RetNet": retnet,
    "GLA": gla,
    "RWKV-6": rwkv_6,
    "DeltaNet": delta_net,
    "Gated DeltaNet": gated_delta_net,
    "KDA": kda,
    "Comba": comba,
    "RWKV-7": rwkv_7,
    "Gated DeltaProduct": gated_delta_product,
}
