"""`linrec plot`: draw impulse, step and frequency response, and poles."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from linrec.commands.target import recurrence as load_recurrence
from linrec.reporting import image_of, write
from linrec.response import frequency_response, impulse_response, poles, step_response
from linrec.systems import LinearRecurrence


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
    """Draw impulse response, step response, frequency response and poles into an image file."""
    recurrence = load_recurrence(target, dt)
    try:
        figure = drawn(recurrence, length)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    try:
        write(output, image_of(figure, dpi=150, format=output.suffix.removeprefix(".") or "png"))
    except (ValueError, OSError) as error:  # an unknown kind of image, a missing folder
        raise typer.BadParameter(str(error)) from None
    print(f"{output}: {len(figure.axes)} drawings of {length} steps")


def drawn(recurrence: LinearRecurrence, length: int) -> Any:
    """Draw the responses of every input on every output, and where the poles are."""
    from matplotlib.figure import Figure

    frequencies = torch.linspace(0, torch.pi, 400, dtype=torch.float64)
    gain = frequency_response(recurrence, frequencies).abs()
    steps = range(length)
    figure = Figure(figsize=(10, 7), layout="constrained")
    impulse, step, frequency, plane = figure.subplots(2, 2).flat
    lines(impulse, steps, impulse_response(recurrence, length), "Impulse response", "step")
    lines(step, steps, step_response(recurrence, length), "Step response", "step")
    lines(frequency, frequencies, gain, "Gain", "frequency, radians per step")
    if bool((gain > 0).any()):
        frequency.set_yscale("log")
    circle = np.exp(1j * np.linspace(0, 2 * np.pi, 200))
    plane.plot(np.real(circle), np.imag(circle), color="0.7")
    values = poles(recurrence).flatten().numpy()
    plane.plot(np.real(values), np.imag(values), "x")
    plane.set(title="Poles and the unit circle", xlabel="real", ylabel="imaginary", aspect="equal")
    return figure


def lines(axes: Any, times: Any, response: torch.Tensor, title: str, label: str) -> None:
    """Draw a response `(*batch, time, p, m)`, of several systems and channels a line each."""
    response = response.detach()
    response = (response.real if response.is_complex() else response).movedim(-3, 0)
    axes.plot(times, response.flatten(1).numpy(), marker="." if len(response) <= 30 else "")
    axes.set(title=title, xlabel=label)
    axes.grid(alpha=0.3)
