"""Filters, their reference by definition, and the allowed difference of two computations."""

from typing import Any

import numpy as np
import torch

EPS = float(np.finfo(np.float64).eps)


def random(*shape: int, seed: int = 0, dtype: Any = np.float64) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((2, *shape))
    return (
        values[0] + 1j * values[1] if np.issubdtype(dtype, np.complexfloating) else values[0]
    ).astype(dtype)


def polynomial(order: int, seed: int, dtype: Any = np.float64, radius: float = 0.9) -> np.ndarray:
    """A denominator of poles within a radius."""
    poles = random(order, seed=seed, dtype=np.complex128)
    poles = radius * poles / np.abs(poles).max(initial=1.0)
    if not np.issubdtype(dtype, np.complexfloating):
        half = poles[: order // 2]
        poles = np.concatenate([half, half.conj(), poles[order // 2 : order % 2 + order // 2].real])
    return np.poly(poles).astype(dtype)


FILTERS: dict[str, tuple[Any, Any]] = {
    "gain": (np.array([2.0]), np.array([4.0])),
    "one pole": (np.array([0.5]), np.array([1.0, -0.5])),
    "not normalised": (random(3), -3 * polynomial(2, 1)),
    "poles only": (np.array([1.5]), polynomial(5, 2)),
    "moving average": (random(7), np.array([1.0])),
    "moving average, not normalised": (random(7), np.array([-2.0])),
    "more zeros than poles": (random(8), polynomial(3, 3)),
    "fewer zeros than poles": (random(2), polynomial(6, 4)),
    "a of trailing zeros": (random(3), np.array([1.0, 0.5, 0.0, 0.0, 0.0])),
    "b of leading zeros": (np.array([0.0, 0.0, 1.0]), polynomial(2, 5)),
    "delay": (np.array([0.0, 0.0, 1.0]), np.array([1.0])),
    "integrator": (np.array([1.0]), np.array([1.0, -1.0])),
    "unstable": (random(2), np.array([1.0, -1.1])),
    "complex": (random(3, dtype=complex), polynomial(4, 6, complex)),
    "complex denominator": (random(3), (1 + 1j) * polynomial(4, 6, complex)),
}


def allowed(b: Any, a: Any, x: Any, zi: Any) -> tuple[np.ndarray, np.ndarray]:
    """How far two computations of outputs and last delays lie apart, along the last axis.

    An output is a sum of at most 2n + 2 products of coefficients, inputs and earlier outputs, which
    go through n delays: each is rounded at most 2(2n + 2) times, complex ones four times as often,
    and b_i - a_i b_0 is once more. What is rounded at one step reaches later ones through 1 / a.
    The coefficients were divided by a_0 before, which is one rounding more of each.
    """
    b, a = np.asarray(b) / a[0], np.asarray(a) / a[0]
    n = max(len(a), len(b)) - 1
    b, a = np.pad(b, (0, n + 1 - len(b))), np.pad(a, (0, n + 1 - len(a)))
    steps = x.shape[-1]
    zi = np.zeros((*x.shape[:-1], n)) if zi is None else np.broadcast_to(zi, (*x.shape[:-1], n))
    y = filtered(b, a, x, zi)[0]
    # (FIR filters of absolute values: sums of |b| |x|, |a| |y| and |a| |b_0 x|, n steps beyond.)
    longer = [np.pad(np.abs(each), [(0, 0)] * (x.ndim - 1) + [(0, n)]) for each in (x, y)]
    local = summed(np.abs(b) + np.abs(a * b[0]), longer[0]) + summed(np.abs(a), longer[1])
    local[..., :n] += np.abs(zi)[..., : steps + n]
    local = 4 * (2 * (2 * n + 2) + 3) * EPS * local
    impulse = np.eye(1, steps)[0]
    response = np.abs(filtered(np.eye(1, n + 1)[0], a, impulse, np.zeros(n))[0])
    outputs = summed(response, local[..., :steps])
    # A delay is such a sum too, of outputs that are wrong already.
    wrong = np.pad(outputs, [(0, 0)] * (x.ndim - 1) + [(0, n)])
    delays = local[..., steps:] + summed(np.abs(a), wrong)[..., steps:]
    return 2 * outputs, 2 * delays


def filtered(b: Any, a: Any, x: Any, zi: Any) -> tuple[np.ndarray, np.ndarray]:
    """The definition, in transposed direct form II, as a loop."""
    z = list(np.moveaxis(zi, -1, 0))
    y = []
    for t in range(x.shape[-1]):
        now = b[0] * x[..., t] + (z[0] if z else 0)
        z = [
            (z[i + 1] if i + 1 < len(z) else 0) + b[i + 1] * x[..., t] - a[i + 1] * now
            for i in range(len(z))
        ]
        y.append(now)
    stacked = np.stack(y, -1) if y else np.zeros((*x.shape[:-1], 0))
    return stacked, np.stack(z, -1) if z else np.zeros((*x.shape[:-1], 0))


def summed(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Σ_k w_k v_{t-k} along the last axis."""
    total = np.zeros(values.shape)
    for k, weight in enumerate(weights[: values.shape[-1]]):
        total[..., k:] += weight * values[..., : values.shape[-1] - k]
    return total


def assert_within(got: torch.Tensor, expected: np.ndarray, tolerance: Any) -> None:
    assert tuple(got.shape) == expected.shape
    assert str(got.dtype).removeprefix("torch.") == str(expected.dtype)
    difference = np.abs(got.numpy() - expected)
    assert (difference <= tolerance).all(), (difference - tolerance).max()
