"""Mackey-Glass: a chaotic series, generated, to be predicted 15 samples ahead."""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from lmu.experiments.data.splits import Dataset, Split

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

    The system is chaotic: a different last digit leads to a different series after a thousand
    samples or so. So every number is computed by single additions, subtractions, multiplications
    and divisions, which IEEE 754 rounds in the same way on every processor, and never by numpy's
    powers, hyperbolic functions or sums, whose last digits depend on the available vector
    instructions. A seed gives the same series everywhere, bit for bit.

    Args:
        count: how many series.
        length: samples in each.
        seed: seed of the histories, 0 or more.

    Returns:
        series (count, length): the samples at t = 1, 2, …

    References:
        Mackey and Glass 1977; the histories and the squashing are those of the public notebook of
        Voelker, Kajić and Eliasmith 2019.
    """
    delay = TAU * SUBSTEPS
    delayed = 1.2 + 0.2 * (_uniform(count, delay, seed) - 0.5)
    state = np.full(count, 1.2)
    samples = []
    for _ in range(-(-length * SUBSTEPS // delay)):
        # The delayed term of one whole delay is known in advance.
        drive = (0.2 / SUBSTEPS) * delayed / (1.0 + _tenth_power(delayed))
        delayed = np.empty_like(drive)
        for substep in range(delay):
            delayed[:, substep] = state
            state = (1.0 - 0.1 / SUBSTEPS) * state + drive[:, substep]
            if substep % SUBSTEPS == SUBSTEPS - 1:
                samples.append(state)
    return _tanh(np.stack(samples[:length], axis=1) - 1.0)


def _uniform(count: int, length: int, seed: int) -> NDArray[np.float64]:
    """Draw numbers `(count, length)` from [0, 1): the upper 53 bits of PCG64's integers."""
    integers = np.random.PCG64(seed).random_raw(count * length)
    upper = (integers >> np.uint64(11)).astype(np.float64)  # exact: 53 bits
    return upper.reshape(count, length) * 2.0**-53


def _tenth_power(x: NDArray[np.float64]) -> NDArray[np.float64]:
    square = x * x
    fourth = square * square
    return fourth * fourth * square


def _tanh(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute tanh(x) for |x| ≤ 1 by Lambert's continued fraction x / (1 + x² / (3 + x² / (5 + ….

    Cut off after 19, its relative error is 6.4e-20 at x = 1 and smaller below, so that only its
    roundings matter. All terms are positive, so that these do not grow.
    """
    square = x * x
    fraction = np.full_like(x, 19.0)
    for odd in range(17, 0, -2):
        fraction = odd + square / fraction
    return x / fraction


def mackey_glass(
    seed: int = 0, *, series: int = SERIES, length: int = LENGTH, ahead: int = AHEAD
) -> Dataset:
    """Return the prediction task: the series `ahead` samples later, at each sample.

        inputs_t = x_t      targets_t = x_{t + ahead}

    The first 100 samples are dropped and the mean over all series is subtracted. A quarter of the
    series are for training, a quarter for validation and half for test. The public notebook with
    this task swaps inputs and targets, and so asks for a past sample that the network has read.

    Args:
        seed: seed of the series' histories.
        series: how many series, a multiple of 4.
        length: samples that are read in each series.
        ahead: how far the target lies in the future, in samples.

    Returns:
        The task; each split's inputs and targets are `(series, length, 1)`.

    Raises:
        ValueError: `series` is not a positive multiple of 4.
    """
    if series % 4 or series <= 0:
        raise ValueError(
            f"`series` is {series}: expected a positive multiple of 4, since a quarter trains, a "
            "quarter validates and half tests. Pass 128 for the published task."
        )
    samples = mackey_glass_series(series, DROPPED + length + ahead, seed)[:, DROPPED:]
    mean = math.fsum(samples.flat) / samples.size  # the sum is rounded once: the same in any order
    samples = torch.from_numpy(samples - mean).float().unsqueeze(-1)
    whole = Split(samples[:, :length], samples[:, ahead:])
    quarter = series // 4
    return Dataset(
        train=Split(*(part[:quarter] for part in whole)),
        validation=Split(*(part[quarter : 2 * quarter] for part in whole)),
        test=Split(*(part[2 * quarter :] for part in whole)),
    )
