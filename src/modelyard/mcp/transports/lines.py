"""Divides the output of a program into lines of bounded length, and finds out what a longer one answers. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

MAX_MESSAGE_BYTES: Final = 16 * 2**20
"""A longer message of a server is not read: an image or a file that large would be of no use to a model."""

_KEPT_BYTES: Final = 1024

# Implementations write the id before the result or behind it.
_ID_AT_START: Final = re.compile(rb'^\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*(\d{1,15})\s*[,}]')
_ID_AT_END: Final = re.compile(rb',\s*"id"\s*:\s*(\d{1,15})\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*$')


@dataclass(frozen=True, slots=True)
class LongLine:
    """A line that is too long to be kept.

    Attributes:
        size: in bytes.
        id: of the request that it answers; None where that cannot be told.
    """

    size: int
    id: int | None


@dataclass(slots=True)
class LineSplitter:
    """Puts lines together from the pieces in which they arrive.

    Attributes:
        limit: bytes of a line.
    """

    limit: int = MAX_MESSAGE_BYTES
    _pieces: list[bytes] = field(default_factory=list)
    _size: int = 0
    _tail: bytes = b""

    def feed(self, data: bytes) -> Iterator[bytes | LongLine]:
        """Add what has arrived, and yield the lines that it completes, without their ends."""
        *complete, rest = data.split(b"\n")
        for piece in complete:
            self._add(piece)
            yield self._taken()
        self._add(rest)

    def _add(self, piece: bytes) -> None:
        if self._size > self.limit:
            self._tail = (self._tail + piece)[-_KEPT_BYTES:]
        elif self._size + len(piece) > self.limit:
            start = b"".join((*self._pieces, piece))
            self._pieces, self._tail = [start[:_KEPT_BYTES]], start[-_KEPT_BYTES:]
        else:
            self._pieces.append(piece)
        self._size += len(piece)

    def _taken(self) -> bytes | LongLine:
        """Return the line that has come to its end, and begin another."""
        start, size, tail = b"".join(self._pieces), self._size, self._tail
        self._pieces, self._size, self._tail = [], 0, b""
        if size <= self.limit:
            return start
        return LongLine(size, answered_id(start, tail))


def answered_id(start: bytes, end: bytes) -> int | None:
    """Return the id of the request that a message answers, by its first and last bytes; None where they do not tell."""
    match = _ID_AT_START.match(start[:_KEPT_BYTES]) or _ID_AT_END.search(end[-_KEPT_BYTES:])
    return int(match[1]) if match else None
