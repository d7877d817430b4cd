"""`linrec explain`: which executor would run a recurrence, and why."""

from typing import Annotated

import typer

from linrec.commands.target import recurrence as load_recurrence
from linrec.planner import Auto


def explain(
    target: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:NAME",
            help="A recurrence, a system, a module that holds one, or a function that makes one.",
        ),
    ],
    length: Annotated[int, typer.Option(min=1, help="How many steps.")] = 1000,
    batch: Annotated[int, typer.Option(min=1, help="How many sequences.")] = 1,
    last_only: Annotated[bool, typer.Option(help="The last step alone, as by `final`.")] = False,
    prepared: Annotated[bool, typer.Option(help="Plans are kept, as by modules.")] = False,
    gradient: Annotated[bool, typer.Option(help="The inputs need a gradient.")] = False,
    tolerance: Annotated[
        float | None, typer.Option(help="The largest error that an executor may have.")
    ] = None,
    per_step: Annotated[
        bool, typer.Option(help="Errors are small at every step, not beside the largest alone.")
    ] = True,
    dt: Annotated[
        float | None, typer.Option(help="The time step of a system in continuous time.")
    ] = None,
) -> None:
    """Show the cost of every executor, the choice, and the nearest change to another choice."""
    recurrence = load_recurrence(target, dt)
    length = length if recurrence.steps is None else recurrence.steps
    try:
        auto = Auto(tolerance=tolerance, per_step=per_step)
        explained = auto.explain(
            recurrence, length, (batch,), last_only=last_only, prepared=prepared, gradient=gradient
        )
        print(explained)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
