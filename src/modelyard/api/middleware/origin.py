"""Refuses requests that web pages of other origins make a browser send.

CORS only prevents such pages from reading answers. The browser still sends requests without a body or with a form, and
these could unload models or start generations.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from modelyard.api.middleware.addresses import is_own_origin, values_of
from modelyard.api.middleware.refusal import refuse
from modelyard.errors import OriginNotAllowed

# Methods that change nothing and start no generation: links to /docs work from any page.
_HARMLESS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
# Paths of GET requests that hold a connection open for long.
_HELD_OPEN: Final = frozenset(
    {
        *("/v1/models/events", "/models/sse", "/v1/activity/events"),
        *("/v1/agent/approvals", "/v1/agent/approvals/events", "/mcp"),
    }
)

_MAX_SHOWN_BYTES: Final = 100


class CheckOrigin:
    """Refuses requests from pages, except pages of the server itself and of ``origins``."""

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        self._app = app
        self._takes_all = "*" in origins
        self._origins = frozenset(origin.encode() for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 403."""
        page = None if self._takes_all or _is_harmless(scope) else self.foreign_page(scope)
        if page is None:
            await self._app(scope, receive, send)
        else:
            await refuse(OriginNotAllowed(page), scope, receive, send)

    def foreign_page(self, scope: Scope) -> str | None:
        """Return the origin of the page that sent the request, in words; None if it is no foreign page.

        A browser sends Origin with everything but plain GET requests. Without it, Sec-Fetch-Site may still report
        another site, or another origin of the same site.
        """
        origins = values_of(scope, b"origin")
        for origin in origins:
            if origin not in self._origins and not is_own_origin(origin, scope):
                return f"'{origin[:_MAX_SHOWN_BYTES].decode('latin-1')}'"
        sites = {site.strip().lower() for site in values_of(scope, b"sec-fetch-site")}
        is_configured = any(origin in self._origins for origin in origins)
        if b"cross-site" in sites and not is_configured:
            return "another site"
        if b"same-site" in sites and not origins:
            return "another origin of its site"
        return None


def _is_harmless(scope: Scope) -> bool:
    if scope["type"] == "http":
        return scope["method"] in _HARMLESS and scope["path"] not in _HELD_OPEN
    is_websocket: bool = scope["type"] == "websocket"
    return not is_websocket
