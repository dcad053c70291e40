"""What is checked before a request is read: its key and its rate.

Plain ASGI, which passes ``send`` on as it is: all of it is on the path of every token.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from modelyard.api.limits import KeyLimits
from modelyard.api.middleware.refusal import refuse
from modelyard.api.openapi.page import PAGE_PATHS
from modelyard.api.visit import Visit
from modelyard.config import AccessKey
from modelyard.config.keys import digest_of
from modelyard.errors import InvalidApiKey, RateLimited

# Beside health, what is the same on every server and says nothing of this one: a browser shows no key for a page.
OPEN_PATHS = frozenset({"/", "/health", "/health/live", "/health/ready"}) | PAGE_PATHS


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
            await refuse(refusal, scope, receive, send)

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
