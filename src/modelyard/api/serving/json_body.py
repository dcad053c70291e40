"""Parses a body of JSON in time and memory that are bounded by its size, whatever is in it.

Nothing here works on more than a piece of ``PIECE_BYTES``, or a fragment of ``MAX_FRAGMENT_BYTES``, in one call: others
run between them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

import orjson

from modelyard.api.serving.json_assembly import MAX_FRAGMENT_BYTES, parse_long
from modelyard.api.serving.json_fragments import PIECE_BYTES
from modelyard.errors import InvalidRequest

MAX_VALUES: Final = 1_000_000
"""Values in one body. Two bytes of JSON may become 64 bytes of memory, and every value takes time to check."""

MAX_OBJECTS: Final = 50_000
"""Objects in one body, each of which may become an instance of a class of about a kilobyte."""

MAX_LISTS: Final = 50_000
"""Lists in one body. The garbage collector looks at all containers in one go, which stops everything else."""

MAX_FIELDS: Final = 100_000
"""Fields of all objects in one body, each of which is looked up by its name."""

MAX_HALVES: Final = 10_000
"""Halves of characters that are replaced: a client that cuts a text between two has one."""

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
        InvalidRequest: it has more values, objects, lists or fields than are taken.
        json.JSONDecodeError: it is not JSON in UTF-8, or is nested deeper than the 1,024 levels that orjson takes.

    Source: RFC 8259.
    """
    body = body.removeprefix(_BYTE_ORDER_MARK)
    check_size(body)
    try:
        return _parsed(body)
    except json.JSONDecodeError:
        repaired = _without_surrogates(body)
        if repaired is body:
            raise
        return _parsed(repaired)


def _parsed(body: bytes) -> Any:
    return orjson.loads(body) if len(body) <= MAX_FRAGMENT_BYTES else parse_long(body)


def check_size(body: bytes) -> None:
    """Refuse a body with too many values in it, before it is parsed.

    Raises:
        InvalidRequest: it has more than MAX_VALUES values, MAX_OBJECTS objects, MAX_LISTS lists, or MAX_FIELDS fields.
    """
    # What is inside of texts counts here, too; where there is little in all, there is little outside of them.
    if _excess(_pieces(body)) and (excess := _excess(_outside_of_strings(body))):
        raise InvalidRequest(f"The body has more than {excess} in it. Send several requests.")


def _excess(pieces: Iterable[bytes]) -> str:
    """What there is too much of in JSON that comes in pieces; "": nothing."""
    values = objects = lists = fields = 0
    for piece in pieces:
        opened = count_objects(piece)
        objects += opened
        fields += piece.count(b":")
        begun = piece.count(b"[")
        lists += begun
        # But for one value, each has a comma or a bracket before it.
        values += piece.count(b",") + begun + opened
        # Early: most bodies of this kind are nothing else to their end.
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
    """How many objects there are in ``body`` at the most: braces inside of texts count."""
    return body.count(b"{")


def _pieces(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), PIECE_BYTES):
        yield body[start : start + PIECE_BYTES]


def _outside_of_strings(body: bytes) -> Iterator[bytes]:
    """What of ``body`` is not inside of strings, piece by piece."""
    is_inside, escape = False, b""
    for new in _pieces(body):
        piece = escape + new
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
    if b"\\u" not in body and b"\xed" not in body:
        return body
    for start in range(0, len(body), PIECE_BYTES):
        border = start + PIECE_BYTES
        for half in _SURROGATE.finditer(body, max(start, end), border + _MAX_SURROGATE_BYTES):
            if half.start() >= border:
                break
            if not _is_escaped(body, half.start()):
                if len(kept) >= 2 * MAX_HALVES:
                    raise InvalidRequest(
                        f"The body has more than {MAX_HALVES:,} halves of characters, each without the other."
                    )
                kept += (body[end : half.start()], _REPLACEMENT)
                end = half.end()
    return b"".join((*kept, body[end:])) if kept else body


def _is_escaped(body: bytes, at: int) -> bool:
    """Whether the byte at ``at`` follows an odd number of backslashes."""
    first = at
    while first > 0 and body[first - 1] == _BACKSLASH:
        first -= 1
    return (at - first) % 2 == 1
