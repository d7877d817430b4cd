"""Tables in a page, put between the marks that it has for them."""

from collections.abc import Mapping

from linrec.reporting import Table, fill_page


def fill_page_tables(page: str, tables: Mapping[str, list[Table]]) -> str:
    """Replace the text between a page's marks by tables, each under a heading.

    Args:
        page: the page's text, with `<!-- lmu table: NAME -->` and `<!-- lmu table: end of NAME -->`
            for each name.
        tables: by the name in their marks.

    Returns:
        The text with the current tables.

    Raises:
        ValueError: the page has no marks with such a name.
    """
    for name, own in tables.items():
        sections = [f"### {table.title}\n\n{table.markdown(bold=2)}" for table in own]
        page = fill_page(page, "lmu table", name, "\n\n".join(sections))
    return page
