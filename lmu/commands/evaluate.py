"""`lmu evaluate`: score a trained network, in the parallel and in the recurrent form."""

from pathlib import Path
from typing import Annotated

import typer

from lmu.commands.options import DataDir, Device, Name, Threads, report_errors
from lmu.commands.scores import print_scores
from lmu.experiments import evaluate as evaluate_checkpoint


def evaluate(
    experiment: Name,
    checkpoint: Annotated[Path, typer.Option(help="The best.safetensors of a run folder.")],
    streaming: Annotated[
        bool,
        typer.Option("--streaming", help="Run the recurrent form too, one sample at a time."),
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Score only so many test examples.")
    ] = None,
    figures: Annotated[
        bool, typer.Option("--figures", help="Compute the experiment's further figures too.")
    ] = False,
    data_dir: DataDir = None,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """Score a trained network on the test examples."""
    with report_errors():
        result = evaluate_checkpoint(
            experiment,
            checkpoint,
            data_folder=data_dir,
            streaming=streaming,
            limit=limit,
            device=device,
            figures=figures,
        )
    metric = experiment.setting(result.model).recipe.metric
    who = f"this checkpoint ({result.model}), {result.examples} test examples"
    print_scores(experiment, metric.show(result.score), who)
    for name, figure in result.figures.items():
        if name != metric.name:
            typer.echo(f"{name}: {figure:g}")
    if result.streaming_score is None:
        return
    typer.echo(f"parallel form   {metric.name} {metric.show(result.score)}")
    typer.echo(f"recurrent form  {metric.name} {metric.show(result.streaming_score)}")
    if result.differing is not None:
        typer.echo(f"predictions that differ: {result.differing} of {result.decisions}")
    typer.echo(f"largest difference of the outputs: {result.largest_difference:.1e}")
