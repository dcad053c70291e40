"""Finds texts that tokenizers may take long for. Pure."""

from __future__ import annotations

import re
from typing import Final

# Letters, blanks, marks, digits: pre-tokenizers take a run of one kind for one word, however long it is.
_RUN: Final = re.compile(r"[^\W\d_]+|\s+|[^\w\s]+|_+|\d+")

MAX_RUN: Final = 4096
# "superbpe" scans from each digit to the end of its number: 0.1 s for 1,000 digits, a hundred times that for 10,000.
MAX_DIGITS: Final = 512


def has_long_run(text: str) -> bool:
    """Whether a text has more than ``MAX_RUN`` characters of one kind in a row, or more than ``MAX_DIGITS`` digits.

    Ordinary texts have not. The time that some pre-tokenizers take for a run grows with the square of its length.
    """
    for match in _RUN.finditer(text):
        length = match.end() - match.start()
        if length > MAX_RUN or (length > MAX_DIGITS and match[0][0].isdigit()):
            return True
    return False


def uncommon_characters(text: str, lacking: str = "") -> int:
    """Return the number of characters that a vocabulary may lack: those outside of ASCII, and those of ``lacking``."""
    return len(text) - len(text.encode("ascii", "ignore")) + sum(map(text.count, lacking))
