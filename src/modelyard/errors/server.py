"""Errors of the server as a whole, whichever model a request is for.

They are about connections, sizes, deadlines and memory of requests, about the file of stored responses, and about the
helper processes in which grammars are tested and media decoded.
"""

from __future__ import annotations

from modelyard.errors.base import MessageError, ModelyardError


class RequestTimeout(MessageError):
    """The request did not arrive in time; its connection is closed."""

    code = "request_timeout"
    status = 408
    type = "invalid_request_error"


class UriTooLong(ModelyardError):
    """The URL of the request is longer than the server accepts."""

    code = "uri_too_long"
    status = 414
    type = "invalid_request_error"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self.limit_bytes = limit_bytes

    def __str__(self) -> str:
        return f"The URL of the request is longer than {self.limit_bytes} bytes. Send long values in the body."


class HeadTooLarge(MessageError):
    """The head of the request has more bytes, or more lines, than the server accepts."""

    code = "request_head_too_large"
    status = 431
    type = "invalid_request_error"


class RequestTooLarge(ModelyardError):
    """The body is larger than the server accepts."""

    code = "request_too_large"
    status = 413
    type = "invalid_request_error"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self.limit_bytes = limit_bytes

    def __str__(self) -> str:
        return f"The request body is larger than {self.limit_bytes} bytes."


class ServerOverloaded(ModelyardError):
    """Other requests use all the memory for request bodies."""

    code = "server_overloaded"
    status = 503
    retry_after_s = 5

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self.limit_bytes = limit_bytes

    def __str__(self) -> str:
        return (
            f"Other requests use all of the {self.limit_bytes >> 20} MiB that the server has for request bodies. "
            "Try again soon."
        )


class OutOfMemory(ModelyardError):
    """An allocation for the request failed."""

    code = "out_of_memory"
    status = 507

    def __str__(self) -> str:
        return "The server had no memory to read or answer this request. Send less at once, or try again later."


class StoreUnavailable(ModelyardError):
    """The file of stored responses and conversations cannot be read or written.

    Args:
        reason: SQLite's message.
    """

    code = "store_unavailable"
    status = 503
    retry_after_s = 5

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"Stored responses and conversations cannot be used now: {self.reason}. Nothing was changed; try again."


class TooManyConnections(MessageError):
    """There is no place for another client, connection, session or large body.

    Each kind has a bound of its own, which the message names: connections of the server and of an address, large bodies
    that arrive at once, MCP sessions, and clients that follow the log, changes or approvals.
    """

    code = "too_many_connections"
    status = 503
    retry_after_s = 1


class ShuttingDown(ModelyardError):
    """The server is shutting down."""

    code = "shutting_down"
    status = 503

    def __str__(self) -> str:
        return "The server is shutting down."


class GrammarUntried(ModelyardError):
    """No process was available to test a grammar before its use."""

    code = "grammar_untried"
    status = 503
    retry_after_s = 10

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"The grammar could not be tested: {self.reason}. Try again."


class MediaUndecoded(ModelyardError):
    """No process was available to decode an image or a clip of sound.

    Args:
        name: "image" or "audio".
        reason: why no process was available.
    """

    code = "media_undecoded"
    status = 503
    retry_after_s = 10

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"The {self.name} could not be decoded: {self.reason}. Try again."
