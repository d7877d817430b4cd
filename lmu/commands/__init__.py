"""The commands of `lmu`, one file each."""

from importlib.metadata import version
from typing import Annotated

import typer

from lmu.commands.evaluate import evaluate
from lmu.commands.export import export
from lmu.commands.list import list_experiments
from lmu.commands.plot import plot
from lmu.commands.speedup import speedup
from lmu.commands.stream import stream
from lmu.commands.table import table
from lmu.commands.train import train
from lmu.commands.write import translate, write

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
app.command("list")(list_experiments)
app.command()(train)
app.command()(evaluate)
app.command()(stream)
app.command()(export)
app.command()(write)
app.command()(translate)
app.command()(plot)
app.command()(speedup)
app.command()(table)


def show_version(asked: bool) -> None:
    """Print the version."""
    if asked:
        typer.echo(version("linrec"))
        raise typer.Exit


@app.callback()
def lmu(
    version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Say the version."),
    ] = False,
) -> None:
    """Train and evaluate the Legendre Memory Unit as its papers did."""
