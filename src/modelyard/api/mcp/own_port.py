"""A port on which nothing but /mcp is served."""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from modelyard.api.errors.rendering import NotServed, error_response

_PATH: Final = "/mcp"


class McpPort:
    """Passes requests that arrive on ``port`` on to the application if they are for /mcp, and all others anyway."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app, self._port = app, port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 404."""
        if scope["type"] == "http" and scope["path"] != _PATH and (scope["server"] or (None, None))[1] == self._port:
            refused = NotServed(
                f"This port serves {_PATH} alone. The other endpoints are on the server's main port.", 404
            )
            await error_response(refused, scope["path"])(scope, receive, send)
            return
        await self._app(scope, receive, send)
