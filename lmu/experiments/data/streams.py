"""Series for online learning: a chaotic one, and speech."""

import os
import re

import torch
from torch import Tensor

from lmu.experiments.data.files import find
from lmu.experiments.data.mackey_glass import DROPPED, mackey_glass_series
from lmu.experiments.data.speech import (
    DIGITS,
    DIGITS_RATE,
    LARGEST_RECORDING,
    MOST_RECORDINGS,
    sound,
)
from lmu.experiments.data.splits import Dataset, Split
from lmu.files import zip_members

LENGTH = 2_500  # samples in a series
SPACING = 6  # every sixth sample of Mackey-Glass is taken
NAME = re.compile(r"(\d)_(\w+)_(\d+)\.wav$")


def next_samples(series: Tensor) -> Split:
    """Take each sample as an input and the next one as its target.

    Args:
        series (series, time + 1): the samples.

    Returns:
        Inputs and targets `(series, time, 1)`.
    """
    samples = series.float().unsqueeze(-1)
    return Split(samples[:, :-1], samples[:, 1:])


def sparse_mackey_glass(seed: int = 0, *, series: int = 1, length: int = LENGTH) -> Dataset:
    """Return every sixth sample of Mackey-Glass series; the next of these is the target.

    Args:
        seed: seed of the series' histories.
        series: how many series for validation, and as many for test; there are none for training.
        length: how many samples of each series are read.

    Returns:
        The task; inputs and targets `(series, length, 1)`, with mean 0 and variance 1.
    """
    found = mackey_glass_series(2 * series, DROPPED + SPACING * (length + 1), seed)
    samples = torch.from_numpy(found[:, DROPPED::SPACING][:, : length + 1].copy())
    samples = (samples - samples[:series].mean()) / samples[:series].std()
    choose, test = next_samples(samples[:series]), next_samples(samples[series:])
    return Dataset(Split(*(part[:0] for part in choose)), choose, test)


def speech_samples(
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    *,
    series: int = 1,
    length: int = LENGTH,
) -> Dataset:
    """Return the sound of spoken digits, 8,000 samples a second; the next sample is the target.

    A series is a third of a second of one speaker, one digit after another. Validation series are
    from recordings 5 to 9, test series from recordings 0 to 4, of another speaker for each seed.

    Args:
        seed: selects speakers and recordings.
        folder: the data folder, which holds `fsdd/recordings.zip`; None takes `LMU_DATA`.
        series: how many series for validation, and as many for test; there are none for training.
        length: how many samples of each series are read.

    Returns:
        The task; inputs and targets `(series, length, 1)`, scaled to a mean square of 1 in the
        validation series.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or has too few recordings.

    References:
        Jackson et al., Free Spoken Digit Dataset, v1.0.10.
    """
    path = find(DIGITS, folder)
    found: dict[tuple[str, int], list[tuple[str, Tensor]]] = {}
    members = zip_members(
        path,
        lambda name: NAME.search(name) is not None,
        most=MOST_RECORDINGS,
        largest=LARGEST_RECORDING,
    )
    for name, content in members:
        match = NAME.search(name)
        assert match is not None  # since the member was wanted
        take = found.setdefault((match[2], int(match[3])), [])
        take.append((match[1], sound(content, f"{path}: {name[:80]}", DIGITS_RATE)))
    speakers = sorted({speaker for speaker, _ in found})
    if not speakers:
        raise ValueError(f"`{path}` has no recordings: expected names like `7_jackson_32.wav`.")

    def spoken(which: int, first: int) -> Tensor:
        speaker = speakers[which % len(speakers)]
        parts = [
            samples
            for take in range(first, first + 5)
            for _, samples in sorted(found.get((speaker, take), []), key=lambda each: each[0])
        ]
        heard = torch.cat(parts) if parts else torch.empty(0)
        if len(heard) <= length:
            raise ValueError(
                f"`{path}` has {len(heard):,} samples of {speaker}, recordings {first} to "
                f"{first + 4}: expected more than {length:,}."
            )
        return heard[: length + 1]

    places = range(series * seed, series * (seed + 1))
    choose, test = (torch.stack([spoken(place, first) for place in places]) for first in (5, 0))
    scale = choose.square().mean().sqrt().clamp(min=torch.finfo(choose.dtype).tiny)
    choose, test = next_samples(choose / scale), next_samples(test / scale)
    return Dataset(Split(*(part[:0] for part in choose)), choose, test)
