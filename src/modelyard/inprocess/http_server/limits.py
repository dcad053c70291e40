"""Bounds on what connections cost before a request is answered, and the arithmetic of deadlines. Pure."""

from __future__ import annotations

from typing import Final

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_HEADER_LINES: Final = 100
MAX_URL_BYTES: Final = 16 * 1024

# Of a body, which is waited for before its request is begun, so that a crowd that never sends the rest costs little.
MAX_BODY_BYTES_BEFORE_START: Final = 32 * 1024

# Requests on one connection that may wait for the answer of the one before them. Hardly a client sends two.
MAX_PIPELINED: Final = 16

# What may come around the bytes of a chunked body: their sizes, extensions, line ends. Each chunk costs as much time as
# 10 KiB of a body, and has five bytes at least. A sender of single bytes may send 13 KiB, one of lines any number.
MAX_FRAMING_BYTES: Final = 64 * 1024
MAX_FRAMING_SHARE: Final = 0.25

# Of a body whose request was answered before its end, such as with 413: it is read to its end and dropped, because a
# client that is still sending would not see the answer otherwise.
MAX_DROPPED_BYTES: Final = 64 * 2**20

# Of all bodies together that have not arrived to their end. The oldest give way.
MAX_ARRIVING_BYTES: Final = 2**30

# From a connection's acceptance, with its TLS handshake, or from the first byte of a further request, to the end of the
# head.
MAX_HEAD_S: Final = 20.0
# Between two pieces of a body, and how fast it must come on average after a grace: 50 MiB may take 14 hours.
MAX_BODY_PAUSE_S: Final = 30.0
BODY_GRACE_S: Final = 30.0
MIN_BODY_BYTES_PER_S: Final = 1024
# Between two requests. Longer than the 60 s for which proxies keep connections, so that the proxy closes first: else it
# may meet a closed connection with a request that it cannot send again.
MAX_IDLE_S: Final = 75.0
# A refused connection is read for so long, or so far, so that its client sees the refusal.
MAX_LINGER_S: Final = 2.0
MAX_LINGER_BYTES: Final = 2**20

# A client that does not read: how often its progress is looked at, and what it must have taken since the last look.
STALL_S: Final = 30.0
MIN_READ_BYTES_PER_S: Final = 256

MAX_CONNECTIONS: Final = 4096
MIN_CONNECTIONS: Final = 8
# Beside them, for requests for health when all are in use.
SPARE_CONNECTIONS: Final = 16
# What they may ask for.
SPARE_PATHS: Final = frozenset({b"/", b"/health", b"/health/live", b"/health/ready"})

# File descriptors for the server's own work, and for each model: sockets of its engine's process, files of a load.
RESERVED_FILES: Final = 32
RESERVED_FILES_PER_MODEL: Final = 8


def connection_limit(max_files: int | None, open_files: int, models: int, configured: int | None) -> int:
    """How many connections may be open at once.

    Args:
        max_files: file descriptors that the process may have; None: any number.
        open_files: of those, how many it has already.
        models: that are configured.
        configured: what the configuration says; None: nothing.
    """
    wanted = configured or MAX_CONNECTIONS
    if max_files is None:
        return wanted
    left = max_files - open_files
    reserved = min(RESERVED_FILES + models * RESERVED_FILES_PER_MODEL + SPARE_CONNECTIONS, left * 2 // 3)
    return max(MIN_CONNECTIONS, min(wanted, left - reserved))


def address_limit(connections: int, configured: int | None) -> int:
    """How many of all connections one address may have: a quarter is left to others."""
    return min(configured or connections - connections // 4, connections)


def is_body_late(pause_s: float, elapsed_s: float, received: int) -> bool:
    """Whether a body that is still arriving takes too long.

    Args:
        pause_s: since its latest piece.
        elapsed_s: since its request's head.
        received: bytes of it.
    """
    return pause_s > MAX_BODY_PAUSE_S or elapsed_s > BODY_GRACE_S + received / MIN_BODY_BYTES_PER_S


def is_framing_excessive(framing: int, body: int) -> bool:
    """Whether a chunked body has more around its bytes than any sender needs."""
    return framing > MAX_FRAMING_BYTES + MAX_FRAMING_SHARE * body


def is_stalled(drained: int, elapsed_s: float) -> bool:
    """Whether a client has read too little of its answer in ``elapsed_s``."""
    return drained < MIN_READ_BYTES_PER_S * elapsed_s
