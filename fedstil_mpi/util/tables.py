"""Tables as text: for a terminal, and in Markdown."""

from collections.abc import Iterable, Sequence

from rich.table import Table

LONGEST = 24
"""Tables of clients or ranks with more rows than these show the sum, the largest, or those that are alike together."""


def plain(*columns: str, left: Iterable[str] = ()) -> Table:
    """A table without lines for a terminal; all columns but those named in `left` are numbers."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, justify="left" if column in left else "right")
    return table


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A Markdown table. The first `left` columns hold names, the others numbers."""
    rule = ["---"] * left + ["---:"] * (len(header) - left)
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in (header, rule, *rows)
    )
