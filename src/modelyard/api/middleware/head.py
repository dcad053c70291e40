"""HEAD, which asks for the head of what GET answers: Ollama's clients look that way whether a server is there."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class ResponseHead:
    """Has HEAD answered as GET is, up to the head. No route needs to know of it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        # A copy: the server reads in its own that no body is to be sent.
        asked: MutableMapping[str, Any] = {**scope, "method": "GET"}
        has_answered = False

        async def send_head(message: Message) -> None:
            nonlocal has_answered
            if message["type"] == "http.response.start" and not has_answered:
                has_answered = True
                await send(message)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                # What is sent after it is a body, which may be a stream without end.
                answering.cancel()

        answering = asyncio.ensure_future(self._app(asked, receive, send_head))
        try:
            await answering
        except asyncio.CancelledError:
            if not has_answered:
                raise
        finally:
            if "route" in asked:
                scope["route"] = asked["route"]
