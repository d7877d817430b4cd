"""The window that a Legendre memory holds while it follows a signal."""

import torch

import linrec
from lmu.experiments.data import band_limited_noise
from lmu.experiments.pictures.canvas import panels, png
from lmu.legendre import decoder, delay_system

THETA = 500  # steps
CYCLES = 4  # the signal's highest frequency, in cycles a window


def draw_window(
    orders: tuple[int, ...] = (4, 8, 16), moments: tuple[int, ...] = (700, 950)
) -> bytes:
    """Draw a signal's last 500 steps as memories of several orders hold them, at some moments.

    Args:
        orders: how many polynomials each memory has.
        moments: when they are read, in steps.

    Returns:
        A PNG file's content.
    """
    generator = torch.Generator().manual_seed(1)
    (signal,) = band_limited_noise(1, 2 * THETA, THETA, generator, cycles=CYCLES)
    fractions = torch.linspace(0, 1, 200, dtype=torch.float64)
    figure, axes = panels(len(moments), 1, (8, 2.6 * len(moments)))
    for panel, moment in zip(axes[:, 0], moments, strict=True):
        panel.plot(signal, color="0.75", lw=3, label="the signal")
        panel.axvspan(moment - THETA, moment, color="0.95", zorder=0)
        for order in orders:
            memory = linrec.discretize(delay_system(order, float(THETA)))
            state = linrec.final(memory, signal[: moment + 1, None]).outputs
            held = decoder(order, fractions) @ state
            panel.plot(moment - THETA * fractions, held, lw=1.2, label=f"order {order}")
        panel.axvline(moment, color="0.4", lw=0.8)
        panel.set(xlim=(0, len(signal)), ylim=(-1.6, 1.6), ylabel=f"at step {moment}")
    axes[0, 0].set_title(f"What a memory holds of the last {THETA} steps")
    axes[0, 0].legend(loc="upper left", fontsize=8, ncols=2)
    axes[-1, 0].set_xlabel("step")
    return png(figure)
