"""`lmu train`: train one of an experiment's models, and print its score."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from lmu.commands.options import DataDir, Device, Name, Seed, Threads, make_folder, report_errors
from lmu.commands.scores import print_scores
from lmu.experiments import Budget, Run
from lmu.experiments.training import BEST, keep_memory, write


def check_tensorboard(asked: bool) -> bool:
    """Refuse to write for TensorBoard if it is not installed."""
    if asked and find_spec("tensorboard") is None:
        raise typer.BadParameter("needs tensorboard: type pip install 'linrec[tensorboard]'.")
    return asked


def train(
    experiment: Name,
    model: Annotated[
        str | None, typer.Option(help="Which of its models (`lmu list`). Default: the paper's.")
    ] = None,
    budget: Annotated[
        Budget, typer.Option(help="What the paper spent, or minutes on two cores.")
    ] = Budget.FULL,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="How many. Default: the recipe's.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="The optimiser's. Default: the recipe's.")
    ] = None,
    seed: Seed = 0,
    data_dir: DataDir = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "--out", help="The run folder. Default: runs/NAME-MODEL-BUDGET-seedSEED."
        ),
    ] = None,
    record: Annotated[
        Path | None, typer.Option(help="Folder of records, to keep the result in as well.")
    ] = None,
    device: Device = "cpu",
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the run in the run folder, if there is one."),
    ] = False,
    tensorboard: Annotated[
        bool,
        typer.Option(
            "--tensorboard", callback=check_tensorboard, help="Metrics for TensorBoard, too."
        ),
    ] = False,
    threads: Threads = None,
) -> None:
    """Train one of an experiment's models and print its score with the published ones."""
    if record is not None:
        make_folder(record / experiment.name, "--record")
    keep_memory()
    with report_errors():
        run = Run(
            experiment,
            output,
            model=model,
            budget=budget,
            seed=seed,
            epochs=epochs,
            learning_rate=learning_rate,
            data_folder=data_dir,
            device=device,
            resume=resume,
        )
    if run.data.reduced:
        typer.echo(f"The data are not the published ones: {run.data.reduced}")
    try:
        with report_errors():
            result, outcome = run.train(progress=sys.stderr.isatty(), tensorboard=tensorboard)
    except KeyboardInterrupt:
        typer.echo("Stopped. The same command with --resume goes on.", err=True)
        raise typer.Exit(130) from None
    metric = run.recipe.metric
    name = next(iter(result.figures))
    score = metric.show(result.score) if name == metric.name else f"{result.score:.2f}"
    trained = (
        f"epoch {outcome.best_epoch} of {run.recipe.epochs}" if outcome.history else "untrained"
    )
    who = f"this run ({run.model}), {trained}"
    print_scores(experiment, score, who)
    for name, value in list(result.figures.items())[1:]:
        typer.echo(f"{name}: {metric.show(value)}")
    epoch = result.seconds / max(1, len(outcome.history))
    typer.echo(
        f"{result.seconds:.0f} s of training, {epoch:.2f} s an epoch, {result.parameters:,} "
        f"parameters. Weights: {run.folder.path / BEST}"
    )
    if record is not None:
        with report_errors():
            write(record / result.path, result.to_json().encode())
