"""`lmu export`: a trained network in a file, for use elsewhere."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from linrec.export import Form, Format, assure, exported
from lmu.commands.options import DataDir, Name, Threads, report_errors
from lmu.experiments import restore
from lmu.experiments.training import write


def export(
    experiment: Name,
    checkpoint: Annotated[Path, typer.Option(help="The best.safetensors of a run folder.")],
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
        typer.Option(min=2, help="The longest sequence of `conv` and `fft`. Default: the data's."),
    ] = None,
    compare: Annotated[
        bool, typer.Option(help="Run the file, and say how far it is from the network.")
    ] = True,
    data_dir: DataDir = None,
    threads: Threads = None,
) -> None:
    """Write a trained network to a file; batch and time are left open."""
    with report_errors():
        network, _, data = restore(experiment, checkpoint, data_folder=data_dir)
        example = data.test.inputs[:2]
        steps = length or example.shape[1]
        name, told = re.sub(r"\W", "_", output.stem), ""
        given: dict[str, Any] = {"name": name, "example": example[:, :steps], "length": steps}
        try:
            content = exported(network.eval(), form, format, **given)
        except ModuleNotFoundError as error:
            raise ValueError(str(error)) from None
        if compare:
            told = assure(content, network, form, format, **given)
        write(output, content)
    typer.echo(f"{output}: {len(content):,} bytes, form {form}, format {format}. {told}".rstrip())
