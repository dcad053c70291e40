"""Decodes a long JSON string piece by piece; other threads run between the pieces."""

from __future__ import annotations

import ctypes
import json
import re
import sys
from collections.abc import Iterator
from typing import Final

import orjson

from modelyard.api.serving.json_fragments import trailing_backslashes

# The longest unit that is never cut: two escapes, which are a surrogate pair.
_MAX_UNIT_BYTES: Final = 12
_UNITS: Final = re.compile(
    rb"(?:[^\\]|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u(?![dD][89abAB]).{4}|\\[^u])*",
    re.DOTALL,
)
_MAX_SHORT: Final = 256


def read_text(body: bytes, start: int, end: int, max_bytes: int) -> str:
    """Return the string whose characters are from ``start`` to ``end`` of ``body``.

    Args:
        body: the document.
        start: offset of the first character.
        end: offset of the closing quote.
        max_bytes: bytes that one call decodes.

    Raises:
        json.JSONDecodeError: the string is invalid. The position is in bytes of ``body``.
    """
    parts: list[str] = []
    for at, piece in _whole_units(body, start, end, max(max_bytes, 2 * _MAX_UNIT_BYTES)):
        try:
            parts.append(orjson.loads(b'"%b"' % piece))
        except json.JSONDecodeError as error:
            raise json.JSONDecodeError(error.msg, "", at + max(0, error.pos - 1)) from None
    return joined(parts)


def joined(parts: list[str]) -> str:
    """Join ``parts`` like ``"".join``, which would hold the interpreter's lock while it copies all of them.

    Empties ``parts``, so that the parts and the copy take hardly more memory than the copy alone.
    """
    length = sum(map(len, parts))
    if len(parts) < 2 or not length:
        return "".join(parts)
    text: str = _new_text(length, max(map(_max_character, parts)))
    at = 0
    parts.reverse()
    while parts:
        part = parts.pop()
        # By address: PyUnicode_CopyCharacters refuses a target with more than one reference.
        at += _copy_characters(id(text), at, part, 0, len(part))
    return text


def _whole_units(body: bytes, start: int, end: int, max_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Yield the offsets and bytes of pieces that end between characters and escapes."""
    at = start
    while at < end:
        piece = body[at : min(end, at + max_bytes)]
        if at + len(piece) < end:
            piece = piece[: _last_border(piece)] or piece
        yield at, piece
        at += len(piece)


def _last_border(piece: bytes) -> int:
    """Return the end of the last whole character or escape in ``piece``, which begins with a whole one."""
    size = len(piece)
    if b"\\" in piece[-_MAX_UNIT_BYTES:]:
        near = max(0, size - _MAX_UNIT_BYTES)
        run = trailing_backslashes(piece[:near])
        # Two backslashes are one escape.
        units = _UNITS.match(piece, near - run % 2)
        assert units is not None
        size = units.end()
    # Skips continuation bytes of UTF-8.
    first = size
    while first > 0 and size - first < 4 and piece[first - 1] & 0xC0 == 0x80:
        first -= 1
    if first > 0 and piece[first - 1] >= 0xC0:
        lead = piece[first - 1]
        length = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
        if size - first + 1 < length:
            return first - 1
    return size


def _max_character(text: str) -> int:
    """Return the greatest character that the storage of ``text`` can hold."""
    if text.isascii():
        return 0x7F
    if len(text) < _MAX_SHORT:
        return ord(max(text))
    # max() over all characters would take longer than the copy, so the width of a character is derived from the size.
    return {1: 0xFF, 2: 0xFFFF}.get(sys.getsizeof(text) // len(text), sys.maxunicode)


# Source: Python/C API Reference Manual, Unicode Objects. PYFUNCTYPE keeps the interpreter's lock during the call.
_new_text: Final = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_ssize_t, ctypes.c_uint32)(
    ("PyUnicode_New", ctypes.pythonapi)
)
_copy_characters: Final = ctypes.PYFUNCTYPE(
    ctypes.c_ssize_t, ctypes.c_void_p, ctypes.c_ssize_t, ctypes.py_object, ctypes.c_ssize_t, ctypes.c_ssize_t
)(("PyUnicode_CopyCharacters", ctypes.pythonapi))
