"""The positions of the keys and values of a TOML document that ``tomllib`` has parsed.

``tomllib`` gives values without positions. The document is valid here, so this scanner only has to find the ends of
keys and values, and interprets none of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from modelyard.errors.configuration import Location

MAX_DEPTH: Final = 64
"""Names that may lead to a value; the schema needs five."""

Span = tuple[int, int]
"""Offsets of the first character and of the one behind the last."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a key or item of a list stands.

    Attributes:
        key: of the key; of the value where it is an item of a list; of the name in its header where it is a table.
        value: of the value; of the whole header where it is a table with one.
    """

    key: Span
    value: Span


# The last of several quotes in a row end a multi-line string; up to two before them belong to it.
# Source: https://toml.io/en/v1.0.0#string
_STRING: Final = (
    r'"""(?:\\[\s\S]|(?!""")[^\\])*"""{1,3}'
    r"|'''(?:(?!''')[\s\S])*'''{1,3}"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
)
_VALUE: Final = re.compile(rf"{_STRING}|\d{{4}}-\d\d-\d\d \d\d:[^,\]}}\s#]*|[^,\[\]{{}}\s#]+")
_KEY: Final = re.compile(r'[A-Za-z0-9_-]+|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'')
_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE: Final = re.compile(r"[ \t]*")


def positions(text: str) -> Mapping[Location, Entry]:
    """Return the positions of all keys, tables and items of lists in a valid TOML document.

    Raises:
        ValueError: the text is not valid TOML.
        RecursionError: it nests too deep.
    """
    return _Scanner(text).scan()


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0
        self._entries: dict[Location, Entry] = {}
        # Number of tables in each list of tables so far.
        self._lengths: dict[Location, int] = {}

    def scan(self) -> dict[Location, Entry]:
        table: Location = ()
        self._skip(_BLANK)
        while self._at < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip(_BLANK)
        return self._entries

    def _header(self) -> Location:
        start = self._at
        brackets = 2 if self._text.startswith("[[", start) else 1
        self._at += brackets
        parts = self._key_parts()
        _check_depth(len(parts))
        name = (parts[0][1][0], parts[-1][1][1])
        self._expect("]" * brackets)
        location: Location = ()
        for part, _ in parts[:-1]:
            location = (*location, part)
            self._entries.setdefault(location, Entry(name, (start, self._at)))
            if location in self._lengths:
                location = (*location, self._lengths[location] - 1)
        location = (*location, parts[-1][0])
        entry = Entry(name, (start, self._at))
        self._entries.setdefault(location, entry)
        if brackets == 2:
            index = self._lengths.get(location, 0)
            self._lengths[location] = index + 1
            location = (*location, index)
        self._entries[location] = entry
        return location

    def _pair(self, table: Location) -> None:
        parts = self._key_parts()
        _check_depth(len(table) + len(parts))
        self._expect("=")
        self._skip(_SPACE)
        location = table
        for part, span in parts:
            location = (*location, part)
            self._entries.setdefault(location, Entry(span, span))
        value = self._value(location)
        self._entries[location] = Entry((parts[0][1][0], parts[-1][1][1]), value)

    def _key_parts(self) -> list[tuple[str, Span]]:
        parts = []
        while True:
            self._skip(_SPACE)
            match = self._match(_KEY)
            parts.append((_unquoted(match[0]), match.span()))
            self._skip(_SPACE)
            if not self._text.startswith(".", self._at):
                return parts
            self._at += 1

    def _value(self, location: Location) -> Span:
        _check_depth(len(location))
        start = self._at
        match self._text[start : start + 1]:
            case "[":
                self._list(location)
            case "{":
                self._inline_table(location)
            case _:
                self._match(_VALUE)
        return start, self._at

    def _list(self, location: Location) -> None:
        self._at += 1
        index = 0
        while not self._ends("]"):
            item = (*location, index)
            span = self._value(item)
            self._entries[item] = Entry(span, span)
            index += 1
            self._comma()

    def _inline_table(self, location: Location) -> None:
        self._at += 1
        while not self._ends("}"):
            self._pair(location)
            self._comma()

    def _ends(self, bracket: str) -> bool:
        self._skip(_BLANK)
        if not self._text.startswith(bracket, self._at):
            return False
        self._at += 1
        return True

    def _comma(self) -> None:
        self._skip(_BLANK)
        if self._text.startswith(",", self._at):
            self._at += 1

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self._text, self._at)
        assert match is not None  # it matches the empty text
        self._at = match.end()

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str]:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise ValueError(f"no TOML at offset {self._at}")
        self._at = match.end()
        return match

    def _expect(self, token: str) -> None:
        if not self._text.startswith(token, self._at):
            raise ValueError(f"no {token} at offset {self._at}")
        self._at += len(token)


def _check_depth(depth: int) -> None:
    """Refuse names that lead deeper than a stack of calls can follow; ``tomllib`` reads those without recursion."""
    if depth > MAX_DEPTH:
        raise RecursionError(depth)


def _unquoted(key: str) -> str:
    """Return the name of a key."""
    if key[0] == "'":
        return key[1:-1]
    if key[0] == '"':
        if "\\" not in key:
            return key[1:-1]
        import tomllib

        return next(iter(tomllib.loads(f"{key} = 0")))
    return key
