"""Refuses what web pages of elsewhere have a browser send.

CORS only keeps such pages from reading answers. A request without a body, or with one of a form, is sent all the same,
and would unload models, or have them work.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from modelyard.api.middleware.addresses import is_own_origin, values_of
from modelyard.api.middleware.refusal import refuse
from modelyard.errors import OriginNotAllowed

# They change nothing and have no model work: links to /docs are followed from anywhere.
_HARMLESS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
# What holds a place for as long as it is open, all the same.
_HELD_OPEN: Final = frozenset({"/v1/models/events"})

_SHOWN: Final = 100


class CheckOrigin:
    """Lets requests in that no page sent, or one of the server itself or of ``origins``."""

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
        """Which page sent the request, in words, where it is a foreign one.

        A browser says the origin of a page with everything but plain GETs. Where it does not, it may still say that the
        page is of another site, or of another origin of the same site.
        """
        origins = values_of(scope, b"origin")
        for origin in origins:
            if origin not in self._origins and not is_own_origin(origin, scope):
                return f"'{origin[:_SHOWN].decode('latin-1')}'"
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
