"""A predicted series and the true one."""

import torch

from lmu.experiments.data import Dataset
from lmu.experiments.models import Network
from lmu.experiments.pictures.canvas import panels, png


def draw_prediction(network: Network, data: Dataset, *, last: int = 400) -> bytes:
    """Draw the end of the first test series, its prediction and the error.

    Args:
        network: predicts one number at each step.
        data: its task.
        last: how many steps are drawn.

    Returns:
        A PNG file's content.
    """
    network.eval()
    with torch.no_grad():
        predicted = network(data.test.inputs[:1])[0, -last:, 0]
    truth = data.test.targets[0, -last:, 0]
    figure, axes = panels(2, 1, (8, 4.2))
    above, below = axes[:, 0]
    above.plot(truth, color="0.75", lw=3, label="the series")
    above.plot(predicted, color="tab:blue", lw=1, label="predicted")
    above.set_title("The end of the first test series")
    above.legend(fontsize=8, loc="lower right")
    below.plot(predicted - truth, color="tab:red", lw=0.8)
    below.set(xlabel="step", ylabel="error")
    return png(figure)
