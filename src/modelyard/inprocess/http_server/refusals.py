"""The errors with which a connection refuses a request before it reaches the application."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

from modelyard.api.errors.rendering import error_response
from modelyard.api.middleware.answer_headers import PRIVATE_HEADERS, Header
from modelyard.errors import HeadTooLarge, InvalidRequest, ModelyardError, RequestTimeout, TooManyConnections
from modelyard.inprocess.http_server.limits import (
    MAX_BODY_PAUSE_S,
    MAX_HEAD_BYTES,
    MAX_HEAD_S,
    MAX_HEADER_LINES,
    MAX_PIPELINED,
    MIN_BODY_BYTES_PER_S,
)

_HEAD: Final = "The head of the request"
LONG_HEAD: Final = HeadTooLarge(f"{_HEAD} has more than {MAX_HEAD_BYTES} bytes.")
MANY_LINES: Final = HeadTooLarge(f"{_HEAD} has more than {MAX_HEADER_LINES} header lines.")
LATE_HEAD: Final = RequestTimeout(f"{_HEAD} did not arrive within {MAX_HEAD_S:.0f} s.")
LATE_BODY: Final = RequestTimeout(
    f"The body of the request came too slowly: send at least {MIN_BODY_BYTES_PER_S} bytes a second, with pauses of no "
    f"more than {MAX_BODY_PAUSE_S:.0f} s."
)
NOT_HTTP: Final = InvalidRequest("The request is not valid HTTP/1.1.")
TRAILERS: Final = InvalidRequest("The body has trailers: send all headers before it.")
FRAMING: Final = InvalidRequest("The chunks of the body have extensions or trailers: send none.")
PIPELINE: Final = InvalidRequest(f"More than {MAX_PIPELINED} requests wait for an answer on this connection.")
UPGRADE: Final = InvalidRequest("A request that asks for another protocol has no body: leave out Upgrade.")
MANY_BODIES: Final = TooManyConnections("Too many large bodies arrive at once. Try again.")


def all_taken(limit: int) -> TooManyConnections:
    """Return the error for a server without a free place."""
    return TooManyConnections(
        f"All {limit} connections that the server has are in use. Try again, or raise max_connections under [server]."
    )


def share_taken(limit: int) -> TooManyConnections:
    """Return the error for an address that has all its places."""
    return TooManyConnections(f"This address has all {limit} connections that it may have. Try again.")


def refusal_bytes(refusal: ModelyardError, path: str, headers: Iterable[Header]) -> bytes:
    """Return a whole HTTP response in the dialect of ``path``, after which the connection is closed.

    Args:
        headers: headers of all answers of the server.
    """
    response = error_response(refusal, path)
    lines = [b"HTTP/1.1 %d %b" % (response.status_code, HTTPStatus(response.status_code).phrase.encode())]
    for part in (headers, response.raw_headers, PRIVATE_HEADERS, ((b"connection", b"close"),)):
        lines += [b"%b: %b" % header for header in part]
    return b"\r\n".join([*lines, b"", bytes(response.body)])
