"""HEAD requests, with which Ollama's clients check whether a server is reachable."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class ResponseHead:
    """Answers HEAD with the head of the answer to GET, for all routes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, as GET for HEAD."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        # A copy: the server reads the method from its own scope, and so sends no body.
        get_scope: MutableMapping[str, Any] = {**scope, "method": "GET"}
        has_answered = False

        async def send_head(message: Message) -> None:
            nonlocal has_answered
            if message["type"] == "http.response.start" and not has_answered:
                has_answered = True
                await send(message)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                # The rest is a body, which may be an endless stream.
                answering.cancel()

        answering = asyncio.ensure_future(self._app(get_scope, receive, send_head))
        try:
            await answering
        except asyncio.CancelledError:
            if not has_answered:
                raise
        finally:
            if "route" in get_scope:
                scope["route"] = get_scope["route"]
