"""Answers to HTTP/1.0, which has no chunks: a body of unknown length ends with the connection.

Source: RFC 9112, sections 6.1 and 6.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application


def unframed(app: ASGI3Application, cycle: RequestResponseCycle) -> ASGI3Application:
    """Return ``app`` with answers that uvicorn sends without chunks in ``cycle``."""
    return _Unframed(app, cycle)  # type: ignore[arg-type, return-value]


class _Unframed:
    def __init__(self, app: ASGIApp, cycle: RequestResponseCycle) -> None:
        self._app, self._cycle = app, cycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_unframed = False

        async def send_unframed(message: Message) -> None:
            nonlocal is_unframed
            if message["type"] == "http.response.start":
                is_unframed = all(name.lower() != b"content-length" for name, _ in message.get("headers", ()))
                if is_unframed:
                    self._cycle.chunked_encoding = False
            elif is_unframed and scope["method"] != "HEAD":
                # uvicorn compares each piece with the length that it has announced.
                self._cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await self._app(scope, receive, send_unframed)
