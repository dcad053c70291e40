"""Parses a long document of JSON fragment by fragment; other threads run between the fragments.

orjson holds the interpreter's lock while it parses: 0.1 s for 48 MiB. Each fragment becomes a document of its own:
containers that are open at its start are opened before it, each with one placeholder for the items that it has already,
and containers that are open at its end are closed after it. Such a document is valid if and only if the fragment is
valid in its place.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any, Final

import orjson

from modelyard.api.serving.json_fragments import PIECE_BYTES, Cut, Fragment, fragments
from modelyard.api.serving.long_text import read_text

MAX_FRAGMENT_BYTES: Final = 1 << 17
"""Bytes that orjson parses in one call: 128 KiB take a few milliseconds at most."""

_CLOSERS: Final = bytes.maketrans(b"[{", b"]}")
_CONTINUATION_BYTES: Final = bytes(range(0x80, 0xC0))

_NONE: Final = object()

_Container = list[Any] | dict[str, Any]


def parse_long(body: bytes, max_bytes: int = MAX_FRAGMENT_BYTES, piece_bytes: int = PIECE_BYTES) -> Any:
    """Return the value of ``body``, equal to that of ``orjson.loads``.

    Args:
        body: the document.
        max_bytes: bytes that one call parses.
        piece_bytes: bytes that one call searches for the ends of fragments.

    Raises:
        json.JSONDecodeError: the body is not JSON in UTF-8, is nested too deep for orjson, or has a number of more than
            ``MAX_NUMBER_BYTES``.
    """
    assembly = _Assembly(body, max_bytes)
    try:
        for fragment in fragments(body, max_bytes, piece_bytes):
            assembly.add(fragment)
    except json.JSONDecodeError as error:
        raise json.JSONDecodeError(error.msg, "", _characters(body, error.pos)) from None
    return assembly.root


class _Assembly:
    """A document in parts.

    Attributes:
        root: the value of the fragments so far.
    """

    def __init__(self, body: bytes, max_bytes: int) -> None:
        self.root: Any = None
        self._body, self._max_bytes = body, max_bytes
        # Open containers, the outermost first; the cut before the next fragment; and the key that the cut read.
        self._open: list[_Container] = []
        self._follows: Cut | None = None
        self._key = ""
        # Placeholders for the items before and after a fragment. They are random, so that no body contains them.
        self._before, self._behind = secrets.token_hex(8), secrets.token_hex(8)

    def add(self, fragment: Fragment) -> None:
        """Add the next fragment."""
        before = self._opening()
        document = b"".join((before, fragment.source, self._closing(fragment)))
        try:
            value = orjson.loads(document)
        except json.JSONDecodeError as error:
            at = len(document.decode("utf-8", "ignore")[len(before) : error.pos].encode())
            if fragment.is_open and at >= len(fragment.source) and "end of data" in error.msg:
                # The document is valid up to its last text, which has no end.
                read_text(self._body, *fragment.text, self._max_bytes)
                raise json.JSONDecodeError(error.msg, "", len(self._body)) from None
            raise json.JSONDecodeError(error.msg, "", fragment.start + at) from None
        opened = [] if fragment.cut is Cut.END else self._opened(value, fragment)
        key = self._key_of_text(opened[-1]) if fragment.cut is Cut.VALUE and opened else None
        self._merge(value, opened, fragment.cut)
        if fragment.cut in (Cut.VALUE, Cut.KEY):
            self._add_text(fragment, key)
        self._follows = fragment.cut

    def _opening(self) -> bytes:
        """Return the source that opens the open containers."""
        if self._follows is None:
            return b""
        item = b'""'
        if not self._open:
            return item
        key = b'"%b"' % self._before.encode()
        opening = b"".join(b"[" if isinstance(each, list) else b"{" + key + b":" for each in self._open)
        if self._follows is Cut.KEY and isinstance(self._open[-1], dict):
            return opening.removesuffix(b":")
        return opening + item + (b"," if self._follows is Cut.COMMA else b"")

    def _closing(self, fragment: Fragment) -> bytes:
        """Return the source that closes the open containers after the fragment, with a placeholder for the rest."""
        if fragment.cut is Cut.END:
            return b""
        if fragment.is_open:
            return b'"'
        item = b'"%b"' % self._behind.encode()
        if fragment.cut is Cut.KEY or (fragment.cut is Cut.COMMA and fragment.opened.endswith(b"{")):
            item += b':""'
        return item + fragment.opened.translate(_CLOSERS)[::-1]

    def _opened(self, value: Any, fragment: Fragment) -> list[_Container]:
        """Return the containers of ``value`` that are open at the end of its fragment: those that hold the placeholder.

        An object with repeated keys may hold another container after the open one, so all candidates are tried.
        """
        depth = len(fragment.opened)
        path: list[_Container] = []
        candidates = [iter([value])] if depth else []
        while candidates:
            each = next(candidates[-1], _NONE)
            if each is _NONE:
                candidates.pop()
                del path[-1:]
            elif isinstance(each, list | dict):
                path.append(each)
                if len(path) < depth:
                    candidates.append(_last_first(each))
                elif self._is_cut_in(each):
                    return path
                else:
                    path.pop()
        if depth:
            raise json.JSONDecodeError("unexpected brackets", "", fragment.start)
        return []

    def _is_cut_in(self, container: _Container) -> bool:
        if isinstance(container, list):
            return container[-1:] == [self._behind]
        return self._behind in container or self._key_of_text(container) is not None

    def _key_of_text(self, container: _Container) -> str | None:
        if isinstance(container, list):
            return None
        return next((key for key, value in reversed(container.items()) if value == self._behind), None)

    def _merge(self, value: Any, opened: list[_Container], cut: Cut) -> None:
        """Merge the value of a fragment into the containers that were open before it."""
        if opened and cut is not Cut.VALUE:
            innermost = opened[-1]
            if isinstance(innermost, list):
                innermost.pop()
            else:
                del innermost[self._behind]
        if self._follows is None:
            self.root, self._open = value, opened
            return
        still_open: list[_Container] = []
        for depth, container in enumerate(self._open):
            if depth < len(opened) and value is opened[depth]:
                still_open.append(container)
            if isinstance(container, list):
                first = value.pop(0)
                container += value
            else:
                first = value.pop(self._before)
                if self._follows is Cut.KEY and depth == len(self._open) - 1:
                    container[self._key] = first
                container.update(value)
            value = first
        self._open = still_open + opened[len(still_open) :]

    def _add_text(self, fragment: Fragment, key: str | None) -> None:
        """Read the text after a fragment: a key, or the value of ``key`` in an object."""
        text = read_text(self._body, *fragment.text, self._max_bytes)
        if fragment.cut is Cut.KEY:
            self._key = text
        elif not self._open:
            self.root = text
        elif isinstance(container := self._open[-1], list):
            container[-1] = text
        elif key is not None:
            container[self._key if key == self._before else key] = text


def _last_first(container: _Container) -> Iterator[Any]:
    """Iterate over the items of ``container`` that may be open; in a list, only the last."""
    return iter(container[-1:]) if isinstance(container, list) else reversed(container.values())


def _characters(body: bytes, end: int) -> int:
    """Return the number of characters in the first ``end`` bytes."""
    pieces = (body[at : min(end, at + PIECE_BYTES)] for at in range(0, end, PIECE_BYTES))
    return sum(len(piece.translate(None, _CONTINUATION_BYTES)) for piece in pieces)
