"""Routes that take bodies without a content type: Ollama's own examples, ``curl -d '{…}'``, name none that is JSON."""

from __future__ import annotations

from typing import Any, Final

from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from modelyard.api.serving.json_route import JsonRoute

# Headers that browsers add. A page of any origin may send a body of another type without a preflight request, so a
# browser has to declare JSON.
_BROWSER_HEADERS: Final = frozenset({b"origin", b"sec-fetch-site"})


class AnyTypeRoute(APIRoute):
    """A route that reads the bodies of programs other than browsers as JSON, whatever their content type."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.app = _DeclareJson(self.app)


class AnyTypeJsonRoute(AnyTypeRoute, JsonRoute):
    """A JsonRoute that reads the bodies of programs other than browsers as JSON, whatever their content type."""


class _DeclareJson:
    """Sets the content type of a request to JSON, unless a browser sent it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = scope["headers"]
        if _BROWSER_HEADERS.isdisjoint(name for name, _ in headers):
            others = [(name, value) for name, value in headers if name != b"content-type"]
            scope = {**scope, "headers": [*others, (b"content-type", b"application/json")]}
        await self._app(scope, receive, send)
