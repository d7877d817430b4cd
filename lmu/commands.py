"""What can be typed after `lmu`."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from lmu.experiments import EXPERIMENTS, Experiment, Run, Source, evaluate
from lmu.training import BEST

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)


def _experiment(name: str) -> Experiment:
    if name not in EXPERIMENTS:
        raise typer.BadParameter(
            f"`{name}` is no experiment: expected one of {', '.join(EXPERIMENTS)}."
        )
    return EXPERIMENTS[name]


def _device(name: str) -> str:
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise typer.BadParameter(
            f"`{name}` cannot be used ({reason}): expected `cpu`, or `cuda` where there is one."
        ) from None
    return name


def _threads(count: int | None) -> int | None:
    if count is not None:
        torch.set_num_threads(count)
    return count


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(version("linrec"))
        raise typer.Exit


Name = Annotated[Experiment, typer.Argument(parser=_experiment, metavar="NAME")]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder of the data sets' files. Default: LMU_DATA, or download them."),
]
Device = Annotated[str, typer.Option(callback=_device, help="Where to compute: cpu, cuda, …")]
Threads = Annotated[
    int | None, typer.Option(min=1, callback=_threads, help="CPU threads. Default: torch's.")
]


@app.callback()
def lmu(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Say the version."),
    ] = False,
) -> None:
    """Train and evaluate the Legendre Memory Unit as its papers did."""


@app.command("list")
def list_experiments() -> None:
    """List the experiments, with what the papers report."""
    table = Table("name", "task", "metric", "the paper", "compared with")
    for experiment in EXPERIMENTS.values():
        compared = ", ".join(f"{figure.who} {figure.value:g}" for figure in experiment.baselines)
        table.add_row(
            experiment.name,
            experiment.title,
            experiment.recipe.metric.name,
            f"{experiment.target.value:g}",
            compared,
        )
    Console().print(table)


@app.command()
def train(
    experiment: Name,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="How many. Default: the recipe's.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of data, weights, order and dropout.")] = 0,
    data_dir: DataDir = None,
    out: Annotated[
        Path | None, typer.Option(help="The run folder. Default: runs/NAME-seedSEED.")
    ] = None,
    device: Device = "cpu",
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the run in the run folder, if there is one."),
    ] = False,
    threads: Threads = None,
) -> None:
    """Train an experiment's network and print its test score beside the published ones."""
    with _explained():
        run = Run(
            experiment,
            out,
            seed=seed,
            epochs=epochs,
            data_folder=data_dir,
            device=device,
            resume=resume,
        )
    try:
        score, outcome = run.train(progress=sys.stderr.isatty())
    except KeyboardInterrupt:
        typer.echo("Stopped. The same command with --resume goes on.", err=True)
        raise typer.Exit(130) from None
    _print_scores(experiment, score, f"this run, epoch {outcome.best_epoch} of {run.recipe.epochs}")
    seconds = sum(entry["seconds"] for entry in outcome.history)
    typer.echo(
        f"{seconds:.0f} s of training, {seconds / len(outcome.history):.2f} s an epoch. Weights: "
        f"{run.folder.path / BEST}"
    )


@app.command("evaluate")
def evaluate_checkpoint(
    experiment: Name,
    checkpoint: Annotated[Path, typer.Option(help="The best.pt of a run folder.")],
    streaming: Annotated[
        bool,
        typer.Option("--streaming", help="Run the recurrent form too, one sample at a time."),
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Score only so many test examples.")
    ] = None,
    data_dir: DataDir = None,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """Score a trained network on the test examples."""
    with _explained():
        result = evaluate(
            experiment,
            checkpoint,
            data_folder=data_dir,
            streaming=streaming,
            limit=limit,
            device=device,
        )
    metric = experiment.recipe.metric
    _print_scores(experiment, result.score, f"this checkpoint, {result.examples} test examples")
    if result.streaming_score is None:
        return
    typer.echo(f"parallel form   {metric.name} {metric.show(result.score)}")
    typer.echo(f"recurrent form  {metric.name} {metric.show(result.streaming_score)}")
    if result.differing is not None:
        typer.echo(f"predictions that differ: {result.differing} of {result.examples}")
    typer.echo(f"largest difference of the outputs: {result.largest_difference:.1e}")


def _print_scores(experiment: Experiment, score: float, who: str) -> None:
    table = Table(experiment.table, "", "")
    table.add_row(who, experiment.recipe.metric.show(score), "", style="bold")
    for figure in (experiment.target, *experiment.baselines):
        remark = figure.source.value if figure.source is Source.UNCONFIRMED else ""
        table.add_row(figure.who, f"{figure.value:g}", remark)
    Console().print(table)


@contextmanager
def _explained() -> Iterator[None]:
    """Print a refusal instead of a traceback: its message says what to do."""
    try:
        yield
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
