"""Metrics for TensorBoard, in addition to the run folder's own."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch


def event_writer(folder: Path, finished: int) -> AbstractContextManager[Any]:
    """Open event files in a run folder; they are flushed at the end, even after an error.

    Events of epochs that were lost when a run was killed are removed.

    Args:
        folder: the run folder, for `tensorboard --logdir`, as is its parent for all runs in it.
        finished: how many epochs a continued run has finished.

    Returns:
        A `SummaryWriter`, to be used in a `with`.
    """
    # An optional package that takes seconds to import.
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(log_dir=str(folder), purge_step=finished + 1)


def write_epoch(
    writer: Any, epoch: int, metrics: dict[str, float], optimizer: torch.optim.Optimizer
) -> None:
    """Write the metrics of an epoch, and the learning rates at its end."""
    for name, value in metrics.items():
        writer.add_scalar(f"epoch/{name}", value, epoch)
    for index, group in enumerate(optimizer.param_groups):
        writer.add_scalar(f"lr/group_{index}", group["lr"], epoch)
