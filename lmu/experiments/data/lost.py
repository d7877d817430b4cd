"""Lost samples: series that are not evenly sampled."""

import torch
from torch import Tensor

from lmu.experiments.data.splits import Dataset, Split


def lose_samples(data: Dataset, lost: int, seed: int = 0) -> Dataset:
    """Remove some samples of each series, and add the time since the previous one to the others.

    Args:
        data: evenly sampled series: inputs `(series, time, features)`.
        lost: how many samples each series loses, others in each; the last sample is never lost.
        seed: seed of the choice.

    Returns:
        The task with inputs `(series, time - lost, features + 1)`. The last feature is the number
        of steps since the previous sample, or since the beginning: it tells nothing of the future.
        If there is a target for each sample, the targets of lost samples are lost too.

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
    """Remove samples of one split."""
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
    """Take some samples of each series of `(series, time, features)`."""
    return series.gather(1, kept.unsqueeze(-1).expand(-1, -1, series.shape[-1]))
