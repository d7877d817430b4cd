"""Figures of matplotlib, and their content as a PNG file."""

from typing import Any

from linrec.reporting import image_of


def panels(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    """Begin a figure of several panels, `size` in inches."""
    # Takes half a second to import, and is only needed for drawing.
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def png(figure: Any) -> bytes:
    """Return a figure as the content of a PNG file."""
    return image_of(figure, dpi=100)
