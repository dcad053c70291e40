"""Formats tables and sizes: tables fit the width of a terminal; elsewhere each row is one line."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

# Width of tables that are not shown on a terminal, where no row is wrapped.
_UNBOUNDED_WIDTH = 10_000


def table_console() -> Console:
    """Return a console whose tables fit the terminal, or are not wrapped if the output is no terminal."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _UNBOUNDED_WIDTH)


def plain_table(*headings: str, right: tuple[str, ...] = (), fold: str = "") -> Table:
    """Return a table without lines.

    Args:
        headings: headings of the columns.
        right: headings of the columns that are aligned to the right.
        fold: heading of the column that is folded if the terminal is too narrow.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(
            heading,
            justify="right" if heading in right else "left",
            no_wrap=heading != fold,
            overflow="fold",
        )
    return table


def size(count: int | None) -> str:
    """Return a number of bytes with a unit; "?" if it is None."""
    if count is None:
        return "?"
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if count >= 0.9995 * factor:
            return f"{count / factor:,.1f} {unit}" if unit == "GB" else f"{count / factor:,.0f} {unit}"
    return f"{count / 1e3:,.0f} kB" if count >= 1000 else f"{count} B"
