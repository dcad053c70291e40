"""Counts bytes that were written to a connection and that its client has not received yet."""

from __future__ import annotations

import asyncio
import struct
import sys
from contextlib import suppress


def unsent_bytes(transport: asyncio.Transport) -> int:
    """Return the bytes in the transport's buffer, and on Linux also the unacknowledged bytes in the kernel's buffer.

    The kernel buffers megabytes, and accepts more only when a third of the buffer is free: without its bytes, a slow
    client would look like a client that does not read at all.

    Source: tcp(7), SIOCOUTQ, which has the value of TIOCOUTQ.
    """
    unsent = transport.get_write_buffer_size()
    socket = transport.get_extra_info("socket")
    if sys.platform == "linux" and socket is not None:
        import fcntl
        import termios

        with suppress(OSError):
            (queued,) = struct.unpack("i", fcntl.ioctl(socket.fileno(), termios.TIOCOUTQ, bytes(4)))
            unsent += queued
    return unsent
