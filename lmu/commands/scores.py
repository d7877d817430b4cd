"""A score, printed with the published ones."""

from rich.table import Table

from linrec.reporting import show
from lmu.experiments import Experiment, Provenance


def print_scores(experiment: Experiment, score: str, who: str) -> None:
    """Print a score in bold above the papers' scores."""
    table = Table(experiment.table, "", "")
    table.add_row(who, score, "", style="bold")
    for figure in experiment.published:
        remark = figure.source.value if figure.source is Provenance.UNCONFIRMED else ""
        table.add_row(figure.who, f"{figure.value:g}", remark)
    show(table)
