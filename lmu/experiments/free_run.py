"""Free run: a network that predicts a series continues from its own predictions."""

import torch
from torch import Tensor

from lmu.experiments.models import Network, SampleNetwork

REACH = 64  # samples shown to a network without a state; polynomials look back at 44


@torch.no_grad()
def run_free(network: Network, known: Tensor, steps: int, ahead: int) -> Tensor:
    """Predict the continuation of a series from the network's own predictions.

    The network predicts x_{t+ahead} at t. After the known samples it has predicted the next
    `ahead` samples; it reads these, predicts the `ahead` after them, and so on.

    Args:
        network: predicts each sample `ahead` samples before it.
        known (series, time, 1): the part of each series that is read, `ahead` samples or more.
        steps: how many samples to predict.
        ahead: how far it looks.

    Returns:
        The predictions `(series, steps, 1)` of the samples after the known ones.
    """
    network.eval()
    if not isinstance(network, SampleNetwork):
        read = known
        while read.shape[1] < known.shape[1] + steps:
            said = network(read[:, -REACH - ahead :])[:, -ahead:]
            read = torch.cat([read, said], 1)
        return read[:, known.shape[1] :][:, :steps]
    said, state = network.run(known)
    written = [*said[:, -ahead:].unbind(1)]
    while len(written) < steps:
        outputs, state = network.step(written[len(written) - ahead], state)
        written.append(outputs)
    return torch.stack(written[:steps], 1) if steps else known[:, :0]


def useful_steps(network: Network, series: Tensor, *, known: int, steps: int, ahead: int) -> int:
    """Count the samples of a free run until its error is as large as when predicting the mean.

    The error is RMSE / RMS(x - mean) over all series; for unrelated samples of a chaotic series it
    is √2.

    Args:
        network: predicts each sample `ahead` samples before it.
        series (series, time, 1): the true samples.
        known: how many of them the network reads first.
        steps: how many it predicts at most.
        ahead: how far it looks.

    Returns:
        How many samples come before the first whose error is 1 or more; `steps` if there is none.
    """
    later = series[:, known : known + steps].double()
    said = run_free(network, series[:, :known], later.shape[1], ahead).double()
    spread = (later - later.mean()).square().mean()
    errors = (said - later).square().mean((0, 2)) / spread
    lost = (~(errors < 1)).nonzero()  # also where the error is NaN
    return int(lost[0]) if len(lost) else later.shape[1]
