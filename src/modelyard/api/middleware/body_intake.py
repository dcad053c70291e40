"""Limits the size of request bodies, and counts them against the memory for all requests."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modelyard.api.errors.rendering import error_response
from modelyard.api.request_context import RequestContext
from modelyard.api.serving.request_body import BODY_KEY, MAX_BODIES_PARSED_AT_ONCE, RequestBody
from modelyard.api.serving.request_memory import LEASE, RequestMemory, RequestMemoryLease
from modelyard.errors import RequestTooLarge

MAX_BODY_BYTES: Final = 50 * 2**20
"""The limit of mistral.rs."""

MAX_SMALL_BODY_BYTES: Final = 1 << 16
"""The limit of routes whose body only names a model, or that take none."""


MAX_UPLOAD_BYTES: Final = 2**40
"""The limit of files that are sent to be kept, which are written to the disk as they arrive."""

_UPLOADS: Final = "/api/blobs/"


class BodyIntake:
    """Refuses bodies of more than ``max_bytes``, and counts the others in ``memory``."""

    def __init__(self, app: ASGIApp, memory: RequestMemory, max_bytes: int = MAX_BODY_BYTES) -> None:
        self._app, self._memory, self._max_bytes = app, memory, max_bytes
        self._parsing = asyncio.Semaphore(MAX_BODIES_PARSED_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 413."""
        if scope["type"] != "http" or scope["path"].startswith(_UPLOADS):
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._max_bytes:
            await error_response(RequestTooLarge(self._max_bytes), scope["path"])(scope, receive, send)
            return
        with self._memory.lease() as lease:
            scope[BODY_KEY] = RequestBody(lease, self._parsing)
            outer = LEASE.set(lease)
            try:
                await self._app(scope, self._counted(receive, lease, RequestContext.of(scope)), send)
            finally:
                LEASE.reset(outer)

    def _counted(self, receive: Receive, lease: RequestMemoryLease, context: RequestContext) -> Receive:
        async def counted() -> Message:
            message = await receive()
            if body := message.get("body"):
                context.body_bytes += len(body)
                if context.body_bytes > self._max_bytes:
                    raise RequestTooLarge(self._max_bytes)
                # The pieces, and the body that they are joined to.
                await lease.grow(2 * context.body_bytes)
            return message

        return counted


class SmallBody:
    """Refuses larger bodies on routes with a small body, which FastAPI parses on the event loop."""

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
