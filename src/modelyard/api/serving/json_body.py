"""Parses a body of JSON in time and memory that are bounded by its size, whatever is in it.

orjson holds the interpreter's lock while it parses, so that nothing else runs: 0.1 s for a body of 48 MiB. All that is
computed beside it works on pieces of ``PIECE_BYTES``, between which other threads run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import orjson

from modelyard.errors import InvalidRequest

MAX_VALUES: Final = 1_000_000
"""Values in one body. Two bytes of JSON may become 64 bytes of memory, and every value takes time to check."""

MAX_OBJECTS: Final = 100_000
"""Objects in one body, each of which may become an instance of a class of about a kilobyte."""

PIECE_BYTES: Final = 1 << 16

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_BACKSLASH: Final = 0x5C

# Half of a character that is written as two escapes, without the other half; and one that was written as UTF-8, which
# has no halves. No alternative is longer than _MAX_SURROGATE_BYTES.
_SURROGATE: Final = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|\xed[\xa0-\xbf][\x80-\xbf]"
)
_MAX_SURROGATE_BYTES: Final = 12
_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}".encode()


def parse_json(body: bytes) -> Any:
    """The value that ``body`` is. Halves of characters, which no answer could repeat, become U+FFFD.

    Raises:
        InvalidRequest: it has more values or objects than are taken.
        json.JSONDecodeError: it is not JSON in UTF-8, or is nested deeper than the 1,024 levels that orjson takes.

    Source: RFC 8259.
    """
    body = body.removeprefix(_BYTE_ORDER_MARK)
    check_size(body)
    try:
        return orjson.loads(body)
    except json.JSONDecodeError:
        repaired = _without_surrogates(body)
        if repaired is body:
            raise
        return orjson.loads(repaired)


def check_size(body: bytes) -> None:
    """Refuse a body with too many values in it, before it is parsed.

    Raises:
        InvalidRequest: it has more than MAX_VALUES values, or MAX_OBJECTS objects.
    """
    # Commas and brackets inside of texts count here, too; where all of them are few, so are those outside.
    if count_objects(body) > MAX_OBJECTS or _separators(body) >= MAX_VALUES:
        values, objects = _count(body)
        if values > MAX_VALUES:
            raise InvalidRequest(f"The body has more than {MAX_VALUES:,} values in it. Send several requests.")
        if objects > MAX_OBJECTS:
            raise InvalidRequest(f"The body has more than {MAX_OBJECTS:,} objects in it. Send several requests.")


def count_objects(body: bytes) -> int:
    """How many objects there are in ``body`` at the most: braces inside of texts count."""
    return body.count(b"{")


def _separators(text: bytes) -> int:
    """One less than the number of values at the most, in JSON whose strings were taken out."""
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def _count(body: bytes) -> tuple[int, int]:
    """How many values and how many objects there are at the most, without what is inside of strings."""
    values, objects = 1, 0
    for outside in _outside_of_strings(body):
        values += _separators(outside)
        objects += outside.count(b"{")
    return values, objects


def _outside_of_strings(body: bytes) -> Iterator[bytes]:
    """What of ``body`` is not inside of strings, piece by piece."""
    is_inside, escape = False, b""
    for start in range(0, len(body), PIECE_BYTES):
        piece = escape + body[start : start + PIECE_BYTES]
        # A backslash at the very end escapes what the next piece begins with, unless it is itself escaped.
        has_open_escape = (len(piece) - len(piece.rstrip(b"\\"))) % 2 == 1
        escape = b"\\" if has_open_escape else b""
        piece = piece.removesuffix(escape)
        parts = piece.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        yield b" ".join(parts[is_inside::2])
        is_inside ^= len(parts) % 2 == 0


def _without_surrogates(body: bytes) -> bytes:
    """``body`` with halves of characters replaced; itself where there are none."""
    kept: list[bytes] = []
    end = 0
    for start in range(0, len(body), PIECE_BYTES):
        border = start + PIECE_BYTES
        for half in _SURROGATE.finditer(body, max(start, end), border + _MAX_SURROGATE_BYTES):
            if half.start() >= border:
                break
            if not _is_escaped(body, half.start()):
                kept += (body[end : half.start()], _REPLACEMENT)
                end = half.end()
    return b"".join((*kept, body[end:])) if kept else body


def _is_escaped(body: bytes, at: int) -> bool:
    """Whether the byte at ``at`` follows an odd number of backslashes."""
    first = at
    while first > 0 and body[first - 1] == _BACKSLASH:
        first -= 1
    return (at - first) % 2 == 1
