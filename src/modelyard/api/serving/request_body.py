"""Parses the body of one request within the memory for requests, on a thread if it is long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Final, TypeVar

from starlette.types import Scope

from modelyard.api.serving.json_body import count_objects
from modelyard.api.serving.request_memory import RequestMemoryLease

MAX_BODIES_PARSED_AT_ONCE: Final = 1
"""Long bodies that are parsed at the same time. More would only compete for the interpreter's lock, also with the event
loop, and a check of 50,000 objects holds it for 0.1 s."""

MAX_INLINE_BYTES: Final = 1 << 16
"""Bytes of a body that is parsed on the event loop: that takes a millisecond, less than a switch to a thread costs."""

BODY_KEY: Final = "modelyard.body"

_Parsed = TypeVar("_Parsed")


def parsed_bytes(pieces: Sequence[bytes], object_bytes: int) -> int:
    """Return an upper bound of the memory of a body in ``pieces`` and of the values parsed from it.

    Args:
        pieces: of the body.
        object_bytes: what a JSON object counts for.
    """
    size = sum(map(len, pieces))
    # A str with one character beyond U+FFFF takes four bytes for each character.
    is_narrow = all(piece.isascii() for piece in pieces) and not _has_escaped_character(pieces)
    return size * (2 if is_narrow else 5) + sum(map(count_objects, pieces)) * object_bytes


def _has_escaped_character(pieces: Sequence[bytes]) -> bool:
    return any(
        b"\\u" in piece or (piece.endswith(b"\\") and after.startswith(b"u"))
        for piece, after in zip_longest(pieces, pieces[1:], fillvalue=b"")
    )


def _joined(pieces: list[bytes]) -> bytes:
    """Join ``pieces`` and empty the list, so that their memory is freed."""
    body = b"".join(pieces)
    pieces.clear()
    return body


class RequestBody:
    """Parses the body of one request."""

    def __init__(self, lease: RequestMemoryLease, parsing: asyncio.Semaphore) -> None:
        self._lease, self._parsing = lease, parsing
        self._is_long = False

    @staticmethod
    def of(scope: Scope) -> RequestBody:
        """Return the body of the request of ``scope``."""
        body: RequestBody = scope[BODY_KEY]
        return body

    async def parsed(self, pieces: list[bytes], parse: Callable[[bytes], _Parsed]) -> _Parsed:
        """Parse a body in ``pieces`` with ``parse``, on a thread if it is long. Empties ``pieces``.

        Raises:
            ServerOverloaded: the memory for requests is used up.
        """
        if sum(map(len, pieces)) <= MAX_INLINE_BYTES:
            await self._lease.grow(parsed_bytes(pieces, self._lease.object_bytes))
            return parse(_joined(pieces))
        self._is_long = True
        async with self._parsing:
            size = await asyncio.to_thread(parsed_bytes, pieces, self._lease.object_bytes)
        await self._lease.grow(size)
        async with self._parsing:
            return await asyncio.to_thread(lambda: parse(_joined(pieces)))

    async def converted(self, convert: Callable[[], _Parsed], *, is_long: bool = False) -> _Parsed:
        """Run ``convert`` on what was parsed, on a thread if the body was long, or ``is_long`` is set."""
        if not (self._is_long or is_long):
            return convert()
        async with self._parsing:
            return await asyncio.to_thread(convert)
