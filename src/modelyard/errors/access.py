"""Errors of access: API keys, permissions and rate limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from modelyard.errors.base import MessageError, ModelyardError


class InvalidApiKey(ModelyardError):
    """The API key of the request is missing or not configured."""

    code = "invalid_api_key"
    status = 401
    type = "authentication_error"

    def __str__(self) -> str:
        return "Missing or wrong API key. Send a configured key as 'Authorization: Bearer <key>'."


class PermissionDenied(MessageError):
    """The API key of the request does not permit the request."""

    code = "permission_denied"
    status = 403
    type = "permission_error"


class ModelNotPermitted(PermissionDenied):
    """The API key of the request does not permit the model."""

    param = "model"

    def __init__(self, model: str, permitted: Sequence[str]) -> None:
        super().__init__(f"This API key may not use the model '{model}'. It may use: {', '.join(permitted)}.")
        self.args = (model, permitted)
        self.model, self.permitted = model, tuple(permitted)


class HostNotAllowed(PermissionDenied):
    """The Host header is not a name of the server: a web page may have made its own name resolve to it."""

    code = "host_not_allowed"

    def __init__(self, host: str) -> None:
        super().__init__(
            f"This server does not answer to the name '{host}', because any web page could make it resolve to this "
            "machine. Use the IP address of the server or localhost, or list the name in allowed_hosts under [server] "
            "(modelyard serve: --allowed-host)."
        )
        self.args = (host,)


class OriginNotAllowed(PermissionDenied):
    """The Origin of the request, a web page, may not use the server."""

    code = "origin_not_allowed"

    def __init__(self, origin: str) -> None:
        super().__init__(
            f"The request was sent by a web page of {origin}, which may not use this server. To allow it, "
            "list its origin in cors_origins under [server]."
        )
        self.args = (origin,)


class RateLimited(ModelyardError):
    """The API key has used its requests or its tokens of a minute."""

    code = "rate_limit_exceeded"
    status = 429
    type = "rate_limit_error"

    def __init__(self, what: Literal["requests", "tokens"], per_minute: int, retry_after_s: int) -> None:
        super().__init__(what, per_minute, retry_after_s)
        self.what, self.per_minute, self.retry_after_s = what, per_minute, retry_after_s

    def __str__(self) -> str:
        return f"This API key has used its {self.per_minute} {self.what} a minute. Try again in {self.retry_after_s} s."


class TokensReserved(RateLimited):
    """Running requests have reserved all tokens that are left to the API key."""

    def __init__(self, per_minute: int) -> None:
        super().__init__("tokens", per_minute, 1)
        self.args = (per_minute,)

    def __str__(self) -> str:
        return (
            f"Running requests have reserved what is left to this API key of its {self.per_minute} tokens a minute. "
            "Each reserves its prompt and its max_tokens, or else the context of its model. Try again when one has "
            "ended, or set max_tokens."
        )


class ConcurrencyLimited(ModelyardError):
    """The API key has as many running answers as it may have at the same time."""

    code = "concurrency_limit_exceeded"
    status = 429
    type = "rate_limit_error"
    retry_after_s = 1

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.most = most

    def __str__(self) -> str:
        return (
            f"{self.most} answers are running for this API key, which is its limit (max_concurrent); each choice of a "
            "request counts. Try again when one has ended."
        )
