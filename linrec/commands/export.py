"""`linrec export`: write a recurrence or a module into a file, for other programs."""

import re
from pathlib import Path
from typing import Annotated

import typer
from torch import nn

from linrec.commands.target import call_factory, load
from linrec.commands.target import recurrence as load_recurrence
from linrec.export import Form, Format, States, Weights, assure, exported
from linrec.stream.saved import write


def export(
    target: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:NAME",
            help="A recurrence, a system, a module, or a function that makes one.",
        ),
    ],
    output: Annotated[Path, typer.Option(help="The file to write.")],
    form: Annotated[
        Form, typer.Option(help="One step; or all, as a loop, a convolution or by transforms.")
    ] = Form.STEP,
    format: Annotated[
        Format,
        typer.Option(help="ONNX, a program of torch, one compiled for C++, or a header of C99."),
    ] = Format.ONNX,
    length: Annotated[
        int | None,
        typer.Option(min=2, help="The longest sequence; `conv`, `fft` and whole numbers need it."),
    ] = None,
    weights: Annotated[
        Weights, typer.Option(help="Of C: as they are, or whole numbers of 8 or 16 bits.")
    ] = Weights.FLOAT,
    states: Annotated[
        States, typer.Option(help="Beside whole weights: whole numbers, or floats, of 16 bits.")
    ] = States.INT16,
    stochastic: Annotated[
        bool, typer.Option("--stochastic", help="Round states in float16 by chance.")
    ] = False,
    largest_input: Annotated[
        float, typer.Option(help="The largest absolute value of an input, of whole numbers.")
    ] = 1.0,
    dt: Annotated[
        float | None, typer.Option(help="The time step of a system in continuous time.")
    ] = None,
    compare: Annotated[
        bool, typer.Option(help="Run the file, and say how far it is from what it was made of.")
    ] = True,
) -> None:
    """Write a recurrence or a module to a file; batch and time are left open.

    In C all names begin with the file's. What a form cannot do is refused. Whole numbers are not
    compared: their bound is in the header.
    """
    found = call_factory(load(target))
    name, told = re.sub(r"\W", "_", output.stem), ""
    try:
        if not isinstance(found, nn.Module):
            found = load_recurrence(target, dt)
        content = exported(
            found,
            form,
            format,
            name=name,
            length=length,
            weights=weights,
            states=states,
            stochastic=stochastic,
            largest_input=largest_input,
        )
        if compare and weights == Weights.FLOAT:
            told = assure(content, found, form, format, name=name, length=length)
        write(output, content)
    except (ValueError, TypeError, ModuleNotFoundError) as error:
        raise typer.BadParameter(str(error)) from None
    except OSError as error:
        raise typer.BadParameter(str(error), param_hint="--output") from None
    typer.echo(f"{output}: {len(content):,} bytes, form {form}, format {format}. {told}".rstrip())
