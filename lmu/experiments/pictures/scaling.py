"""The loss of language models over their parameters and over the letters that they read."""

from collections.abc import Sequence

from lmu.experiments.data.text8 import WINDOW
from lmu.experiments.pictures.canvas import panels, png
from lmu.experiments.scaling import FAMILIES, SCALING, SHARES, SIZES
from lmu.experiments.tables import Results


def draw_scaling(results: Sequence[Results]) -> bytes:
    """Draw the bits per character of `scaling`, over parameters and over letters.

    Args:
        results: our runs, of this experiment and of others; missing ones are left out.

    Returns:
        A PNG file's content.
    """
    found = {own.first.model: own for own in results if own.first.experiment == SCALING.name}
    figure, axes = panels(1, 2, (10, 4))
    for name in FAMILIES:
        of_sizes = [f"{name}-{size}" for size in SIZES]
        of_letters = [f"{name}-400k{share}" for share in SHARES]
        for panel, models in zip(axes[0], (of_sizes, of_letters), strict=True):
            runs = [found[model] for model in models if model in found]
            across = [
                run.first.parameters if models is of_sizes else count_letters(run) for run in runs
            ]
            scores = [sum(each.score for each in run.records) / len(run.records) for run in runs]
            panel.plot(across, scores, "o-", ms=4, label=name)
    axes[0, 0].set(xscale="log", xlabel="parameters", ylabel=SCALING.table.split(", ")[1])
    axes[0, 1].set(xscale="log", xlabel="letters read, at 400 thousand parameters")
    axes[0, 0].legend(frameon=False)
    return png(figure)


def count_letters(run: Results) -> int:
    """Count the letters that a run was trained on, including repetitions."""
    first = run.first
    setting = SCALING.setting(first.model, first.budget)
    return first.epochs * (setting.recipe.examples or 0) * WINDOW
