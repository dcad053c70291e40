"""Wraps a text at words while it streams, without going back over what was written."""

from __future__ import annotations

import re
from typing import Final

from rich.cells import cell_len

# Control characters of C0 but tab and line feed, DEL, and C1: a terminal would act on them.
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_TAB: Final = "    "

# A run of blanks, a line break, one character of double width, or a run of other characters.
_WIDE: Final = (
    "\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\U0001f300-\U0001faff"
)
_PIECE: Final = re.compile(rf"\n| +|[{_WIDE}]|[^\n {_WIDE}]+")


def printable(text: str) -> str:
    """Return ``text`` without control characters, which a terminal would act on, and with tabs as blanks."""
    return _CONTROLS.sub("", text.replace("\t", _TAB))


class WordWrap:
    """Breaks lines at words. The last word is held back until its end is known."""

    def __init__(self) -> None:
        self._column = 0
        self._word = ""
        self._blanks = ""

    @property
    def is_within_line(self) -> bool:
        """Whether something is written, or held back, after the last line break."""
        return self._column > 0 or bool(self._word)

    def feed(self, text: str, width: int) -> str:
        """Take more text, and return what can be written now, for a terminal of ``width`` columns."""
        written = ""
        for piece in _PIECE.findall(printable(text)):
            if piece == "\n":
                written += self._place_word(width) + "\n"
                self._column, self._blanks = 0, ""
            elif piece[0] == " ":
                written += self._place_word(width)
                self._blanks += piece
            elif cell_len(piece[0]) == 2:
                # Lines of these scripts break between any two characters.
                written += self._place_word(width)
                self._word = piece
                written += self._place_word(width, may_break=True)
            else:
                self._word += piece
                if cell_len(self._word) >= width:
                    # No line holds it: the terminal breaks it.
                    written += self._place_word(width)
        return written

    def end(self, width: int) -> str:
        """Return what was held back."""
        return self._place_word(width)

    def _place_word(self, width: int, *, may_break: bool = False) -> str:
        if not self._word:
            return ""
        length = cell_len(self._word)
        # Without blanks before it, a word is the rest of one that was too long for a line.
        may_break = may_break or bool(self._blanks)
        if may_break and self._column and self._column + len(self._blanks) + length > width:
            written, self._column = "\n" + self._word, length
        else:
            written = self._blanks + self._word
            self._column += len(self._blanks) + length
        if self._column > width:
            self._column %= width
        self._word = self._blanks = ""
        return written
