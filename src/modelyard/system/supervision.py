"""What a supervisor and its server send each other over the socket between them: one byte a message.

The supervisor does not forward signals as signals: the server could not tell one that came to both of them, as Ctrl-C
in a terminal does, from two.
"""

from __future__ import annotations

import socket
from typing import Final

_MAX_READ_BYTES: Final = 1024

# The supervisor was told to stop the server, or to have it read its configuration again.
STOP: Final = b"s"
RELOAD: Final = b"r"
# The server accepts connections from now on, or accepts none from now on.
SERVING: Final = b"+"
STOPPING: Final = b"-"

# Environment variable of a server that the supervisor has started: file descriptors of the listening socket and of the
# socket to the supervisor, with a comma between them.
SOCKETS_VARIABLE: Final = "MODELYARD_SUPERVISOR_SOCKETS"


def received(channel: socket.socket) -> bytes | None:
    """The messages that have come, without waiting; None where the other side is gone."""
    try:
        return channel.recv(_MAX_READ_BYTES) or None
    except BlockingIOError:
        return b""
    except OSError:
        return None
