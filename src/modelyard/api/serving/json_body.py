"""Parses a body of JSON in time and memory that are bounded by its size, whatever its content.

No call works on more than a piece of ``PIECE_BYTES`` or a fragment of ``MAX_FRAGMENT_BYTES``; other threads run between
the calls.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

import orjson

from modelyard.api.serving.json_assembly import MAX_FRAGMENT_BYTES, parse_long
from modelyard.api.serving.json_fragments import PIECE_BYTES, trailing_backslashes
from modelyard.errors import InvalidRequest

MAX_VALUES: Final = 1_000_000
"""Values in one body. Two bytes of JSON may become 64 bytes of memory, and every value takes time to check."""

MAX_OBJECTS: Final = 50_000
"""Objects in one body. Each may become an instance of about a kilobyte."""

MAX_LISTS: Final = 50_000
"""Lists in one body. The garbage collector visits all containers in one pass, which stops all threads."""

MAX_FIELDS: Final = 100_000
"""Fields of all objects in one body. Validation looks up each by its name."""

MAX_DEPTH: Final = 240
"""Objects and lists within one another. orjson writes 254, and an answer puts what it repeats into a few more."""

MAX_HALVES: Final = 10_000
"""Lone surrogates that are replaced. A client that cuts a text between two surrogates sends one."""

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_BACKSLASH: Final = 0x5C

# Bytes of JSON that open and close nothing, and a table that turns the others into 2 or 0.
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_STEPS: Final = bytes.maketrans(b"[{]}", b"\x02\x02\x00\x00")

# A lone surrogate: an escape without its other half, or a surrogate in UTF-8, where it is invalid. No alternative is
# longer than _MAX_SURROGATE_BYTES.
_SURROGATE: Final = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|\xed[\xa0-\xbf][\x80-\xbf]"
)
_MAX_SURROGATE_BYTES: Final = 12
_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}".encode()


def parse_json(body: bytes) -> Any:
    """Return the value of ``body``. Lone surrogates, which UTF-8 cannot encode, become U+FFFD.

    Raises:
        InvalidRequest: the body has too many values, objects, lists or fields, or nests too deeply.
        json.JSONDecodeError: the body is not JSON in UTF-8.

    Source: RFC 8259.
    """
    body = body.removeprefix(_BYTE_ORDER_MARK)
    check_size(body)
    check_depth(body)
    try:
        return _parse(body)
    except json.JSONDecodeError:
        repaired = _without_surrogates(body)
        if repaired is body:
            raise
        return _parse(repaired)


def _parse(body: bytes) -> Any:
    return orjson.loads(body) if len(body) <= MAX_FRAGMENT_BYTES else parse_long(body)


def check_size(body: bytes) -> None:
    """Refuse a body with too many values before it is parsed.

    Raises:
        InvalidRequest: it has more than MAX_VALUES values, MAX_OBJECTS objects, MAX_LISTS lists, or MAX_FIELDS fields.
    """
    # The first count, which is fast, includes the content of strings; the second does not.
    if _excess(_pieces(body)) and (excess := _excess(_outside_of_strings(body))):
        raise InvalidRequest(f"The body has more than {excess} in it. Send several requests.")


def check_depth(body: bytes) -> None:
    """Refuse a body whose values could not be written again, before it is parsed.

    Raises:
        InvalidRequest: it nests deeper than MAX_DEPTH levels.
    """
    # Few bodies have as many brackets, and those of fewer need no closer look.
    if sum(piece.count(b"{") + piece.count(b"[") for piece in _pieces(body)) <= MAX_DEPTH:
        return
    depth = 0
    for piece in _outside_of_strings(body):
        steps = piece.translate(_STEPS, _NO_BRACKETS)
        for step in steps:
            depth += step - 1
            if depth <= 0:
                # Nothing may follow: the parser refuses what does.
                return
            if depth > MAX_DEPTH:
                raise InvalidRequest(
                    f"The body has more than {MAX_DEPTH} objects and lists within one another. Nest it less deeply."
                )


def _excess(pieces: Iterable[bytes]) -> str:
    """Return which limit JSON in pieces exceeds; "": none."""
    values = objects = lists = fields = 0
    for piece in pieces:
        opened = count_objects(piece)
        objects += opened
        fields += piece.count(b":")
        opened_lists = piece.count(b"[")
        lists += opened_lists
        # Each value but the first follows a comma or a bracket.
        values += piece.count(b",") + opened_lists + opened
        # Checked after each piece: a hostile body mostly repeats one thing to its end.
        if objects > MAX_OBJECTS:
            return f"{MAX_OBJECTS:,} objects"
        if lists > MAX_LISTS:
            return f"{MAX_LISTS:,} lists"
        if fields > MAX_FIELDS:
            return f"{MAX_FIELDS:,} fields"
        if values > MAX_VALUES:
            return f"{MAX_VALUES:,} values"
    return ""


def count_objects(body: bytes) -> int:
    """Return an upper bound of the objects in ``body``: braces in strings count."""
    return body.count(b"{")


def _pieces(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), PIECE_BYTES):
        yield body[start : start + PIECE_BYTES]


def _outside_of_strings(body: bytes) -> Iterator[bytes]:
    """Yield the parts of ``body`` outside of strings, piece by piece."""
    is_inside, escape = False, b""
    for new in _pieces(body):
        piece = escape + new
        # A backslash at the end escapes the first byte of the next piece, unless it is itself escaped.
        has_open_escape = trailing_backslashes(piece) % 2 == 1
        escape = b"\\" if has_open_escape else b""
        piece = piece.removesuffix(escape)
        parts = piece.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        yield b" ".join(parts[is_inside::2])
        is_inside ^= len(parts) % 2 == 0


def _without_surrogates(body: bytes) -> bytes:
    """Return ``body`` with lone surrogates replaced, or ``body`` itself if it has none."""
    kept: list[bytes] = []
    end = 0
    if not (_holds(body, b"\\u") or _holds(body, b"\xed")):
        return body
    for start in range(0, len(body), PIECE_BYTES):
        border = start + PIECE_BYTES
        for half in _SURROGATE.finditer(body, max(start, end), border + _MAX_SURROGATE_BYTES):
            if half.start() >= border:
                break
            if not _is_escaped(body, half.start()):
                if len(kept) >= 2 * MAX_HALVES:
                    raise InvalidRequest(
                        f"The body has more than {MAX_HALVES:,} halves of surrogate pairs without the other half."
                    )
                kept += (body[end : half.start()], _REPLACEMENT)
                end = half.end()
    return b"".join((*kept, body[end:])) if kept else body


def _holds(body: bytes, part: bytes) -> bool:
    """Whether ``part`` is in ``body``, which may be long."""
    starts = range(0, len(body), PIECE_BYTES)
    return any(body.find(part, start, start + PIECE_BYTES + len(part) - 1) >= 0 for start in starts)


def _is_escaped(body: bytes, at: int) -> bool:
    """Whether the byte at ``at`` follows an odd number of backslashes."""
    first = at
    while first > 0 and body[first - 1] == _BACKSLASH:
        first -= 1
    return (at - first) % 2 == 1
