"""The error of a signal recalled by a memory of order 100, over the delay and the window."""

import torch

import linrec
from linrec import LinearRecurrence
from lmu.experiments.data import delayed_noise
from lmu.experiments.pictures.canvas import panels, png
from lmu.legendre import decoder, delay_system

WINDOWS = (100, 1_000, 10_000, 100_000)  # steps
POINTS = 21  # delays, evenly spaced in the window


def errors(theta: int, order: int = 100, dtype: torch.dtype = torch.float32) -> list[float]:
    """Compute the error at each delay, relative to the signal.

    Args:
        theta: the window, in steps.
        order: how many polynomials.
        dtype: the dtype in which the memory runs.

    Returns:
        RMSE / RMS(signal) at delays from 0 to theta - 1.
    """
    signals = delayed_noise(theta=theta, test=1).test.inputs.double()
    delays = [round(share * (theta - 1)) for share in torch.linspace(0, 1, POINTS).tolist()]
    system = linrec.discretize(delay_system(order, float(theta)))
    readout = decoder(order, [(delay + 0.5) / theta for delay in delays])
    memory = LinearRecurrence(system.A, system.B, readout).to(dtype)
    outputs = linrec.run(memory, signals.to(dtype)).outputs.double()
    found = []
    for place, delay in enumerate(delays):
        delayed = torch.nn.functional.pad(signals[..., 0], (delay, 0))[:, : signals.shape[1]]
        wrong = (outputs[..., place] - delayed).square().mean()
        found.append((wrong / delayed.square().mean()).sqrt().item())
    return found


def draw_capacity(windows: tuple[int, ...] = WINDOWS) -> bytes:
    """Draw the error over the delay, for several windows, in float32 and in float64.

    Args:
        windows: in steps.

    Returns:
        A PNG file's content.
    """
    figure, axes = panels(1, 1, (7, 4))
    panel = axes[0, 0]
    shares = torch.linspace(0, 1, POINTS).tolist()
    for index, theta in enumerate(windows):
        for dtype, style in ((torch.float32, "-"), (torch.float64, ":")):
            label = f"θ = {theta:,}" if dtype is torch.float32 else None
            panel.plot(shares, errors(theta, dtype=dtype), style, color=f"C{index}", label=label)
    panel.set(
        yscale="log",
        xlabel="delay, in windows",
        ylabel="NRMSE",
        title="A memory of order 100, untrained (dotted: float64)",
    )
    panel.legend(fontsize=8)
    return png(figure)
