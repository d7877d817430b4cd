"""`lmu plot`: drawings of memories, of trained networks and of results."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lmu.commands.options import DataDir, report_errors
from lmu.experiments import EXPERIMENTS, restore
from lmu.experiments.pictures import (
    draw_capacity,
    draw_prediction,
    draw_scaling,
    draw_sizes,
    draw_window,
)
from lmu.experiments.speedup.chart import chart
from lmu.experiments.tables import read_measured, read_records
from lmu.experiments.training import write


class Picture(StrEnum):
    """The pictures that can be drawn."""

    WINDOW = "window"
    CAPACITY = "capacity"
    SPEEDUP = "speedup"
    PSMNIST = "psmnist"
    SCALING = "scaling"


def plot_prediction(checkpoint: Path, data_dir: Path | None) -> bytes:
    """Draw the predictions of a trained network."""
    network, _, data = restore(EXPERIMENTS["mackey-glass"], checkpoint, data_folder=data_dir)
    return draw_prediction(network, data)


DRAWINGS: dict[Picture, Callable[[], bytes]] = {
    Picture.WINDOW: draw_window,
    Picture.CAPACITY: draw_capacity,
    Picture.SPEEDUP: lambda: chart(read_measured()),
    Picture.PSMNIST: lambda: draw_sizes(EXPERIMENTS["psmnist"], read_records()),
    Picture.SCALING: lambda: draw_scaling(read_records()),
}


def plot(
    pictures: Annotated[
        list[Picture] | None,
        typer.Argument(help="What is drawn. Default: everything, or what --checkpoint asks for."),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="The best.safetensors of a run of mackey-glass: draw its predictions, too."
        ),
    ] = None,
    output: Annotated[Path, typer.Option(help="The folder for the PNG files.")] = Path("."),
    data_dir: DataDir = None,
) -> None:
    """Draw a memory's window, its capacity, the speed-up, and scores over sizes and letters."""
    chosen = pictures if pictures or checkpoint else list(Picture)
    drawings = {picture.value: DRAWINGS[picture] for picture in chosen or ()}
    if checkpoint is not None:
        drawings["prediction"] = lambda: plot_prediction(checkpoint, data_dir)
    with report_errors():
        for name, draw in drawings.items():
            write(output / f"{name}.png", draw())
            typer.echo(output / f"{name}.png")
