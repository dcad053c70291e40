"""The body of one request, as routes read it: within the memory for requests, off the event loop where it is long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Final, TypeVar

from starlette.types import Scope

from modelyard.api.serving.json_body import count_objects
from modelyard.api.serving.request_memory import RequestMemoryLease

MAX_BODIES_PARSED_AT_ONCE: Final = 2
"""More of them at a time would only take the interpreter's lock from each other."""

MAX_INLINE_BYTES: Final = 1 << 16
"""What is parsed on the event loop: it takes a millisecond, less than a thread would take others."""

OBJECT_BYTES: Final = 1200
"""Memory of a JSON object that became an instance of one of our classes: 1.1 KB were measured."""

BODY_KEY: Final = "modelyard.body"

_Parsed = TypeVar("_Parsed")


def parsed_bytes(pieces: Sequence[bytes]) -> int:
    """Memory that a body that comes in ``pieces``, and what is parsed from it, takes at the most."""
    size = sum(map(len, pieces))
    # A string with one character beyond U+FFFF has four bytes for each of its characters.
    is_narrow = all(piece.isascii() for piece in pieces) and not _has_escaped_character(pieces)
    return size * (2 if is_narrow else 5) + sum(map(count_objects, pieces)) * OBJECT_BYTES


def _has_escaped_character(pieces: Sequence[bytes]) -> bool:
    return any(
        b"\\u" in piece or (piece.endswith(b"\\") and after.startswith(b"u"))
        for piece, after in zip_longest(pieces, pieces[1:], fillvalue=b"")
    )


def _joined(pieces: list[bytes]) -> bytes:
    """All of them in one. ``pieces`` is empty then, so that their memory is free."""
    body = b"".join(pieces)
    pieces.clear()
    return body


class RequestBody:
    """The body of one request, as routes read it."""

    def __init__(self, lease: RequestMemoryLease, parsing: asyncio.Semaphore) -> None:
        self._lease, self._parsing = lease, parsing
        self._is_long = False

    @staticmethod
    def of(scope: Scope) -> RequestBody:
        """The body of the request that ``scope`` is of."""
        body: RequestBody = scope[BODY_KEY]
        return body

    async def parsed(self, pieces: list[bytes], parse: Callable[[bytes], _Parsed]) -> _Parsed:
        """What ``parse`` makes of a body that came in ``pieces``; where that may take long, on a thread.

        ``pieces`` is empty then.

        Raises:
            ServerOverloaded: there is no memory for it.
        """
        if sum(map(len, pieces)) <= MAX_INLINE_BYTES:
            await self._lease.grow(parsed_bytes(pieces))
            return parse(_joined(pieces))
        self._is_long = True
        async with self._parsing:
            size = await asyncio.to_thread(parsed_bytes, pieces)
        await self._lease.grow(size)
        async with self._parsing:
            return await asyncio.to_thread(lambda: parse(_joined(pieces)))

    async def converted(self, convert: Callable[[], _Parsed]) -> _Parsed:
        """What ``convert`` makes of what was parsed; of a long body, on a thread."""
        if not self._is_long:
            return convert()
        async with self._parsing:
            return await asyncio.to_thread(convert)
