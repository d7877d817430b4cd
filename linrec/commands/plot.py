"""`linrec plot`: draw impulse, step and frequency response, and poles."""

import math
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor

from linrec.commands.target import recurrence as load_recurrence
from linrec.reporting import image_of, write
from linrec.response import frequency_response, impulse_response, poles, step_response
from linrec.systems import LinearRecurrence

# A legend with more lines than this would cover the plot.
MOST_LABELS = 12


def plot(
    target: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:NAME",
            help="A recurrence, a system, a module that holds one, or a function that makes one.",
        ),
    ],
    output: Annotated[Path, typer.Option(help="The image; its ending says of which kind.")] = Path(
        "response.png"
    ),
    length: Annotated[int, typer.Option(min=2, help="How many steps.")] = 100,
    dt: Annotated[
        float | None, typer.Option(help="The time step of a system in continuous time.")
    ] = None,
) -> None:
    """Draw impulse response, step response, gain, phase and poles into an image file."""
    recurrence = load_recurrence(target, dt)
    try:
        figure = draw_responses(recurrence, length, target)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    try:
        write(output, image_of(figure, dpi=150, format=output.suffix.removeprefix(".") or "png"))
    except (ValueError, OSError) as error:  # an unknown kind of image, a missing folder
        raise typer.BadParameter(str(error)) from None
    print(f"{output}: {len(figure.axes)} drawings of {length} steps")


@torch.no_grad()
def draw_responses(recurrence: LinearRecurrence, length: int, title: str) -> Any:
    """Draw the responses of every system, from every input to every output, and the poles.

    Args:
        recurrence: a time-invariant recurrence; one copy of it is drawn.
        length: the number of steps of impulse and step response.
        title: the title of the figure.
    """
    from matplotlib.figure import Figure

    recurrence = recurrence.to("cpu")
    frequencies = torch.linspace(0, torch.pi, 400, dtype=torch.float64, device="cpu")
    response = frequency_response(recurrence, frequencies)
    labels = list(label_lines(recurrence))
    figure = Figure(figsize=(13, 7), layout="constrained")
    figure.suptitle(f"{title}: {describe(recurrence)}")
    axes = figure.subplot_mosaic([["impulse", "step", "poles"], ["gain", "phase", "poles"]])
    steps = range(length)
    impulse, step = impulse_response(recurrence, length), step_response(recurrence, length)
    draw_lines(axes["impulse"], steps, impulse, "Impulse response", "step", labels)
    draw_lines(axes["step"], steps, step, "Step response", "step", labels)
    hertz = "frequency (radians per step)"
    gain = response.abs()
    draw_lines(axes["gain"], frequencies, gain, "Gain", hertz, labels)
    if bool((gain > 0).any()):
        axes["gain"].set_yscale("log")
    phase = torch.from_numpy(np.unwrap(response.angle().numpy(), axis=-3)) * (180 / math.pi)
    draw_lines(axes["phase"], frequencies, phase, "Phase (degrees)", hertz, labels)
    draw_poles(axes["poles"], poles(recurrence).resolve_conj())
    if 1 < len(labels) <= MOST_LABELS:
        axes["impulse"].legend(fontsize="small")
    return figure


def describe(recurrence: LinearRecurrence) -> str:
    """Describe the sizes of one copy, and the number of systems."""
    own = recurrence.per_copy()
    sizes = [
        (math.prod(recurrence.batch_shape), "system"),
        (own.A.state_size, "state"),
        (own.input_size, "input"),
        (own.output_size, "output"),
    ]
    words = [f"{count} {unit}{'s' * (count != 1)}" for count, unit in sizes if unit != "system"]
    systems = sizes[0][0]
    return (f"{systems} systems, each of " if systems != 1 else "") + ", ".join(words)


def label_lines(recurrence: LinearRecurrence) -> Iterator[str]:
    """Name the lines of a response, in the order in which they are drawn."""
    own = recurrence.per_copy()
    systems = [*product(*(range(size) for size in recurrence.batch_shape))]
    for system, output, input in product(systems, range(own.output_size), range(own.input_size)):
        channel = f"u{input + 1} → y{output + 1}"
        yield channel if systems == [()] else f"system {label_system(system)}, {channel}"


def label_system(index: tuple[int, ...]) -> str:
    """Write the place of a system in the batch."""
    return ", ".join(str(place) for place in index)


def draw_lines(
    axes: Any, times: Any, response: Tensor, title: str, unit: str, labels: list[str]
) -> None:
    """Draw a response `(*batch, time, p, m)`: a line for each system, output and input.

    Imaginary parts are dashed lines of the same colours.
    """
    rows = response.resolve_conj().movedim(-3, 0).flatten(1)
    rows = rows.unsqueeze(-1) if rows.ndim == 1 else rows
    marker = "." if len(rows) <= 30 else ""
    named = labels if len(labels) == rows.shape[1] else [""] * rows.shape[1]
    for row, label in zip(rows.mT, named, strict=True):
        (line,) = axes.plot(times, row.real.numpy(), marker=marker, label=label)
        if row.is_complex() and bool((row.imag != 0).any()):
            axes.plot(times, row.imag.numpy(), linestyle="--", color=line.get_color())
            title = f"{title.removesuffix(' (dashed: imaginary)')} (dashed: imaginary)"
    axes.set(title=title, xlabel=unit)
    axes.grid(alpha=0.3)


def draw_poles(axes: Any, values: Tensor) -> None:
    """Draw the poles `(*batch, n)` of each system, with the unit circle."""
    circle = np.exp(1j * np.linspace(0, 2 * np.pi, 200))
    axes.plot(np.real(circle), np.imag(circle), color="0.7", label="unit circle")
    systems = [*product(*(range(size) for size in values.shape[:-1]))]
    for system in systems:
        own = values[system].numpy()
        label = "poles" if system == () else f"system {label_system(system)}"
        axes.plot(np.real(own), np.imag(own), "x", label=label)
    axes.set(title="Poles", xlabel="real", ylabel="imaginary", aspect="equal")
    axes.grid(alpha=0.3)
    if len(systems) <= MOST_LABELS:
        axes.legend(fontsize="small", loc="upper right")
