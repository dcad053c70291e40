"""The messages between a supervisor and its server, over the socket between them: one byte each.

The supervisor does not forward signals as signals, because the server could not distinguish one that reaches both
processes, such as Ctrl-C in a terminal, from two.
"""

from __future__ import annotations

import signal
import socket
from typing import Final

_MAX_READ_BYTES: Final = 1024

FORWARDED: Final = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
"""Signals that the supervisor passes on. They are blocked in both processes until they have handlers there."""

# From the supervisor: stop, or read the configuration again.
STOP: Final = b"s"
RELOAD: Final = b"r"
# From the server: it has begun, or has ceased, to accept connections.
SERVING: Final = b"+"
STOPPING: Final = b"-"

# Environment variable of a server that the supervisor has started: the file descriptors of the listening socket and of
# the socket to the supervisor, separated by a comma.
SOCKETS_VARIABLE: Final = "MODELYARD_SUPERVISOR_SOCKETS"


def received(channel: socket.socket) -> bytes | None:
    """Return the messages that have arrived, without waiting; None if the other side is gone."""
    try:
        return channel.recv(_MAX_READ_BYTES) or None
    except BlockingIOError:
        return b""
    except OSError:
        return None
