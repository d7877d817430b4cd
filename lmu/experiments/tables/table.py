"""A table as a value, to print or to put into a page."""

from dataclasses import dataclass

import rich.table
from rich.console import Console, Group, RenderableType
from rich.text import Text


@dataclass(frozen=True)
class Table:
    """Rows of text under a title, and remarks.

    Args:
        title: what it is about.
        columns: their headings; those after the first are aligned to the right.
        rows: a text for each column.
        ours: the rows that stand out.
        notes: remarks, a sentence each.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    ours: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()

    def rich(self) -> RenderableType:
        """Render it for the terminal."""
        table = rich.table.Table(title=self.title, title_justify="left", title_style="bold")
        for index, column in enumerate(self.columns):
            table.add_column(column, justify="right" if index else "left")
        for index, row in enumerate(self.rows):
            table.add_row(*map(Text, row), style="bold" if index in self.ours else None)
        return Group(table, *map(Text, self.notes))

    def markdown(self) -> str:
        """Render it for a page, under a heading of the third level."""
        alignment = ("---", *("---:" for _ in self.columns[1:]))
        lines = [f"### {self.title}", "", line(self.columns), line(alignment)]
        for index, row in enumerate(self.rows):
            cells = (f"**{cell}**" if cell and index in self.ours else cell for cell in row[:2])
            lines.append(line((*cells, *row[2:])))
        for note in self.notes:
            lines += ["", note]
        return "\n".join(lines) + "\n"


def line(cells: tuple[str, ...]) -> str:
    """Join the cells of a Markdown row."""
    return f"| {' | '.join(cells)} |"


def show(tables: list[Table], console: Console) -> None:
    """Print tables with a line between."""
    for table in tables:
        console.print(table.rich(), "")
