"""Reads the text of a custom tool's only argument while the JSON around it is generated."""

from __future__ import annotations

import json
import re
from typing import Final

_BEGINNING: Final = re.compile(r'\s*\{\s*"input"\s*:\s*"')
_MAX_BEGINNING: Final = 64
"""Characters in which the text must have begun; else it is read when the arguments are complete."""

# A whole escape: one character, or a code unit in four digits; two of these may be the halves of one character.
_ESCAPE_CHARACTERS: Final = 6


class TextArgument:
    """The text of ``{"input": "…"}``, piece by piece.

    The pieces add up to ``whole`` for every object of that form. All other arguments are read at their end only.
    """

    def __init__(self) -> None:
        self._arguments: list[str] = []
        # JSON of the text that was not decoded yet; None before the text has begun.
        self._rest: str | None = None
        self._head = ""
        self._is_over = False
        self._given = ""

    def push(self, arguments: str) -> str:
        """Return the text that became certain with more of the arguments."""
        self._arguments.append(arguments)
        if self._is_over:
            return ""
        if self._rest is None:
            self._head += arguments
            beginning = _BEGINNING.match(self._head)
            if beginning is None:
                self._is_over = len(self._head) > _MAX_BEGINNING
                return ""
            self._rest = self._head[beginning.end() :]
        else:
            self._rest += arguments
        encoded, self._rest = self._certain(self._rest)
        text = _decoded(encoded)
        self._given += text
        return text

    def finish(self) -> tuple[str, str]:
        """Return the text that was not returned before, and the whole text."""
        whole = _whole("".join(self._arguments))
        if not whole.startswith(self._given):
            # A key occurred twice: what was streamed stands.
            whole = self._given
        return whole[len(self._given) :], whole

    def _certain(self, rest: str) -> tuple[str, str]:
        """Split JSON of a text into what can be decoded already, and the rest."""
        at = 0
        while at < len(rest):
            quote, escape = rest.find('"', at), rest.find("\\", at)
            if quote >= 0 and (escape < 0 or quote < escape):
                self._is_over = True
                return rest[:quote], ""
            if escape < 0:
                return rest, ""
            length = _length_of_escape(rest[escape : escape + 2 * _ESCAPE_CHARACTERS])
            if len(rest) < escape + length:
                return rest[:escape], rest[escape:]
            at = escape + length
        return rest, ""


def _length_of_escape(beginning: str) -> int:
    """Return the characters of the escape that ``beginning`` begins with, as far as they are known."""
    if beginning[1:2] != "u":
        return 2
    is_high_half = beginning[2:4].lower() in ("d8", "d9", "da", "db")
    after = beginning[_ESCAPE_CHARACTERS:]
    # The other half of the character may still follow.
    return 2 * _ESCAPE_CHARACTERS if is_high_half and "\\u".startswith(after[:2]) else _ESCAPE_CHARACTERS


def _decoded(encoded: str) -> str:
    try:
        text: str = json.loads(f'"{encoded}"', strict=False)
    except ValueError:
        return ""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _whole(arguments: str) -> str:
    """Return the text of complete arguments: their ``input``, else their only text, else they themselves."""
    try:
        parsed = json.loads(arguments, strict=False)
    except ValueError:
        return arguments
    text: object = parsed.get("input") if isinstance(parsed, dict) else parsed
    if text is None and isinstance(parsed, dict) and len(parsed) == 1:
        (text,) = parsed.values()
    if not isinstance(text, str):
        return arguments
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
