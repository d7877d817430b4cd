"""Delays: band-limited noise, to be recalled at delays of up to a window."""

import math

import torch
from torch import Tensor

from lmu.experiments.data.splits import Dataset, Split

CYCLES = 10  # the highest frequency, in cycles a window
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # the delays, in windows


def delay_steps(theta: int) -> tuple[int, ...]:
    """List the delays in steps: 0, a quarter of the window, … the last step within it."""
    return tuple(min(round(share * theta), theta - 1) for share in SHARES)


def band_limited_noise(
    count: int, length: int, theta: int, generator: torch.Generator, cycles: int = CYCLES
) -> Tensor:
    """Draw signals with random phases and amplitudes, of up to `cycles` cycles a window.

    They are scaled to a root mean square of 0.5, and fade in during a quarter of a window, because
    a memory of smooth signals cannot hold a jump.

    Args:
        count: how many signals.
        length: how many steps, a multiple of the window.
        theta: the window, in steps.
        generator: draws the signals.
        cycles: the highest frequency, in cycles a window.

    Returns:
        signals (count, length), float64.
    """
    highest = cycles * length // theta
    spectrum = torch.zeros(count, length // 2 + 1, dtype=torch.complex128)
    spectrum[:, 1 : highest + 1] = torch.randn(
        count, highest, dtype=torch.complex128, generator=generator
    )
    signals = torch.fft.irfft(spectrum, length)
    signals = 0.5 * signals / signals.square().mean(-1, keepdim=True).sqrt()
    begun = (torch.arange(length, dtype=torch.float64) / (0.25 * theta)).clamp(max=1)
    return signals * (0.5 * math.pi * begun).sin().square()


def delayed_noise(seed: int = 0, *, theta: int, windows: int = 2, test: int = 4) -> Dataset:
    """Return the capacity task: recall the signal at five delays, at each step.

        targets_t = (x_t, x_{t-θ/4}, x_{t-θ/2}, x_{t-3θ/4}, x_{t-θ+1})

    Args:
        seed: seed of the signals.
        theta: the window, in steps: one step more than the longest delay. At least 40, so that the
            highest frequency is well below one half.
        windows: how many windows a signal lasts.
        test: how many test signals; there is one to train on and one to choose by.

    Returns:
        The task; inputs `(signals, windows·theta, 1)` and targets `(signals, windows·theta, 5)`.

    Raises:
        ValueError: a window of less than 40 steps.

    References:
        Voelker, Kajić and Eliasmith 2019, section 4.1.
    """
    if theta < 4 * CYCLES:
        raise ValueError(
            f"`theta` is {theta}: expected at least {4 * CYCLES} steps, for a signal of up to "
            f"{CYCLES} cycles a window."
        )
    generator = torch.Generator().manual_seed(seed)
    signals = band_limited_noise(2 + test, windows * theta, theta, generator)
    delayed = [
        torch.nn.functional.pad(signals, (delay, 0))[:, : windows * theta]
        for delay in delay_steps(theta)
    ]
    whole = Split(signals.float().unsqueeze(-1), torch.stack(delayed, -1).float())
    parts = torch.arange(2 + test).split([1, 1, test])
    train, validation, last = (Split(*(tensor[part] for tensor in whole)) for part in parts)
    return Dataset(train, validation, last)
