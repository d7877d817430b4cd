"""`lmu list`: the experiments, with the papers' figures."""

from rich.table import Table

from linrec.reporting import show
from lmu.experiments import EXPERIMENTS


def list_experiments() -> None:
    """List the experiments, with the papers' figures."""
    table = Table()
    for column in ("name", "task", "metric", "the paper", "compared with", "models"):
        table.add_column(column, overflow="fold")  # never cut a name
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
    show(table)
