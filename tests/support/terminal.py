"""A program in a terminal, and what the terminal shows: pexpect runs it, pyte is the screen."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import pexpect
import pyte
from rich.style import Style
from rich.text import Text

WAIT_S = 60.0


class Terminal:
    """A program in a terminal of a fixed size.

    Attributes:
        raw: all that the program has written.
    """

    def __init__(self, command: Sequence[str], columns: int, rows: int, environ: Mapping[str, str]) -> None:
        self._screen = pyte.HistoryScreen(columns, rows, history=10_000, ratio=0.5)
        self._stream = pyte.ByteStream(self._screen)
        self.raw = b""
        self._child = pexpect.spawn(
            command[0], list(command[1:]), dimensions=(rows, columns), env=dict(environ), timeout=WAIT_S
        )

    @property
    def lines(self) -> list[str]:
        """All lines, those that left the screen at the top first, without blanks at their ends."""
        columns = self._screen.columns
        above = ["".join(line[column].data for column in range(columns)) for line in self._screen.history.top]
        lines = [line.rstrip() for line in [*above, *self._screen.display]]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    @property
    def styled_lines(self) -> list[Text]:
        """All lines with their colours."""
        rows = [*self._screen.history.top, *(self._screen.buffer[row] for row in range(self._screen.lines))]
        lines = [_styled(row, self._screen.columns) for row in rows]
        while lines and not lines[-1].plain:
            lines.pop()
        return lines

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, *texts: str, after: int = 0) -> str:
        """Return all lines from the ``after``-th on, as soon as they have each of ``texts``."""
        deadline = time.monotonic() + WAIT_S
        while True:
            shown = "\n".join(self.lines[after:])
            if all(text in shown for text in texts):
                return shown
            assert time.monotonic() < deadline, f"{texts} is not shown:\n{shown}"
            try:
                self._take(self._child.read_nonblocking(65536, timeout=1))
            except pexpect.TIMEOUT:
                continue
            except pexpect.EOF:
                shown = "\n".join(self.lines[after:])
                assert all(text in shown for text in texts), f"ended without {texts}:\n{shown}"

    def _take(self, data: bytes) -> None:
        self.raw += data
        # pyte knows neither the mark of a synchronised update nor dim text, which is grey then.
        data = data.replace(b"\x1b[?2026h", b"").replace(b"\x1b[?2026l", b"").replace(b"\x1b[2m", b"\x1b[90m")
        self._stream.feed(data)

    def type(self, text: str) -> None:
        self._child.send(text)

    def enter(self, text: str) -> None:
        self.type(f"{text}\r")

    def paste(self, text: str) -> None:
        """Paste as a terminal does that marks what is pasted."""
        self.type(f"\x1b[200~{text}\x1b[201~")

    def resize(self, columns: int, rows: int) -> None:
        self._screen.resize(rows, columns)
        self._child.setwinsize(rows, columns)

    def end(self) -> int:
        """The exit status of the program, which is expected to end."""
        deadline = time.monotonic() + WAIT_S
        with contextlib.suppress(pexpect.EOF):
            while (left_s := deadline - time.monotonic()) > 0:
                self._take(self._child.read_nonblocking(65536, timeout=left_s))
            raise AssertionError(f"did not end:\n{self.text}")
        self._child.close()
        status = self._child.exitstatus
        assert status is not None, f"ended by signal {self._child.signalstatus}"
        return int(status)

    def kill(self) -> None:
        self._child.close(force=True)


# rich's names of the colours that pyte names otherwise.
_COLOURS = {"brown": "yellow", **{f"bright{name}": f"bright_{name}" for name in ("black", "red", "green", "blue")}}
_COLOURS |= {"brightbrown": "bright_yellow", "brightmagenta": "bright_magenta", "brightcyan": "bright_cyan"}


def _styled(row: Any, columns: int) -> Text:
    text = Text()
    for style, cells in groupby((row[column] for column in range(columns)), _style):
        text.append("".join(cell.data for cell in cells), style)
    text.rstrip()
    return text


def _style(cell: Any) -> Style:
    colour = _COLOURS.get(cell.fg, f"#{cell.fg}" if re.fullmatch("[0-9a-f]{6}", cell.fg) else cell.fg)
    return Style(color=colour, bold=cell.bold, italic=cell.italics, underline=cell.underscore)


@contextlib.contextmanager
def terminal(*args: str, columns: int = 80, rows: int = 24, **environ: str) -> Iterator[Terminal]:
    """The command line with ``args`` in a terminal."""
    full = {**os.environ, "TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1", **environ}
    for name in ("NO_COLOR", "COLUMNS", "LINES"):
        if name not in environ:
            full.pop(name, None)
    shown = Terminal([sys.executable, "-m", "modelyard", *args], columns, rows, full)
    try:
        yield shown
    finally:
        shown.kill()
