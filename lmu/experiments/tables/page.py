"""Tables in a page, between two marks."""

import re
from collections.abc import Mapping

from lmu.experiments.tables.table import Table


def marks(name: str) -> tuple[str, str]:
    """Return the marks before and after the tables of a name."""
    return f"<!-- lmu table: {name} -->", f"<!-- lmu table: end of {name} -->"


def written_into(page: str, tables: Mapping[str, list[Table]]) -> str:
    """Put tables between their marks, in the place of what stood there.

    Args:
        page: the page's text.
        tables: by the name in their marks.

    Returns:
        The text with the tables of now.

    Raises:
        ValueError: the page has no marks of such a name.
    """
    for name, own in tables.items():
        before, after = marks(name)
        pattern = re.compile(f"{re.escape(before)}.*?{re.escape(after)}", re.DOTALL)
        if not pattern.search(page):
            raise ValueError(
                f"The page has no place for the tables of `{name}`: expected the lines\n"
                f"{before}\n{after}"
            )
        text = "\n".join(table.markdown() for table in own)
        page = pattern.sub(lambda _, new=f"{before}\n\n{text}\n{after}": new, page)
    return page
