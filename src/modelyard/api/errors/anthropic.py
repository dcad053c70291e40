"""Errors as Anthropic's clients read them."""

from __future__ import annotations

from typing import Any, Final

import orjson

from modelyard.errors import ModelyardError, UnsupportedOperation

# Source: https://docs.anthropic.com/en/api/errors.
_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


class ThreadsNotHeld(UnsupportedOperation):
    """The client would have the conversation held here, and send only what is new.

    Its details are what Anthropic's client looks for: it then sends the whole conversation each time.
    """

    details: Final = {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}

    def __init__(self) -> None:
        super().__init__("'thread' is not supported: send all messages, and leave it out.", "thread")
        self.args = ()


def error_object(status: int, message: str) -> dict[str, Any]:
    """The body of an answer with that status, also the data of an error event."""
    return {"type": "error", "error": {"type": _TYPES.get(status, "api_error"), "message": message}}


def event(name: str, data: bytes) -> bytes:
    """A server-sent event."""
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


def error_body(error: ModelyardError) -> bytes:
    """The same for an error of ours, as JSON."""
    body = error_object(error.status, error.wire_message)
    if isinstance(error, ThreadsNotHeld):
        body["error"]["details"] = error.details
    return orjson.dumps(body)
