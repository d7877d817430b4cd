"""`lmu export`: a trained network in a file, for where it is needed."""

import re
from pathlib import Path
from typing import Annotated

import typer

from linrec.export import Form, Format, exported
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
    data_dir: DataDir = None,
    threads: Threads = None,
) -> None:
    """Write a trained network to a file; batch and time are left open."""
    with report_errors():
        network, _, data = restore(experiment, checkpoint, data_folder=data_dir)
        example = data.test.inputs[:2]
        steps = example.shape[-2 if example.is_floating_point() else -1]
        try:
            content = exported(
                network.eval(),
                form,
                format,
                name=re.sub(r"\W", "_", output.stem),
                example=example,
                length=length or steps,
            )
        except ModuleNotFoundError as error:
            raise ValueError(str(error)) from None
        write(output, content)
    typer.echo(f"{output}: {len(content):,} bytes, form {form}, format {format}.")
