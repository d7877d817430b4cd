"""Mackey-Glass: a chaotic series, generated, to be predicted 15 samples ahead."""

import numpy as np
import torch
from numpy.typing import NDArray

from lmu.data.splits import Dataset, Split

SERIES = 128
LENGTH = 5_000  # samples that a network reads in each series
AHEAD = 15  # samples
DROPPED = 100  # samples before the attractor is reached
TAU = 17  # samples
SUBSTEPS = 10  # Euler steps a sample


def mackey_glass_series(count: int, length: int, seed: int) -> NDArray[np.float64]:
    r"""Integrate the Mackey-Glass equation from `count` random histories.

        x'(t) = 0.2 x(t-τ) / (1 + x(t-τ)^10) - 0.1 x(t),      τ = 17

    by Euler's method with 10 substeps a sample, from the history 1.2 + 0.2 (U[0, 1) - 0.5), one
    draw a substep, and x(0) = 1.2; then squashed by tanh(x - 1).

    Args:
        count: how many series.
        length: samples in each.
        seed: seed of the histories.

    Returns:
        series (count, length): the samples at t = 1, 2, …

    References:
        Mackey and Glass 1977; the histories and the squashing are those of the public notebook of
        Voelker, Kajić and Eliasmith 2019.
    """
    # Over one delay the delayed term is known beforehand, so that Euler's step is a recurrence
    # with a given drive,
    #     x_{k+1} = keep x_k + drive_k,    keep = 1 - 0.1/10,   drive_k = (0.2/10) g(x_{k-170}),
    # which a sum solves, 170 steps at once:  x_k = keep^k (x_0 + Σ_{i<k} drive_i / keep^(i+1)).
    # keep^170 = 0.18, so that nothing is lost by dividing by it.
    delay = TAU * SUBSTEPS
    powers = (1.0 - 0.1 / SUBSTEPS) ** np.arange(1, delay + 1)
    delayed = 1.2 + 0.2 * (np.random.default_rng(seed).random((count, delay)) - 0.5)
    state = np.full((count, 1), 1.2)
    pieces = []
    for _ in range(-(-length * SUBSTEPS // delay)):
        drive = (0.2 / SUBSTEPS) * delayed / (1.0 + delayed**10)
        after = powers * (state + np.cumsum(drive / powers, axis=1))
        # What the next block looks back on starts with this block's x_0, not with its x_1.
        delayed = np.concatenate([state, after[:, :-1]], axis=1)
        state = after[:, -1:]
        pieces.append(after)
    fine = np.concatenate(pieces, axis=1)
    return np.tanh(fine[:, SUBSTEPS - 1 : length * SUBSTEPS : SUBSTEPS] - 1.0)


def mackey_glass(
    seed: int = 0, *, series: int = SERIES, length: int = LENGTH, ahead: int = AHEAD
) -> Dataset:
    """Return the prediction task: at each sample, say what the series is `ahead` samples later.

        inputs_t = x_t      targets_t = x_{t + ahead}

    The first 100 samples are dropped and the mean over all series is subtracted; a quarter of the
    series trains, a quarter validates and half tests. The notebook that the task is known from
    has the two swapped, which asks for the past: one that the network has read.

    Args:
        seed: seed of the series' histories.
        series: how many series, a multiple of 4.
        length: samples that are read in each series.
        ahead: how far the target lies in the future, in samples.

    Returns:
        The task; each split's inputs and targets are `(series, length, 1)`.
    """
    if series % 4 or series <= 0:
        raise ValueError(
            f"`series` is {series}: expected a positive multiple of 4, since a quarter trains, a "
            "quarter validates and half tests. Pass 128 for the published task."
        )
    samples = mackey_glass_series(series, DROPPED + length + ahead, seed)[:, DROPPED:]
    samples = torch.from_numpy(samples - samples.mean()).float().unsqueeze(-1)
    whole = Split(samples[:, :length], samples[:, ahead:])
    quarter = series // 4
    return Dataset(
        train=Split(*(part[:quarter] for part in whole)),
        validation=Split(*(part[quarter : 2 * quarter] for part in whole)),
        test=Split(*(part[2 * quarter :] for part in whole)),
    )
