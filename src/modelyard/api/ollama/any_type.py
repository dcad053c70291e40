"""Bodies without a content type: Ollama's own examples, ``curl -d '{…}'``, name none that is JSON."""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

# What a browser says of who sends. A page from anywhere may send a body of another type without asking the server
# first: of a browser, it has to be JSON.
_OF_BROWSERS: Final = frozenset({b"origin", b"sec-fetch-site"})


class TakeAnyType:
    """Takes what programs send for JSON, whatever they call it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = scope["headers"]
        if _OF_BROWSERS.isdisjoint(name for name, _ in headers):
            others = [(name, value) for name, value in headers if name != b"content-type"]
            scope = {**scope, "headers": [*others, (b"content-type", b"application/json")]}
        await self._app(scope, receive, send)
