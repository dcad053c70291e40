"""Reads a long text of JSON piece by piece, between which other threads run."""

from __future__ import annotations

import ctypes
import json
import re
import sys
from collections.abc import Iterator
from typing import Final

import orjson

from modelyard.api.serving.json_fragments import trailing_backslashes

# An escape, or both halves of a character, is never cut.
_MAX_UNIT_BYTES: Final = 12
_UNITS: Final = re.compile(
    rb"(?:[^\\]|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u(?![dD][89abAB]).{4}|\\[^u])*",
    re.DOTALL,
)
_MAX_SHORT: Final = 256


def read_text(body: bytes, start: int, end: int, max_bytes: int) -> str:
    """The text whose characters are written from ``start`` to ``end``.

    Args:
        max_bytes: that are read in one call.

    Raises:
        json.JSONDecodeError: it is no text. Its place is told in bytes of ``body``.
    """
    parts: list[str] = []
    for at, piece in _whole_units(body, start, end, max(max_bytes, 2 * _MAX_UNIT_BYTES)):
        try:
            parts.append(orjson.loads(b'"%b"' % piece))
        except json.JSONDecodeError as error:
            raise json.JSONDecodeError(error.msg, "", at + max(0, error.pos - 1)) from None
    return joined(parts)


def joined(parts: list[str]) -> str:
    """``"".join(parts)``, which would hold the interpreter's lock for as long as it takes to copy all of them.

    ``parts`` is empty then, so that its texts and their copy take hardly more memory than the copy alone.
    """
    length = sum(map(len, parts))
    if len(parts) < 2 or not length:
        return "".join(parts)
    text: str = _new_text(length, max(map(_max_character, parts)))
    at = 0
    parts.reverse()
    while parts:
        part = parts.pop()
        # By its address: Python refuses to write into a text that has more than one reference.
        at += _copy_characters(id(text), at, part, 0, len(part))
    return text


def _whole_units(body: bytes, start: int, end: int, max_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Where pieces of a text begin, and their bytes, none of which cuts a character or an escape in two."""
    at = start
    while at < end:
        piece = body[at : min(end, at + max_bytes)]
        if at + len(piece) < end:
            piece = piece[: _last_border(piece)] or piece
        yield at, piece
        at += len(piece)


def _last_border(piece: bytes) -> int:
    """Where the last character or escape ends that is whole in ``piece``, which begins with a whole one."""
    size = len(piece)
    if b"\\" in piece[-_MAX_UNIT_BYTES:]:
        near = max(0, size - _MAX_UNIT_BYTES)
        run = trailing_backslashes(piece[:near])
        # Two backslashes are one escape.
        units = _UNITS.match(piece, near - run % 2)
        assert units is not None
        size = units.end()
    # Bytes of a character behind its first one.
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
    """The greatest character that ``text`` has room for."""
    if text.isascii():
        return 0x7F
    if len(text) < _MAX_SHORT:
        return ord(max(text))
    # To look at each character would take longer than to copy them; how many bytes each has is known.
    return {1: 0xFF, 2: 0xFFFF}.get(sys.getsizeof(text) // len(text), sys.maxunicode)


# Source: Python/C API Reference Manual, Unicode Objects. Both are called with the interpreter's lock.
_new_text: Final = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_ssize_t, ctypes.c_uint32)(
    ("PyUnicode_New", ctypes.pythonapi)
)
_copy_characters: Final = ctypes.PYFUNCTYPE(
    ctypes.c_ssize_t, ctypes.c_void_p, ctypes.c_ssize_t, ctypes.py_object, ctypes.c_ssize_t, ctypes.c_ssize_t
)(("PyUnicode_CopyCharacters", ctypes.pythonapi))
