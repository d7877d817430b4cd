"""Samples that are lost: series that are not evenly sampled."""

import torch
from torch import Tensor

from lmu.experiments.data.splits import Dataset, Split


def lose_samples(data: Dataset, lost: int, seed: int = 0) -> Dataset:
    """Lose some samples of each series, and say how long it is since the one before.

    Args:
        data: series, evenly sampled: inputs `(series, time, features)`.
        lost: how many samples of each are lost, others in each; the last one never is.
        seed: seed of which they are.

    Returns:
        The task with inputs `(series, time - lost, features + 1)`. The last feature is the number
        of steps since the sample before, or since the beginning: nothing is said of the future.
        Where there is a target for each sample, those of lost samples are lost.

    Raises:
        ValueError: nothing would be left.
    """
    steps = data.train.inputs.shape[1]
    if not 0 <= lost < steps:
        raise ValueError(f"`lost` is {lost}: expected from 0 to {steps - 1} of {steps} samples.")
    generator = torch.Generator().manual_seed(seed)
    splits = [thin(split, lost, generator) for split in data.splits]
    return data._replace(train=splits[0], validation=splits[1], test=splits[2])


def thin(split: Split, lost: int, generator: torch.Generator) -> Split:
    """Lose samples of one split."""
    inputs, targets = split
    count, steps, _ = inputs.shape
    order = torch.rand(count, steps - 1, generator=generator).argsort(-1)
    last = torch.full((count, 1), steps - 1)
    kept = torch.cat([order[:, lost:], last], -1).sort(-1).values
    since = torch.diff(kept, prepend=torch.full((count, 1), -1)).unsqueeze(-1)
    if targets.ndim > 1:
        targets = take_samples(targets, kept)
    return Split(torch.cat([take_samples(inputs, kept), since.to(inputs.dtype)], -1), targets)


def take_samples(series: Tensor, kept: Tensor) -> Tensor:
    """Take some samples of each of `(series, time, features)`."""
    return series.gather(1, kept.unsqueeze(-1).expand(-1, -1, series.shape[-1]))
