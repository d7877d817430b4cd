"""Scores over the number of trained parameters."""

from collections.abc import Sequence

from lmu.experiments import Budget, Experiment
from lmu.experiments.pictures.canvas import panels, png
from lmu.experiments.tables import Results


def draw_sizes(experiment: Experiment, results: Sequence[Results]) -> bytes:
    """Draw the scores of an experiment's models over their sizes, ours filled.

    Published models of unknown size are lines. Of our runs, those with the full budget are drawn,
    each seed as a dot.

    Args:
        experiment: the experiment.
        results: our runs, of this experiment and of others.

    Returns:
        A PNG file's content.
    """
    figure, axes = panels(1, 1, (7, 4))
    panel = axes[0, 0]
    beside = {"textcoords": "offset points", "fontsize": 8}
    for published in experiment.published:
        who, value, size = published.who, published.value, published.parameters
        if size is None:
            panel.axhline(value, color="0.85", lw=0.8, zorder=0)
            across = panel.get_yaxis_transform()
            panel.text(0.99, value, who, transform=across, fontsize=7, color="0.5", ha="right")
        else:
            panel.plot(size, value, "o", mfc="white", color="0.4", zorder=3)
            panel.annotate(who, (size, value), (-6, -12), color="0.4", ha="right", **beside)
    for own in results:
        if own.first.experiment == experiment.name and own.first.budget is Budget.FULL:
            scores = [record.score for record in own.records]
            size, mean = own.first.parameters, sum(scores) / len(scores)
            panel.plot([size] * len(scores), scores, ".", color="tab:blue", alpha=0.5)
            panel.plot(size, mean, "o", color="tab:blue", zorder=2)
            panel.annotate(f"{own.first.model}, ours", (size, mean), (6, 4), **beside)
    panel.set(xscale="log", xlabel="trained numbers", title=experiment.table)
    panel.margins(x=0.4, y=0.1)
    return png(figure)
