"""What is checked before a request is read: its key and its rate.

Plain ASGI, which passes ``send`` on as it is: all of it is on the path of every token.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from modelyard.api.middleware.rate_limits import CallLimits, KeyLimits
from modelyard.api.middleware.refusal import refuse
from modelyard.api.request_context import RequestContext
from modelyard.api.serving.open_paths import OPEN_PATHS
from modelyard.config import AccessKey
from modelyard.config.base import PrefixSharing
from modelyard.config.key_rules import digest_of
from modelyard.errors import InvalidApiKey, RateLimited


class RequireKey:
    """Lets requests in that carry one of ``keys`` as a Bearer token, or as x-api-key, at its rate; health is open.

    What is open is seen without a key by nobody: its caller may use no model and do nothing.

    Args:
        share_prefixes: see ``[server]``.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: Sequence[AccessKey],
        share_prefixes: PrefixSharing = "key",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._clock = clock
        self._keys = [(key, KeyLimits(key, clock()), key.cache_salt(share_prefixes)) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401 or 429."""
        refusal = None
        if scope["type"] == "http" and scope["path"] in OPEN_PATHS:
            self._recognise(scope)
        elif scope["type"] in ("http", "websocket"):
            refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await refuse(refusal, scope, receive, send)

    def _refusal(self, scope: Scope) -> InvalidApiKey | RateLimited | None:
        found = self._find(_key_of(scope))
        if found is None:
            return InvalidApiKey()
        key, limits, salt = found
        visit = RequestContext.of(scope)
        visit.key = key
        self._admit(visit, key, salt)
        visit.caller.limits = CallLimits(limits, self._clock)
        try:
            limits.admit(self._clock())
        except RateLimited as limited:
            return limited
        finally:
            visit.headers += limits.headers(self._clock())
        return None

    def _recognise(self, scope: Scope) -> None:
        """Where no key is needed, one may be shown: it counts against no rate, and is in no log."""
        sent, visit = _key_of(scope), RequestContext.of(scope)
        found = self._find(sent) if sent else None
        if found is None:
            visit.caller.models, visit.caller.scopes = frozenset(), frozenset()
        else:
            self._admit(visit, found[0], found[2])

    def _admit(self, visit: RequestContext, key: AccessKey, salt: str) -> None:
        """The request is one of ``key``."""
        caller = visit.caller
        caller.models, caller.scopes = key.models, key.scopes
        caller.owner, caller.shares_places = key.digest, len(self._keys) > 1
        caller.cache_salt = salt
        caller.max_priority = key.highest_priority
        caller.max_context, caller.max_tokens = key.max_context, key.max_tokens

    def _find(self, sent: bytes) -> tuple[AccessKey, KeyLimits, str] | None:
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
