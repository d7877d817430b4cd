"""Shared options of the commands, and their errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import torch
import typer

from linrec.reporting import check_writable
from lmu.experiments import EXPERIMENTS, Experiment


def _experiment(name: str) -> Experiment:
    if name not in EXPERIMENTS:
        raise typer.BadParameter(
            f"`{name}` is no experiment: expected one of {', '.join(EXPERIMENTS)}."
        )
    return EXPERIMENTS[name]


def _device(name: str) -> str:
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise typer.BadParameter(
            f"`{name}` cannot be used ({reason}): expected `cpu`, or `cuda` where there is one."
        ) from None
    return name


def _threads(count: int | None) -> int | None:
    if count is not None:
        torch.set_num_threads(count)
    return count


Name = Annotated[Experiment, typer.Argument(parser=_experiment, metavar="NAME")]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder of the data sets' files. Default: LMU_DATA, or download them."),
]
Device = Annotated[str, typer.Option(callback=_device, help="Where to compute: cpu, cuda, …")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of what is drawn.")]
Threads = Annotated[
    int | None, typer.Option(min=1, callback=_threads, help="CPU threads. Default: torch's.")
]


def make_folder(folder: Path, option: str) -> None:
    """Check that files can be written into a folder, before time is spent on them."""
    try:
        check_writable(folder / "anything")
    except OSError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


@contextmanager
def report_errors() -> Iterator[None]:
    """Print an error's message, which says what to do, instead of a traceback."""
    try:
        yield
    except (ValueError, OSError, FloatingPointError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
