"""Figures that become the content of a PNG file."""

from typing import Any

from linrec.reporting import image_of


def panels(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    """Begin a figure of several panels, `size` in inches."""
    # Half a second to import, and needed by those who draw alone.
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def png(figure: Any) -> bytes:
    """Write a figure as a PNG file's content."""
    return image_of(figure, dpi=100)
