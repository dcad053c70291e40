"""What is checked before a request is read: its host, its key and its rate.

Plain ASGI, which passes ``send`` on as it is: all of it is on the path of every token.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from modelyard.api.errors import error_response
from modelyard.api.limits import KeyLimits
from modelyard.api.openapi.page import PAGE_PATHS
from modelyard.api.visit import Visit
from modelyard.config import AccessKey, is_loopback
from modelyard.config.keys import digest_of
from modelyard.errors import HostNotAllowed, InvalidApiKey, RateLimited

# Beside health, what is the same on every server and says nothing of this one: a browser shows no key for a page.
OPEN_PATHS = frozenset({"/", "/health", "/health/live", "/health/ready"}) | PAGE_PATHS


class CheckHost:
    """Refuses requests that address the server by a name that is neither the machine's own nor in ``allowed``.

    A page from anywhere can have its own name looked up to lead to this machine, and would then be of one origin with
    the server (DNS rebinding); it cannot have its browser send another name. What sends none is no browser.
    """

    def __init__(self, app: ASGIApp, allowed: Iterable[str]) -> None:
        self._app = app
        self._allowed = frozenset(name.lower() for name in allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 403."""
        sent = dict(scope.get("headers", ())).get(b"host")
        if sent is None or self._is_own(host := _host_name(sent)):
            await self._app(scope, receive, send)
        else:
            await _refuse(HostNotAllowed(host), scope, receive, send)

    def _is_own(self, host: str) -> bool:
        return host in self._allowed or is_loopback(host)


def _host_name(header: bytes) -> str:
    """The name in a Host header, in small letters and without its port; "" where it has none."""
    try:
        return urlsplit(b"//" + header).hostname.decode("latin-1")  # type: ignore[union-attr]
    except (ValueError, AttributeError):
        return ""


class RequireKey:
    """Lets requests in that carry one of ``keys`` as a Bearer token, or as x-api-key, at its rate; health is open.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[AccessKey], clock: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._clock = clock
        self._keys = [(key, KeyLimits(key, clock())) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401 or 429."""
        refusal = None
        if scope["type"] == "websocket" or (scope["type"] == "http" and scope["path"] not in OPEN_PATHS):
            refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await _refuse(refusal, scope, receive, send)

    def _refusal(self, scope: Scope) -> InvalidApiKey | RateLimited | None:
        found = self._find(_key_of(scope))
        if found is None:
            return InvalidApiKey()
        key, limits = found
        visit = Visit.of(scope)
        visit.key, visit.caller.models = key, key.models
        visit.caller.on_paid = lambda tokens: limits.pay(tokens, self._clock())
        try:
            limits.admit(self._clock())
        except RateLimited as limited:
            return limited
        finally:
            visit.headers += limits.headers(self._clock())
        return None

    def _find(self, sent: bytes) -> tuple[AccessKey, KeyLimits] | None:
        digest = digest_of(sent)
        # Every key is compared, each in constant time: the answer's timing tells nothing about any of them.
        matches = [entry for entry in self._keys if hmac.compare_digest(digest, entry[0].digest)]
        return matches[0] if matches else None


def _key_of(scope: Scope) -> bytes:
    headers = dict(scope["headers"])
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer":
        return bytes(token.strip())
    return bytes(headers.get(b"x-api-key", b""))


async def _refuse(
    refusal: InvalidApiKey | RateLimited | HostNotAllowed, scope: Scope, receive: Receive, send: Send
) -> None:
    if scope["type"] == "websocket":
        await WebSocketClose(1008)(scope, receive, send)
    else:
        await error_response(refusal, scope["path"])(scope, receive, send)
