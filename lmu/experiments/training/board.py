"""Metrics for TensorBoard, in addition to the run folder's own."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch


def event_writer(folder: Path, finished: int) -> AbstractContextManager[Any]:
    """Open event files in a run folder; they are flushed at the end, and before an error goes on.

    What was written of epochs that were lost when a run was killed is taken back.

    Args:
        folder: the run folder; `tensorboard --logdir` finds it, or all next to it.
        finished: epochs that a run which goes on has behind it.

    Returns:
        A `SummaryWriter`, to be used in a `with`.
    """
    # An optional package, and seconds to import.
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(log_dir=str(folder), purge_step=finished + 1)


def write_epoch(
    writer: Any, epoch: int, metrics: dict[str, float], optimizer: torch.optim.Optimizer
) -> None:
    """Write the metrics of an epoch, and its last learning rates."""
    for name, value in metrics.items():
        writer.add_scalar(f"epoch/{name}", value, epoch)
    for index, group in enumerate(optimizer.param_groups):
        writer.add_scalar(f"lr/group_{index}", group["lr"], epoch)
