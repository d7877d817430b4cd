"""Tables in a page, between the marks that it has for them."""

from collections.abc import Mapping

from linrec.reporting import Table, fill_page


def fill_page_tables(page: str, tables: Mapping[str, list[Table]]) -> str:
    """Put tables, each under a heading, in the place of what stood between their marks.

    Args:
        page: the page's text, with `<!-- lmu table: NAME -->` and `<!-- lmu table: end of NAME -->`
            for each name.
        tables: by the name in their marks.

    Returns:
        The text with the tables of now.

    Raises:
        ValueError: the page has no marks of such a name.
    """
    for name, own in tables.items():
        sections = [f"### {table.title}\n\n{table.markdown(bold=2)}" for table in own]
        page = fill_page(page, "lmu table", name, "\n\n".join(sections))
    return page
