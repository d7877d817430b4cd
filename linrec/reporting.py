"""Reports of measurements: tables for terminals and pages, durations, and the machine."""

import io
import os
import platform
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from linrec._files import PART as PART
from linrec._files import write as write

WIDEST = 10_000  # characters per line in a pipe


@dataclass(frozen=True)
class Table:
    """A table of text under a title, with remarks.

    Attributes:
        title: the subject.
        columns: the headings; all columns but the first are aligned to the right.
        rows: the cells.
        marked: indices of the rows that stand out.
        notes: remarks, one sentence each.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: frozenset[int] = frozenset()
    notes: Sequence[str] = ()

    def rich(self, style: str = "bold") -> Any:
        """Render the table for a terminal, with marked rows in a style."""
        from rich.console import Group
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(title=self.title, title_justify="left", title_style="bold")
        for index, column in enumerate(self.columns):
            table.add_column(column, justify="right" if index else "left")
        for index, row in enumerate(self.rows):
            table.add_row(*map(Text, row), style=style if index in self.marked else None)
        return Group(table, *map(Text, self.notes))

    def markdown(self, bold: int | None = None) -> str:
        """Render the rows and the notes as Markdown, with marked rows in bold.

        Args:
            bold: the number of cells per marked row that are bold. None: all.
        """
        lines = [self.columns, ["---", *["---:"] * (len(self.columns) - 1)]]
        for index, row in enumerate(self.rows):
            stop = (len(row) if bold is None else bold) if index in self.marked else 0
            lines.append([*(f"**{cell}**" if cell else "" for cell in row[:stop]), *row[stop:]])
        rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return "\n\n".join([rows, *self.notes])


def fill_page(page: str, program: str, name: str, text: str) -> str:
    """Replace the text between two marks of a page.

    Args:
        page: with one line `<!-- PROGRAM: NAME -->` and, after it, `<!-- PROGRAM: end of NAME -->`.
        program: PROGRAM in the marks, such as `linrec bench`.
        name: NAME in the marks.
        text: the new text.

    Raises:
        ValueError: the page lacks a mark, or has one twice.
    """
    start, end = f"<!-- {program}: {name} -->", f"<!-- {program}: end of {name} -->"
    pattern = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
    if page.count(start) != 1 or page.count(end) != 1 or not pattern.search(page):
        raise ValueError(
            f"The page has no place for {name}: expected one line `{start}` and, after it, one "
            f"line `{end}`."
        )
    return pattern.sub(lambda _: f"{start}\n\n{text}\n\n{end}", page)


def image_of(figure: Any, dpi: int, format: str = "png") -> bytes:
    """Render a matplotlib figure as the content of an image file."""
    content = io.BytesIO()
    figure.savefig(content, format=format, dpi=dpi)
    return content.getvalue()


def show(renderable: Any) -> None:
    """Print a rich renderable: at the terminal's width, or at its full width into a pipe."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal and not os.environ.get("COLUMNS"):
        wide = console.options.update_width(WIDEST)
        console.width = max(console.width, console.measure(renderable, options=wide).maximum)
    console.print(renderable)


def replace_unprintable() -> None:
    """Print `?` for characters that a terminal or pipe cannot encode, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def duration(seconds: float) -> str:
    """Write a time with three digits and the unit that fits."""
    if seconds >= 100:
        return f"{seconds / 60:.3g} min"
    for unit, scale in (("s", 1.0), ("ms", 1e3)):
        if seconds * scale >= 1:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def processor() -> str:
    """Return the processor's name, as far as the system reports it."""
    described = Path("/proc/cpuinfo")
    if described.is_file():  # Linux, where `platform` knows only the architecture
        for line in described.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def check_writable(file: str | os.PathLike[str]) -> None:
    """Create the folder of a file, and check that the file can be written there.

    Raises:
        OSError: it cannot.
    """
    file = Path(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=file.parent).close()
    except OSError as error:
        raise OSError(
            f"nothing can be written into `{file.parent}` ({error.strerror}): expected a folder, "
            "or a place where one can be made."
        ) from None
    if file.is_dir():
        raise OSError(f"{file} is a folder: expected a file, or nothing. Move it away.")
