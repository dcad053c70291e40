"""What is checked before a request is read: its key and its size. Plain ASGI: it is on the path of every token."""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modelyard.api.errors import error_response
from modelyard.errors import InvalidApiKey, RequestTooLarge

# The reference's limit.
BODY_LIMIT_BYTES = 50 * 2**20

OPEN_PATHS = frozenset({"/", "/health", "/health/ready"})


class RequireApiKey:
    """Lets requests in that carry one of ``keys`` as a Bearer token, or as x-api-key; health is open to all."""

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self._app = app
        self._keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or self._is_known(_key_of(scope)):
            await self._app(scope, receive, send)
        else:
            await error_response(InvalidApiKey())(scope, receive, send)

    def _is_known(self, sent: bytes) -> bool:
        # Every key is compared, each in constant time: the answer's timing tells nothing about any of them.
        return sum(hmac.compare_digest(sent, key) for key in self._keys) > 0


def _key_of(scope: Scope) -> bytes:
    headers = dict(scope["headers"])
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer":
        return bytes(token.strip())
    return bytes(headers.get(b"x-api-key", b""))


class LimitBody:
    """Refuses bodies of more than ``limit`` bytes, by their declared length, else as soon as they exceed it."""

    def __init__(self, app: ASGIApp, limit: int = BODY_LIMIT_BYTES) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 413."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._limit:
            await error_response(RequestTooLarge(self._limit))(scope, receive, send)
            return
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                raise RequestTooLarge(self._limit)
            return message

        await self._app(scope, limited, send)
