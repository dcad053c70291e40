"""What commands print about models: tables that never cut an id, amounts of memory and times."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer

from modelyard.system.printable import printable, printable_lines
from modelyard.system.quantities import duration_text, size_text


def print_json(document: Any) -> None:
    """Print one JSON document."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def print_json_line(document: Any) -> None:
    """Print one JSON document as one line, at once."""
    typer.echo(json.dumps(document, ensure_ascii=False))


def print_rows(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: tuple[str, ...] = (),
    spare: tuple[str, ...] = (),
) -> None:
    """Print a table with ``tables.print_table``, without columns that have no text.

    Args:
        headings: headings of the columns.
        rows: cells of the rows; "" for nothing.
        right: headings of columns that are aligned to the right.
        spare: headings of columns that are left out of a table that does not fit otherwise, the first one first.
    """
    from rich.text import Text

    from modelyard.cli.tables import print_table, table_console, table_width

    filled, console = [[Text(printable(cell)) for cell in row] for row in rows], table_console()

    def columns(shown: Sequence[int]) -> tuple[list[str], list[list[Text]]]:
        return [headings[n] for n in shown], [[row[n] for n in shown] for row in filled]

    shown = [n for n in range(len(headings)) if n == 0 or any(row[n] for row in filled)]
    for heading in spare:
        if table_width(*columns(shown)) > console.width:
            shown = [n for n in shown if headings[n] != heading]
    print_table(console, *columns(shown), right=right)


def print_fields(fields: Mapping[str, str]) -> None:
    """Print facts of one thing, one a line, without those that are ""."""
    from rich.text import Text

    from modelyard.cli.tables import table_console

    console = table_console()
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        if value:
            console.print(Text(f"{name:<{width}}  {printable_lines(value)}"), soft_wrap=True)


def duration(seconds: float | None) -> str:
    """Return a time as the server's log writes it, such as "4.1 s" or "4 min"; "" for None."""
    return "" if seconds is None else duration_text(seconds)


def memory(size_bytes: int | None) -> str:
    """Return an amount of memory; "" for None and for none."""
    return size_text(size_bytes) if size_bytes else ""
