"""Values between fronts and nodes, over TCP: frames with the encoding of engines' messages.

Both ends run the same version and know the cluster's secret; nothing is decoded before the other end has shown it.
"""

from __future__ import annotations

import asyncio
import hmac
import socket
import struct
from contextlib import suppress
from typing import Any, Final

import numpy as np

from modelyard.engine.hosts.codec import ForeignValue, decode, encode
from modelyard.system.shared_memory import SharedMemory
from modelyard.version import __version__

# Bytes of the value, and number of blocks; then the size of each block, the value, and the blocks.
_HEAD: Final = struct.Struct("<QI")
_SIZE: Final = struct.Struct("<Q")

MAX_FRAME_BYTES: Final = 4 << 30
"""Size of a frame at most: an image or a clip of sound is far below, a broken head far above."""

MAX_BLOCKS: Final = 4096

GREETING_S: Final = 5.0
"""Seconds in which a new connection must be accepted, and have shown the secret."""

UNANSWERED_S: Final = 10.0
"""Seconds after which an end is gone that answers nothing: a machine without power closes no connections."""

MAX_UNSENT_BYTES: Final = 64 << 20
"""Bytes that wait for an end which does not read, before the connection counts as broken."""


class WireClosed(Exception):
    """The other end is gone, is of another version, or does not know the secret."""


class Wire:
    """One end of a connection. ``send`` never blocks; one task receives."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        # A token is a small frame, which is not to wait for another one.
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # For the end that sends: a node's reports to a front that is gone.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * UNANSWERED_S))

    def send(self, value: object) -> None:
        """Send a value. What is sent to an end that is gone is lost: ``receive`` reports the end.

        Raises:
            ForeignValue: the value is not of the protocol.
        """
        data, blocks = encode(value)
        sizes = b"".join(_SIZE.pack(block.size_bytes) for block in blocks)
        self._writer.write(b"".join([_HEAD.pack(len(data), len(blocks)), sizes, data, *(b.read() for b in blocks)]))
        if self._writer.transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            self._writer.transport.abort()

    async def receive(self) -> Any:
        """Return the next value.

        Raises:
            WireClosed: the other end is gone, or sent what is no frame.
        """
        try:
            size, count = _HEAD.unpack(await self._reader.readexactly(_HEAD.size))
            if count > MAX_BLOCKS:
                raise WireClosed(f"it sent a frame with {count} blocks")
            raw = await self._reader.readexactly(_SIZE.size * count)
            sizes = [each for (each,) in _SIZE.iter_unpack(raw)]
            if size + sum(sizes) > MAX_FRAME_BYTES:
                raise WireClosed(f"it sent a frame of {size + sum(sizes)} bytes")
            data = await self._reader.readexactly(size)
            blocks = [SharedMemory.copy_of(_array(await self._reader.readexactly(each))) for each in sizes]
            return decode(data, blocks)
        except (asyncio.IncompleteReadError, OSError) as gone:
            raise WireClosed("the connection has ended") from gone
        except (ForeignValue, EOFError) as foreign:
            raise WireClosed(f"it sent what is no message: {foreign}") from foreign

    async def close(self) -> None:
        """Send what was written, and close the connection."""
        self._writer.close()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(GREETING_S):
                await self._writer.wait_closed()


def _array(content: bytes) -> np.ndarray[Any, Any]:
    return np.frombuffer(content, np.uint8)


def _greeting(secret: str) -> bytes:
    return f"modelyard {__version__} {secret}\n".encode()


async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, secret: str) -> Wire:
    """Return the wire of a new connection, once its other end has shown the secret.

    Raises:
        WireClosed: it has not, or is of another version; the connection is closed.
    """
    try:
        async with asyncio.timeout(GREETING_S):
            shown = await reader.readexactly(len(_greeting(secret)))
    except (asyncio.IncompleteReadError, OSError, TimeoutError) as gone:
        writer.close()
        raise WireClosed("it has not shown the secret of the cluster") from gone
    if not hmac.compare_digest(shown, _greeting(secret)):
        writer.close()
        raise WireClosed("it knows another secret, or is of another version")
    return Wire(reader, writer)


async def connect(host: str, port: int, secret: str) -> Wire:
    """Return a wire to a node.

    Raises:
        WireClosed: it cannot be reached.
    """
    try:
        async with asyncio.timeout(GREETING_S):
            reader, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError) as gone:
        raise WireClosed(f"{host}:{port} cannot be reached") from gone
    writer.write(_greeting(secret))
    return Wire(reader, writer)
