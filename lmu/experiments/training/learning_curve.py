"""The learning curve of a run, as a picture."""

from typing import Any

from linrec.reporting import image_of
from lmu.experiments.training.recipe import Metric


def learning_curve(history: list[dict[str, Any]], metric: Metric) -> bytes:
    """Draw the training loss of each epoch, and the validation score if there is one.

    Args:
        history: one entry per epoch, as in `metrics.jsonl`.
        metric: the score.

    Returns:
        A PNG file's content.
    """
    # Takes half a second to import, and is only needed once, at the end.
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    epochs = [entry["epoch"] for entry in history]
    figure = Figure(figsize=(7, 4), layout="constrained")
    loss = figure.add_subplot()
    loss.plot(epochs, [entry["training_loss"] for entry in history], color="tab:gray")
    loss.set(xlabel="epoch", ylabel="training loss (gray)", yscale="log")
    loss.xaxis.set_major_locator(MaxNLocator(integer=True))
    scores = [entry["validation_score"] for entry in history]
    if None in scores:  # trained on all examples
        return image_of(figure, dpi=150)
    score = loss.twinx()
    score.plot(epochs, scores, color="tab:blue")
    score.set_ylabel(f"validation {metric.name} (blue)")
    if not metric.higher_is_better:
        score.set_yscale("log")
    return image_of(figure, dpi=150)
