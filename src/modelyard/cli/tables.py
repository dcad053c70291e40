"""Formats tables and sizes: tables fit the width of a terminal; elsewhere each row is one line."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Final

from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from modelyard.system.quantities import size_text

# Width of tables that are not shown on a terminal, where no row is wrapped.
_UNBOUNDED_WIDTH: Final = 10_000
_GAP: Final = 2
# Prose in the last column is wrapped, down to this width.
_MIN_PROSE_WIDTH: Final = 24

Cell = str | Text


def table_console() -> Console:
    """Return a console whose tables fit the terminal, or are not wrapped if the output is no terminal."""
    return Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else _UNBOUNDED_WIDTH)


def print_table(
    console: Console,
    headings: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    right: Sequence[str] = (),
    prose: bool = False,
) -> None:
    """Print a table without lines, whose cells are never cut.

    Where the table is wider than the console, each row becomes a block: its first cell, and below it the others, each
    with its heading. Lines of a block that are still too long are left to the terminal, so that names can be copied.

    Args:
        console: where to print.
        headings: headings of the columns; all empty for a table without them.
        rows: the cells of each row.
        right: headings of the columns that are aligned to the right.
        prose: whether the last column is prose, which may be wrapped at words.
    """
    cells = [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
    if table_width(headings, cells, _MIN_PROSE_WIDTH if prose else None) > console.width:
        _print_blocks(console, headings, cells)
        return
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), show_header=any(headings))
    for number, heading in enumerate(headings):
        is_prose = prose and number == len(headings) - 1
        table.add_column(heading, justify="right" if heading in right else "left", no_wrap=not is_prose)
    for row in cells:
        table.add_row(*row)
    _print_without_padding(console, table)


def table_width(headings: Sequence[str], cells: Sequence[Sequence[Text]], last: int | None = None) -> int:
    """Return the width of a table in columns of the terminal; ``last`` is the most that its last column counts for."""
    columns = zip(headings, *cells, strict=True)
    widths = [max([len(heading), *map(_width, column)]) for heading, *column in columns]
    if last is not None:
        widths[-1] = min(widths[-1], last)
    return sum(widths) + _GAP * (len(widths) - 1)


def _print_blocks(console: Console, headings: Sequence[str], rows: Sequence[Sequence[Text]]) -> None:
    # Without headings the first cells are short, and name the row together.
    first = 1 if any(headings) else max(1, len(headings) - 1)
    for row in rows:
        whole = Text("  ").join(cell for cell in row if cell.plain)
        if not any(headings) and "\n" not in whole.plain and whole.cell_len <= console.width:
            console.print(whole)
            continue
        console.print(Text("  ").join(cell for cell in row[:first] if cell.plain), soft_wrap=True)
        for heading, cell in zip(headings[first:], row[first:], strict=True):
            if not cell.plain:
                continue
            for line in cell.split("\n"):
                text = Text(f"{heading}: " if heading else "") + line
                is_wrappable = all(cell_len(word) <= console.width - 2 for word in text.plain.split())
                if is_wrappable:
                    _print_without_padding(console, Padding(text, (0, 0, 0, 2)))
                else:
                    console.print(Text("  ") + text, soft_wrap=True)


def _print_without_padding(console: Console, block: Table | Padding) -> None:
    """Print a block without the blanks that fill up its lines, which would be copied with them."""
    with console.capture() as captured:
        console.print(block)
    console.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def _width(cell: Text) -> int:
    return max(line.cell_len for line in cell.split("\n"))


def size(count: int | None) -> str:
    """Return a number of bytes with a unit; "?" if it is None."""
    return "?" if count is None else size_text(count)


def budgets_text(budgets: Mapping[str, int]) -> str:
    """Return the budgets of all pools of memory, such as "17.8 GB, and 24.0 GB of CUDA0"."""
    others = [f"{size_text(budget)} of {pool}" for pool, budget in budgets.items() if pool != "host"]
    return ", and ".join((size_text(budgets["host"]), *others))
