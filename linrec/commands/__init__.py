"""The commands of `linrec`, one file each."""

from importlib.metadata import version
from typing import Annotated

import typer

from linrec.commands.bench import bench
from linrec.commands.explain import explain
from linrec.commands.export import export
from linrec.commands.plot import plot
from linrec.commands.verify import verify

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
app.command()(verify)
app.command()(explain)
app.command()(export)
app.command()(bench)
app.command()(plot)


def show_version(asked: bool) -> None:
    """Say which version this is."""
    if asked:
        typer.echo(version("linrec"))
        raise typer.Exit


@app.callback()
def linrec(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Say which.")
    ] = False,
) -> None:
    """Run, verify, explain, export, measure and draw linear recurrences."""
