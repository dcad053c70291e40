'''When Enter sends what was typed, and text in triple quotes.

As in ``ollama run``, text in ``"""`` may have several lines. It stands alone, or is the argument of a command.
'''

from __future__ import annotations

import re
from typing import Final

_QUOTES: Final = '"""'

# A command and its argument, or Ollama's ``/set system``, before the quotes.
_BEFORE_QUOTES: Final = re.compile(r"\s*(/[A-Za-z]+\s+(system\s+)?)?(?=\"\"\")")


def continues(text: str) -> bool:
    """Whether Enter at the end of ``text`` begins another line.

    It does where triple quotes are open, or a backslash is the last character; a doubled one is text.
    """
    opened = _BEFORE_QUOTES.match(text)
    if opened is not None:
        rest = text[opened.end() + len(_QUOTES) :].rstrip()
        return not rest.endswith(_QUOTES)
    backslashes = len(text) - len(text.rstrip("\\"))
    return backslashes % 2 == 1


def unquoted(text: str) -> str:
    """Return ``text`` without the triple quotes around it; other text is returned without blank ends.

    One line break after the opening quotes, and one before the closing ones, belong to the quotes.
    """
    stripped = text.strip()
    if not stripped.startswith(_QUOTES):
        return stripped
    inner = stripped.removeprefix(_QUOTES)
    inner = inner.removesuffix(_QUOTES)
    return inner.removeprefix("\n").removesuffix("\n")


def without_continuation(text: str) -> str:
    """Return ``text``, whose last character is a backslash that continues the line, with a line break in its place."""
    return text[:-1] + "\n"
