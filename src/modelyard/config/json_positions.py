"""The positions of the keys and values of a JSON document that ``json`` has parsed, and keys that occur twice."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Final

from modelyard.config.positions import MAX_DEPTH, Entry
from modelyard.errors.configuration import Location

_BLANK: Final = re.compile(r"[ \t\r\n]*")
_SCALAR: Final = re.compile(r"[^\s,\]}]+")


@dataclass(frozen=True, slots=True)
class JsonPositions:
    """Where things stand in a JSON document.

    Attributes:
        entries: of all keys and items.
        repeated: keys that an object has twice; the last one counts.
    """

    entries: Mapping[Location, Entry]
    repeated: tuple[Location, ...]


def positions_of_json(text: str) -> JsonPositions:
    """Return the positions of all keys and items in a valid JSON document.

    Raises:
        RecursionError: it nests too deep.
    """
    entries: dict[Location, Entry] = {}
    repeated: dict[Location, None] = {}

    def blank(at: int) -> int:
        match = _BLANK.match(text, at)
        return at if match is None else match.end()

    def value(at: int, location: Location) -> int:
        """Note what the value at ``at`` holds, and return the offset behind it."""
        if len(location) > MAX_DEPTH:
            raise RecursionError(len(location))
        match text[at]:
            case "{":
                return members(blank(at + 1), location)
            case "[":
                return items(blank(at + 1), location)
            case '"':
                return int(scanstring(text, at + 1)[1])
            case _:
                scalar = _SCALAR.match(text, at)
                return at if scalar is None else scalar.end()

    def members(at: int, location: Location) -> int:
        names: set[str] = set()
        while text[at] != "}":
            name, end = scanstring(text, at + 1)
            inner = (*location, name)
            start = blank(blank(end) + 1)  # behind the colon
            if name in names:
                repeated[inner] = None
            names.add(name)
            finish = value(start, inner)
            entries[inner] = Entry((at, end), (start, finish))
            at = blank(finish)
            if text[at] == ",":
                at = blank(at + 1)
        return at + 1

    def items(at: int, location: Location) -> int:
        index = 0
        while text[at] != "]":
            inner = (*location, index)
            finish = value(at, inner)
            entries[inner] = Entry((at, finish), (at, finish))
            index += 1
            at = blank(finish)
            if text[at] == ",":
                at = blank(at + 1)
        return at + 1

    value(blank(0), ())
    return JsonPositions(entries, tuple(repeated))
