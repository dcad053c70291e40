"""How much of what was written to a connection its client has not taken yet."""

from __future__ import annotations

import asyncio
import struct
import sys
from contextlib import suppress


def unsent_bytes(transport: asyncio.Transport) -> int:
    """Bytes in the transport's buffer, and on Linux also those in the kernel's that are not acknowledged.

    The kernel holds megabytes and takes more only when a third of that is free: without them a slow client would look
    like one that does not read at all.

    Source: tcp(7), SIOCOUTQ, which has the number of TIOCOUTQ.
    """
    waiting = transport.get_write_buffer_size()
    socket = transport.get_extra_info("socket")
    if sys.platform == "linux" and socket is not None:
        import fcntl
        import termios

        with suppress(OSError):
            (queued,) = struct.unpack("i", fcntl.ioctl(socket.fileno(), termios.TIOCOUTQ, bytes(4)))
            waiting += queued
    return waiting
