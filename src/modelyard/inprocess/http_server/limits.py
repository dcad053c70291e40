"""Bounds on what connections cost before a request is answered, and the arithmetic of deadlines. Pure."""

from __future__ import annotations

from typing import Final

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_HEADER_LINES: Final = 100
MAX_URL_BYTES: Final = 16 * 1024

# Bytes of a body that must arrive before its request starts, so that clients that never send the rest cost little.
MAX_BODY_BYTES_BEFORE_START: Final = 32 * 1024

# Requests on one connection that may wait for the answer to the previous one. Clients rarely pipeline at all.
MAX_PIPELINED: Final = 16

# Bytes of a chunked body beside its content: chunk sizes, extensions, line ends. A chunk has at least five of them, and
# takes as long to parse as 10 KiB of content. Chunks of single bytes may hold 13 KiB in all; chunks of whole lines are
# not limited.
MAX_FRAMING_BYTES: Final = 64 * 1024
MAX_FRAMING_SHARE: Final = 0.25

# A body whose request was answered before its end, such as with 413, is read and dropped up to this size: a client that
# is still sending would not see the answer otherwise.
MAX_DROPPED_BYTES: Final = 64 * 2**20

# Bytes of all incomplete bodies together. The oldest connections give way.
MAX_ARRIVING_BYTES: Final = 2**30

# From the acceptance of a connection, TLS handshake included, or from the first byte of a later request, to the end of
# the head.
MAX_HEAD_S: Final = 20.0
# The pause between two pieces of a body, and its mean rate after a grace period: 50 MiB may take 14 hours.
MAX_BODY_PAUSE_S: Final = 30.0
BODY_GRACE_S: Final = 30.0
MIN_BODY_BYTES_PER_S: Final = 1024
# Between two requests. Longer than the 60 s for which proxies keep connections, so that the proxy closes first:
# otherwise it may send a request that cannot be repeated to a closed connection.
MAX_IDLE_S: Final = 75.0
# Time and bytes for which a refused connection is still read, so that its client sees the refusal.
MAX_LINGER_S: Final = 2.0
MAX_LINGER_BYTES: Final = 2**20

# How often the progress of a client with unread bytes is checked, and how much it must read.
STALL_S: Final = 30.0
MIN_READ_BYTES_PER_S: Final = 256

MAX_CONNECTIONS: Final = 4096
MIN_CONNECTIONS: Final = 8
# Further connections for health checks when all others are in use.
SPARE_CONNECTIONS: Final = 16
# The paths that spare connections may request.
SPARE_PATHS: Final = frozenset({b"/", b"/health", b"/health/live", b"/health/ready"})

# File descriptors for the server's own work, and for each model: sockets of its engine's process, files of a load.
RESERVED_FILES: Final = 32
RESERVED_FILES_PER_MODEL: Final = 8


def connection_limit(max_files: int | None, open_files: int, models: int, configured: int | None) -> int:
    """Return how many connections may be open at once.

    Args:
        max_files: limit of file descriptors of the process; None: no limit.
        open_files: file descriptors that are open already.
        models: the number of configured models.
        configured: ``max_connections`` of the configuration; None: not set.
    """
    requested = configured or MAX_CONNECTIONS
    if max_files is None:
        return requested
    free = max_files - open_files
    reserved = min(RESERVED_FILES + models * RESERVED_FILES_PER_MODEL + SPARE_CONNECTIONS, free * 2 // 3)
    return max(MIN_CONNECTIONS, min(requested, free - reserved))


def address_limit(connections: int, configured: int | None) -> int:
    """Return how many connections one address may have; by default a quarter is left to other addresses."""
    return min(configured or connections - connections // 4, connections)


def is_body_late(pause_s: float, elapsed_s: float, received: int) -> bool:
    """Whether a body that is still arriving is too slow.

    Args:
        pause_s: time since its latest piece.
        elapsed_s: time since the head of its request.
        received: bytes of the body so far.
    """
    return pause_s > MAX_BODY_PAUSE_S or elapsed_s > BODY_GRACE_S + received / MIN_BODY_BYTES_PER_S


def is_framing_excessive(framing: int, body: int) -> bool:
    """Whether a chunked body has more framing around its content than any sender needs."""
    return framing > MAX_FRAMING_BYTES + MAX_FRAMING_SHARE * body


def is_stalled(drained: int, elapsed_s: float) -> bool:
    """Whether a client has read too little of its answer in ``elapsed_s``."""
    return drained < MIN_READ_BYTES_PER_S * elapsed_s
