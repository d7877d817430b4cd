"""`lmu table`: the papers' tables with ours."""

from pathlib import Path
from typing import Annotated

import typer

from linrec.reporting import show
from lmu.commands.options import report_errors
from lmu.experiments import EXPERIMENTS
from lmu.experiments.tables import (
    fill_page_tables,
    read_measured,
    read_records,
    result_tables,
    speedup_tables,
)
from lmu.experiments.training import RESULT, write
from lmu.files import read_text

PAGE = 2**24  # bytes of a page, at most


def table(
    runs: Annotated[
        Path | None, typer.Option(help="Your run folders, or a folder of them, to show as well.")
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            "--page", "--markdown", help="Only write the tables into this page, between its marks."
        ),
    ] = None,
) -> None:
    """Show the papers' tables with recorded results in them.

    A result of yours that cannot be read is named, and left out; the exit status is 1 then.
    """
    damaged: list[Exception] = []
    with report_errors():
        results = read_records()
        if runs is not None:
            yours = read_records(runs, yours=True, damaged=damaged)
            if not yours and not damaged:
                raise FileNotFoundError(
                    f"`{runs}` holds no `{RESULT}`: expected the folder of a run that has ended, "
                    "or a folder of such. Give it with `--runs FOLDER`."
                )
            results += yours
        tables = {
            "results": result_tables(results, EXPERIMENTS),
            "speedup": speedup_tables(read_measured()),
        }
        if page is not None:
            write(page, fill_page_tables(read_text(page, PAGE), tables).encode())
    if page is None:
        for own in tables.values():
            for each in own:
                show(each.rich())
                typer.echo()
    for error in damaged:
        typer.echo(f"error: {error}", err=True)
    if damaged:
        typer.echo(f"{len(damaged)} of your results are left out of the tables.", err=True)
        raise typer.Exit(1)
