"""How bodies of requests come in: of bounded size, within the memory for all of them, and parsed off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Final, TypeVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modelyard.api.errors.responses import error_response
from modelyard.api.request_context import Visit
from modelyard.api.serving.json_body import count_objects
from modelyard.api.serving.request_memory import LEASE, RequestMemory, RequestMemoryLease
from modelyard.errors import RequestTooLarge

MAX_BODY_BYTES: Final = 50 * 2**20
"""The reference's limit."""

MAX_SMALL_BODY_BYTES: Final = 1 << 16
"""For routes whose body names a model, or that take none."""

MAX_BODIES_PARSED_AT_ONCE: Final = 2
"""More of them at a time would only take the interpreter's lock from each other."""

MAX_INLINE_BYTES: Final = 1 << 16
"""What is parsed on the event loop: it takes a millisecond, less than a thread would take others."""

OBJECT_BYTES: Final = 1200
"""Memory of a JSON object that became an instance of one of our classes: 1.1 KB were measured."""

_KEY: Final = "modelyard.body"
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


class BodyIntake:
    """Plain ASGI: refuses bodies of more than ``max_bytes``, and counts what the others take in ``memory``."""

    def __init__(self, app: ASGIApp, memory: RequestMemory, max_bytes: int = MAX_BODY_BYTES) -> None:
        self._app, self._memory, self._max_bytes = app, memory, max_bytes
        self._parsing = asyncio.Semaphore(MAX_BODIES_PARSED_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 413."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._max_bytes:
            await error_response(RequestTooLarge(self._max_bytes), scope["path"])(scope, receive, send)
            return
        with self._memory.lease() as lease:
            scope[_KEY] = RequestBody(lease, self._parsing)
            outer = LEASE.set(lease)
            try:
                await self._app(scope, self._counted(receive, lease, Visit.of(scope)), send)
            finally:
                LEASE.reset(outer)

    def _counted(self, receive: Receive, lease: RequestMemoryLease, visit: Visit) -> Receive:
        async def counted() -> Message:
            message = await receive()
            if body := message.get("body"):
                visit.body_bytes += len(body)
                if visit.body_bytes > self._max_bytes:
                    raise RequestTooLarge(self._max_bytes)
                # The pieces, and the whole that they are joined to.
                await lease.grow(2 * visit.body_bytes)
            return message

        return counted


class SmallBody:
    """Plain ASGI for routes that take a name at the most, or nothing: FastAPI parses their bodies on the event loop."""

    def __init__(self, app: ASGIApp, max_bytes: int = MAX_SMALL_BODY_BYTES) -> None:
        self._app, self._max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or raise RequestTooLarge."""
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise RequestTooLarge(self._max_bytes)
            return message

        await self._app(scope, counted, send)


class RequestBody:
    """The body of one request, as routes read it."""

    def __init__(self, lease: RequestMemoryLease, parsing: asyncio.Semaphore) -> None:
        self._lease, self._parsing = lease, parsing
        self._is_long = False

    @staticmethod
    def of(scope: Scope) -> RequestBody:
        """The body of the request that ``scope`` is of."""
        body: RequestBody = scope[_KEY]
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
