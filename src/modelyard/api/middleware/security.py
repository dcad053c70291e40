"""Checks the API key and its rate limit before a request is read.

Hot path: it passes ``send`` on unchanged, which runs for every token.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from modelyard.api.middleware.rate_limits import CallLimits, KeyLimits
from modelyard.api.middleware.refusal import refuse
from modelyard.api.request_context import RequestContext
from modelyard.api.serving.open_paths import OPEN_PATHS, is_ui_path
from modelyard.config import AccessKey
from modelyard.config.base import PrefixSharing
from modelyard.config.key_rules import digest_of
from modelyard.errors import InvalidApiKey, RateLimited


class RequireKey:
    """Refuses requests without one of ``keys`` as a Bearer token or as x-api-key, or beyond the key's rate.

    Open paths need no key; a request without one then has no scopes and no models.

    Args:
        app: the application.
        keys: the API keys.
        share_prefixes: the key of the same name in ``[server]``.
        has_ui: whether the server has the page at /ui.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: Sequence[AccessKey],
        share_prefixes: PrefixSharing = "key",
        *,
        has_ui: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._clock = clock
        self._has_ui = has_ui
        self._keys = [(key, KeyLimits(key, clock()), key.cache_salt(share_prefixes)) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401 or 429."""
        refusal = None
        if scope["type"] == "http" and self._is_open(scope["path"]):
            self._authenticate_optional(scope)
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
        context = RequestContext.of(scope)
        context.key = key
        context.origin.key = key.name
        self._apply_key(context, key, salt)
        context.caller.limits = CallLimits(limits, self._clock)
        try:
            limits.admit(self._clock())
        except RateLimited as limited:
            return limited
        finally:
            context.headers += limits.headers(self._clock())
        return None

    def _is_open(self, path: str) -> bool:
        return path in OPEN_PATHS or (self._has_ui and is_ui_path(path))

    def _authenticate_optional(self, scope: Scope) -> None:
        """Apply the key of a request that needs none: it counts against no rate, and is not logged."""
        sent, context = _key_of(scope), RequestContext.of(scope)
        found = self._find(sent) if sent else None
        if found is None:
            context.caller.models, context.caller.scopes = frozenset(), frozenset()
        else:
            self._apply_key(context, found[0], found[2])

    def _apply_key(self, context: RequestContext, key: AccessKey, salt: str) -> None:
        """Give the request the rights and limits of ``key``."""
        caller = context.caller
        caller.models, caller.scopes, caller.mcp_servers = key.models, key.scopes, key.mcp_servers
        caller.owner, caller.shares_places = key.digest, len(self._keys) > 1
        caller.cache_salt = salt
        caller.max_priority = key.highest_priority
        caller.max_context, caller.max_tokens = key.max_context, key.max_tokens

    def _find(self, sent: bytes) -> tuple[AccessKey, KeyLimits, str] | None:
        digest = digest_of(sent)
        # All keys are compared, each in constant time, so that the time of the answer reveals nothing about them.
        matches = [entry for entry in self._keys if hmac.compare_digest(digest, entry[0].digest)]
        return matches[0] if matches else None


def _key_of(scope: Scope) -> bytes:
    headers = dict(scope["headers"])
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer":
        return bytes(token.strip())
    return bytes(headers.get(b"x-api-key", b""))
