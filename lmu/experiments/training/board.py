"""Metrics for TensorBoard, beside the run folder's own."""

from pathlib import Path

import torch
from ignite.engine import Engine, Events
from ignite.handlers import TensorboardLogger


def log_to_tensorboard(
    engine: Engine, optimizer: torch.optim.Optimizer, folder: Path, finished: int
) -> None:
    """Write the engine's metrics and the learning rate of each epoch to event files.

    What was written of epochs that were lost when a run was killed is taken back.

    Args:
        engine: trains; its `state.metrics` are written.
        optimizer: has the learning rate.
        folder: the run folder; `tensorboard --logdir` finds it, or all beside it.
        finished: epochs that a run which goes on has behind it.
    """
    logger = TensorboardLogger(log_dir=str(folder), purge_step=finished + 1)
    after = Events.EPOCH_COMPLETED
    logger.attach_output_handler(engine, after, tag="epoch", metric_names="all")
    logger.attach_opt_params_handler(engine, after, optimizer=optimizer)
    engine.add_event_handler(Events.COMPLETED, logger.close)
    engine.add_event_handler(Events.EXCEPTION_RAISED, close_and_raise, logger)


def close_and_raise(error: BaseException, logger: TensorboardLogger) -> None:
    """Flush before an error goes on."""
    logger.close()
    raise error
