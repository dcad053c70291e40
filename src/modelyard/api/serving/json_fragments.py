"""Cuts a long document of JSON into fragments that are short enough to parse in one call. Pure.

A fragment ends after a comma or before a string. At both places, the open containers are all the state that a parser
needs to continue.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

PIECE_BYTES: Final = 1 << 16
MAX_NUMBER_BYTES: Final = 1 << 17
"""Bytes of a number in a long document: a number cannot be cut."""

_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_OPENERS: Final = {ord("]"): ord("["), ord("}"): ord("{")}
_WHITESPACE: Final = b" \t\r\n"
_WHITESPACES: Final = re.compile(rb"[ \t\r\n]{2,}")
_BACKSLASHES: Final = b" " * ord("\\") + b"\\" + b" " * (255 - ord("\\"))
_COLON: Final = ord(":")


class Cut(Enum):
    """How a fragment ends."""

    COMMA = auto()
    VALUE = auto()
    """A string that is a value follows."""
    KEY = auto()
    """A string that is a key follows."""
    END = auto()


@dataclass(frozen=True, slots=True)
class Fragment:
    """A part of a document.

    Attributes:
        start: its offset in the document.
        source: its bytes, in which long whitespace may be one space.
        cut: how it ends.
        opened: brackets that are open at its end, if the document is valid so far.
        text: for a cut before a string: start and end of the string's characters.
        is_open: whether that string has no end in the document.
    """

    start: int
    source: bytes
    cut: Cut
    opened: bytes
    text: tuple[int, int] = (0, 0)
    is_open: bool = False


def fragments(body: bytes, max_bytes: int, piece_bytes: int = PIECE_BYTES) -> Iterator[Fragment]:
    """Yield the fragments of ``body`` in order, each of ``max_bytes`` or slightly more.

    Args:
        body: the document.
        max_bytes: the size at which a fragment is cut.
        piece_bytes: bytes that one call searches, at least two. A longer string is always cut out.

    Raises:
        json.JSONDecodeError: no cut is possible: the body is not JSON, or a number has more than ``MAX_NUMBER_BYTES``.
    """
    start = at = 0
    sources: list[bytes] = []
    size = 0
    opened = bytearray()

    def fragment(cut: Cut) -> Fragment:
        return Fragment(start, b"".join(sources), cut, bytes(opened))

    while at < len(body):
        piece = body[at : at + piece_bytes]
        is_cut = size >= max_bytes
        parts, has_comma, begins_with_long_text = _usable_parts(_masked(piece).split(b'"'), is_cut=is_cut)
        taken = sum(map(len, parts)) + len(parts) - 1
        source = piece[:taken]
        if is_cut and len(parts) == 1 and not has_comma:
            source = _WHITESPACES.sub(b" ", source) if source.translate(None, _WHITESPACE) else b" "
        sources.append(source)
        size += len(source)
        at += taken
        _nest(opened, b"".join(parts[::2]).translate(None, _NO_BRACKETS))
        if has_comma:
            yield fragment(Cut.COMMA)
        elif body[at : at + 1] == b'"' and (is_cut or begins_with_long_text):
            end, is_open = text_end(body, at + 1, piece_bytes)
            cut = Cut.KEY if _is_key(body, end + 1, piece_bytes) else Cut.VALUE
            yield Fragment(start, b"".join(sources), cut, bytes(opened), (at + 1, end), is_open)
            at = end + 1
        elif size >= max_bytes + piece_bytes + MAX_NUMBER_BYTES:
            raise json.JSONDecodeError(
                f"unexpected characters, or a number of more than {MAX_NUMBER_BYTES} bytes", "", start
            )
        else:
            continue
        start, size = at, 0
        sources.clear()
    yield fragment(Cut.END)


def _usable_parts(parts: list[bytes], *, is_cut: bool) -> tuple[list[bytes], bool, bool]:
    """Return which parts of a piece, split at its quotes, belong to the fragment.

    Args:
        parts: the parts; those with odd indexes are strings. No piece starts within a string.
        is_cut: whether the fragment is to end at the first comma or string.

    Returns:
        The parts, whether they end with the comma of the cut, and whether the piece starts with a string that does not
        end in it.
    """
    has_comma = is_cut and b"," in parts[0]
    begins_with_long_text = len(parts) == 2 and not parts[0]
    if has_comma:
        parts = [parts[0][: parts[0].index(b",") + 1]]
    elif is_cut or begins_with_long_text:
        parts = parts[:1]
    elif len(parts) % 2 == 0:
        # The last string does not end in this piece, and so starts the next one.
        parts.pop()
    return parts, has_comma, begins_with_long_text


def text_end(body: bytes, start: int, piece_bytes: int = PIECE_BYTES) -> tuple[int, bool]:
    """Return the end of the string whose characters begin at ``start``, and whether the document ends before it."""
    at = start
    while at < len(body):
        piece = body[at : at + piece_bytes]
        # Most pieces of a long string have no quote, which is fast to check.
        if b'"' in piece and (found := _masked(piece).find(b'"')) >= 0:
            return at + found, False
        # A backslash at the end escapes the first byte of the next piece, unless it is itself escaped.
        has_open_escape = trailing_backslashes(piece) % 2 == 1 and at + len(piece) < len(body)
        at += len(piece) - has_open_escape
    return len(body), True


def trailing_backslashes(piece: bytes) -> int:
    """Return the number of backslashes at the end of ``piece``. ``bytes.rstrip`` is ten times slower for many."""
    return len(piece) - 1 - piece.translate(_BACKSLASHES).rfind(b" ") if piece.endswith(b"\\") else 0


def _masked(piece: bytes) -> bytes:
    """Return ``piece`` with escaped backslashes and quotes masked, in the same length."""
    return piece.replace(b"\\\\", b"__").replace(b'\\"', b"__") if b"\\" in piece else piece


def _is_key(body: bytes, at: int, piece_bytes: int) -> bool:
    """Whether a colon is the next byte after whitespace."""
    while at < len(body):
        piece = body[at : at + piece_bytes].lstrip(_WHITESPACE)
        if piece:
            return piece[0] == _COLON
        at += piece_bytes
    return False


def _nest(opened: bytearray, brackets: bytes) -> None:
    """Apply ``brackets`` to the open ones. The result is right only if they match; a parser refuses all others."""
    # Removes innermost pairs, which leaves few brackets for the loop below.
    size = 2 * len(brackets)
    while 0 < 2 * len(brackets) <= size:
        size = len(brackets)
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    for bracket in brackets:
        if bracket not in _OPENERS:
            opened.append(bracket)
        elif opened and opened[-1] == _OPENERS[bracket]:
            opened.pop()
