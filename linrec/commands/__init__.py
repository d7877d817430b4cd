"""What can be typed after `linrec`: one file a command."""

import typer

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Run, verify, explain, measure and draw linear recurrences.",
)
