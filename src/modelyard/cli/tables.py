"""Tables and sizes for people: within the width of a terminal, and on one line each where a program reads them."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

# Nothing is wrapped that is not shown on a terminal.
_UNBOUNDED = 10_000


def table_console() -> Console:
    """A console whose tables fit the terminal, or are not wrapped at all."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _UNBOUNDED)


def plain_table(*headings: str, right: tuple[str, ...] = (), fold: str = "") -> Table:
    """A table without lines.

    Args:
        headings: of its columns.
        right: those of numbers.
        fold: the one that goes on in the next line where the terminal is too narrow.
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
    """Bytes for people; "?" where they are not known."""
    if count is None:
        return "?"
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if count >= 0.9995 * factor:
            return f"{count / factor:,.1f} {unit}" if unit == "GB" else f"{count / factor:,.0f} {unit}"
    return f"{count / 1e3:,.0f} kB" if count >= 1000 else f"{count} B"
