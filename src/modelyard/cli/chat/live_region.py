"""The last lines of a terminal, which are drawn again as they change. Lines above them are written once.

A write is as small as it can be: lines that did not change stay. It is marked as synchronised, so that a terminal
that knows the mark shows it at once (https://gist.github.com/christianparpart/d8a62cc1ab659194337d73e399004036);
others ignore it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from rich.cells import cell_len

from modelyard.cli.chat.markdown import RenderedLine

_BEGIN_SYNC: Final = "\x1b[?2026h"
_END_SYNC: Final = "\x1b[?2026l"
_CLEAR_BELOW: Final = "\x1b[J"


class LiveRegion:
    """A region at the cursor, which is empty at first.

    Args:
        write: writes to the terminal and flushes.
    """

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._shown: list[RenderedLine] = []
        self._width = 0

    def draw(self, lines: Sequence[RenderedLine], width: int, *, finished: int = 0) -> None:
        """Show ``lines`` in place of those that are shown.

        Args:
            lines: the lines.
            width: of the terminal, in columns.
            finished: how many of the first lines leave the region: they stay as they are.
        """
        same = 0
        if width == self._width:
            shortest = min(len(self._shown), len(lines))
            same = next((index for index in range(shortest) if self._shown[index] != lines[index]), shortest)
            if same == len(self._shown) == len(lines) and not finished:
                return
        if same and same == len(self._shown):
            output = "".join(f"\r\n{line.styled}" for line in lines[same:])
        else:
            # The cursor ends in the last line that is written.
            same = min(same, max(0, len(lines) - 1))
            # A terminal that became narrower has broken its lines; the cursor is in the last of them.
            up = sum(rows_of(line, width) for line in self._shown[same:]) - 1
            output = "\r" + (f"\x1b[{up}A" if up > 0 else "") + _CLEAR_BELOW
            output += "\r\n".join(line.styled for line in lines[same:])
        if finished and finished == len(lines):
            output += "\r\n"
        if output:
            self._write(_BEGIN_SYNC + output + _END_SYNC)
        self._shown, self._width = list(lines[finished:]), width


def rows_of(line: RenderedLine, width: int) -> int:
    """Return how many rows of a terminal of ``width`` columns a line takes."""
    return max(1, math.ceil(cell_len(line.plain) / max(1, width)))
