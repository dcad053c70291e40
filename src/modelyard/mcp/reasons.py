"""Why a server cannot be used, in words for its operator."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Sequence
from typing import Final

from modelyard.mcp.lost import SessionLost
from modelyard.mcp.secrets import without_secrets
from modelyard.system.printable import printable

MAX_REASON_CHARS: Final = 300

_MAX_CAUSES: Final = 8


def reason_of(error: BaseException, secrets: Sequence[str] = ()) -> str:
    """Return why a connection failed, as the end of a sentence, without secrets and control characters."""
    return printable(without_secrets(_words(_innermost(error)), secrets), MAX_REASON_CHARS)


def _innermost(error: BaseException) -> BaseException:
    """Return the first error of a group of errors, as task groups raise them."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _words(error: BaseException) -> str:
    if isinstance(error, SessionLost):
        return str(error)
    cause = _system_error(error)
    match cause:
        case ssl.SSLCertVerificationError():
            return f"its certificate is not trusted ({cause.verify_message})"
        case ssl.SSLError():
            return "it does not speak TLS"
        case TimeoutError():
            return "it does not answer in time"
        case ConnectionRefusedError():
            return "nothing listens there"
        case socket.gaierror():
            return "its host is not known"
        case OSError() if cause.errno in (errno.ENOENT, errno.ENOTDIR) and cause.filename is not None:
            return f"{cause.filename} does not exist"
        case OSError() if cause.strerror:
            return cause.strerror
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return f"it refuses the access (HTTP status {status})"
    if isinstance(status, int):
        return f"it answers with HTTP status {status}"
    text = str(error).strip().split("\n", 1)[0]
    return text or type(error).__name__


def _system_error(error: BaseException) -> BaseException | None:
    """Return the error of the system that an error of a library stems from."""
    seen: BaseException | None = error
    for _ in range(_MAX_CAUSES):
        # Also a context that is suppressed: httpx hides the error of the system that way.
        cause = None if seen is None else seen.__cause__ or seen.__context__
        # anyio has a plain OSError for several attempts, which are its cause.
        if seen is None or (isinstance(seen, OSError) and (type(seen) is not OSError or seen.errno or cause is None)):
            return seen
        seen = None if cause is None else _innermost(cause)
    return None
