"""The initial delays of filters are scipy's, and give steady outputs where they should."""

import importlib
from typing import Any

import numpy as np
import pytest
import torch

from linrec.signal import lfilter_zi, lfiltic, sosfilt_zi
from tests.linrec.filters import EPS, FILTERS, filtered, polynomial, random

signal: Any = importlib.import_module("scipy.signal")  # whose stubs know no arrays but theirs
# (scipy refuses to look for the delays of a gain, which are none.)
STEADY = {name: FILTERS[name] for name in FILTERS if name not in ("integrator", "gain")} | {
    "butter(4, .02)": signal.butter(4, 0.02)
}


@pytest.mark.parametrize("name", STEADY)
def test_steady_delays_are_scipys_and_steady(name: str) -> None:
    b, a = STEADY[name]
    zi = lfilter_zi(b, a)
    # Both divide by Σ a, of which eps·Σ|a| is rounding.
    condition = (
        64 * EPS * len(a) * np.abs(a).sum() / abs(a.sum()) * max(np.abs(b).sum() / np.abs(a[0]), 1)
    )
    theirs = signal.lfilter_zi(b, a)
    assert zi.shape == theirs.shape
    assert np.abs(zi.numpy() - theirs).max(initial=0) <= condition * np.abs(theirs).max(initial=1)
    gain = b.sum() / a.sum()
    n = max(len(a), len(b)) - 1
    one = filtered(
        np.pad(b / a[0], (0, n + 1 - len(b))),
        np.pad(a / a[0], (0, n + 1 - len(a))),
        np.ones(1),
        zi.numpy(),
    )
    scale = max(np.abs(zi.numpy()).max(initial=0), abs(gain), 1) * np.abs(a / a[0]).sum()
    assert np.abs(one[0] - gain).max() <= condition * scale
    assert np.abs(one[1] - zi.numpy()).max(initial=0) <= condition * scale


def test_steady_delays_of_many_filters() -> None:
    b, a = random(3, 2, seed=1), np.stack([polynomial(4, seed) for seed in range(3)])
    for mine, *own in zip(lfilter_zi(b, a), b, a, strict=True):
        assert torch.allclose(mine, lfilter_zi(*own), rtol=1e-12)
    sos = signal.butter(5, 0.2, output="sos")
    assert np.allclose(sosfilt_zi(sos).numpy(), signal.sosfilt_zi(sos), rtol=1e-12, atol=1e-15)
    assert sosfilt_zi(np.stack([sos, sos])).shape == (2, 3, 2)
    assert torch.equal(
        lfilter_zi([1.0, 2.0], [0.0, 0.0, 2.0, 1.0]), lfilter_zi([1.0, 2.0], [2.0, 1.0])
    )


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize(("outputs", "inputs"), [(0, 0), (2, 1), (9, 9), (3, None)])
def test_delays_of_a_past(name: str, outputs: int, inputs: int | None) -> None:
    b, a = FILTERS[name]
    y, x = random(outputs, seed=1), None if inputs is None else random(inputs, seed=2)
    mine, theirs = lfiltic(b, a, y, x), signal.lfiltic(b, a, y, x)
    largest = 3.0 * (np.abs(b).sum() + np.abs(a).sum()) / abs(a[0])
    assert mine.shape == theirs.shape
    assert np.abs(mine.numpy() - theirs).max(initial=0) <= 32 * EPS * largest
