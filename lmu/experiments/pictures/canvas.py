"""Figures that become the content of a PNG file."""

import io
from typing import Any


def panels(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    """Begin a figure of several panels, `size` in inches."""
    # Half a second to import, and needed by those who draw alone.
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def png(figure: Any) -> bytes:
    """Write a figure as a PNG file's content."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    return content.getvalue()
