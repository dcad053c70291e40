"""The terminal, or what stands in its place: where answers and notes go, and what an answer looks like there."""

from __future__ import annotations

import base64
import os
import shutil
import sys
from collections.abc import Mapping
from typing import Final

from rich.console import Console
from rich.text import Text

from modelyard.cli.chat.approving import Approver
from modelyard.cli.chat.client import Client
from modelyard.cli.chat.keyboard import Keyboard
from modelyard.cli.chat.markdown import MarkdownRenderer
from modelyard.cli.chat.views import AnswerView, MarkdownView, PipeView, TerminalSize, WrappedView
from modelyard.cli.chat.word_wrap import printable

# xterm takes no longer sequence to set its clipboard.
MAX_CLIPBOARD_BYTES: Final = 74_000


class Terminal:
    """Answers go to standard output, and all else to standard error.

    Args:
        environ: the environment, for ``NO_COLOR`` and ``TERM``.

    Attributes:
        notes: takes notes, tables and bars.
        keyboard: where the user types; None: nobody can answer questions with keys.
        shows_markdown: whether answers are shown as Markdown; the terminal must be able to.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.notes = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self.keyboard = Keyboard.find()
        self.is_terminal = sys.stdout.isatty()
        # An empty NO_COLOR is no wish: https://no-color.org
        self.has_styles = self.is_terminal and environ.get("TERM") != "dumb" and not environ.get("NO_COLOR")
        self.shows_markdown = self.has_styles
        self._renderer = MarkdownRenderer(Console(file=sys.stdout, highlight=False))

    def note(self, text: str) -> None:
        """Print a line for the user, wrapped at words on a terminal."""
        self.notes.print(printable(text), style="dim", overflow="fold", soft_wrap=not self.notes.is_terminal)

    def error(self, text: str) -> None:
        """Print what failed."""
        self.notes.print(Text.assemble(("error: ", "bold red"), printable(text), overflow="fold"))

    def view(self) -> AnswerView:
        """Return what shows the next answer."""
        if not self.is_terminal:
            return PipeView(sys.stdout)
        if self.shows_markdown:
            return MarkdownView(self._renderer, self.write, _size)
        return WrappedView(self.write, _size)

    def approver(self, client: Client, view: AnswerView) -> Approver:
        """Return what asks about calls of tools in the answer that ``view`` shows."""
        return Approver(client, view, self.note, self.keyboard)

    def write(self, text: str) -> None:
        """Write to standard output at once."""
        sys.stdout.write(text)
        sys.stdout.flush()

    def copy(self, text: str) -> bool:
        """Have the terminal copy a text to the clipboard; return whether it is short enough, and there is a terminal.

        Source: OSC 52, https://invisible-island.net/xterm/ctlseqs/ctlseqs.html
        """
        data = text.encode()
        if len(data) > MAX_CLIPBOARD_BYTES or not self.is_terminal:
            return False
        self.write(f"\x1b]52;c;{base64.b64encode(data).decode()}\x07")
        return True


def _size() -> TerminalSize:
    # Not shutil's, which prefers COLUMNS of the environment, which no resize changes.
    try:
        columns, rows = os.get_terminal_size(sys.stdout.fileno())
    except OSError:
        columns, rows = shutil.get_terminal_size()
    # A terminal of unknown size reports 0.
    return TerminalSize(columns or 80, rows or 24)
