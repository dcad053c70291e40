"""Errors in Anthropic's dialect."""

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
    """The client asks the server to keep the conversation, and to receive only new messages.

    Anthropic's client reads ``details``, and then sends the whole conversation with each request.
    """

    details: Final = {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}

    def __init__(self) -> None:
        super().__init__("'thread' is not supported: send all messages, and leave it out.", "thread")
        self.args = ()


def error_object(status: int, message: str) -> dict[str, Any]:
    """Return the body of an error response, which is also the data of an error event."""
    return {"type": "error", "error": {"type": _TYPES.get(status, "api_error"), "message": message}}


def event(name: str, data: bytes) -> bytes:
    """Return a server-sent event."""
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


def error_body(error: ModelyardError) -> bytes:
    """Return the body for ``error`` as JSON."""
    body = error_object(error.status, error.wire_message)
    if isinstance(error, ThreadsNotHeld):
        body["error"]["details"] = error.details
    return orjson.dumps(body)
