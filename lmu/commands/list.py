"""`lmu list`: the experiments, with the papers' figures."""

from rich.console import Console
from rich.table import Table

from lmu.experiments import EXPERIMENTS


def list_experiments() -> None:
    """List the experiments, with the papers' figures."""
    table = Table("name", "task", "metric", "the paper", "compared with", "models")
    for experiment in EXPERIMENTS.values():
        compared = ", ".join(f"{figure.who} {figure.value:g}" for figure in experiment.baselines)
        table.add_row(
            experiment.name,
            experiment.title,
            experiment.setting().recipe.metric.name,
            f"{experiment.target.value:g}" if experiment.target else "",
            compared,
            ", ".join(experiment.models),
        )
    Console().print(table)
