"""One end of a connection between two processes that carries values."""

from __future__ import annotations

import array
import select
import socket
import struct
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from modelyard.engine.hosts.codec import decode, encode
from modelyard.system.shared_memory import SharedMemory

# A frame is a head (version, bytes of the value, number of blocks), the size of each block, and the value. The
# descriptors of the blocks are sent with the head.
_VERSION: Final = 1
_HEAD: Final = struct.Struct("<IQI")
_SIZE: Final = struct.Struct("<Q")

# Limit of descriptors in one message. Source: Linux, include/net/scm.h, SCM_MAX_FD is 253.
_MAX_DESCRIPTORS: Final = 200
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(4 * _MAX_DESCRIPTORS)

MAX_COPIED_BYTES: Final = 1 << 16
"""Limit of a value that is copied behind its head, to be sent in one call."""


class ChannelClosed(Exception):
    """The other end is closed."""


class Channel:
    """Sends and receives values. Several threads may send; one receives.

    Args:
        connection: a Unix stream socket, which the channel owns from then on.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._sending = threading.Lock()
        # select() does not accept descriptors from 1,024 on.
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)

    @staticmethod
    def pair() -> tuple[Channel, socket.socket]:
        """Return a new connection: one end as a channel, and the socket of the other end."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        return Channel(ours), theirs

    def send(self, value: object) -> None:
        """Send a value; block while the other end does not read.

        Raises:
            ChannelClosed: the other end is closed.
            ForeignValue: the value is not of the protocol.
            OSError: there is no memory for a shared block.
        """
        data, blocks = encode(value)
        head = _HEAD.pack(_VERSION, len(data), len(blocks)) + b"".join(_SIZE.pack(b.size_bytes) for b in blocks)
        with self._sending:
            try:
                if blocks:
                    self._send_with_descriptors(head, blocks)
                    self._socket.sendall(data)
                elif len(data) > MAX_COPIED_BYTES:
                    # Joining them would copy a large value while the GIL is held.
                    self._socket.sendall(head)
                    self._socket.sendall(data)
                else:
                    self._socket.sendall(head + data)
            except (BrokenPipeError, ConnectionResetError) as gone:
                raise ChannelClosed from gone

    def wait(self, timeout_s: float) -> bool:
        """Wait for data to receive; return whether there is some."""
        return bool(self._poll.poll(1000 * timeout_s))

    def receive(self) -> Any:
        """Block for the next value, and return it.

        Raises:
            ChannelClosed: the other end is closed.
            ForeignValue: the value is not of the protocol.
        """
        descriptors = array.array("i")
        try:
            version, size, count = _HEAD.unpack(self._read(_HEAD.size, descriptors))
            if version != _VERSION:
                raise ChannelClosed(f"The other end uses version {version} of the protocol, not {_VERSION}.")
            sizes = self._read(_SIZE.size * count, descriptors)
            data = self._read(size, descriptors)
        finally:
            blocks = [SharedMemory(descriptor) for descriptor in descriptors]
        if len(blocks) != count:
            raise ChannelClosed(f"{len(blocks)} blocks came with a value, not {count}.")
        for index, block in enumerate(blocks):
            (block.size_bytes,) = _SIZE.unpack_from(sizes, _SIZE.size * index)
        return decode(data, blocks)

    def close_sending(self) -> None:
        """Close the sending direction. A ``send`` that blocks raises ChannelClosed."""
        # The other end may be closed already.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close this end."""
        self._socket.close()

    def _send_with_descriptors(self, head: bytes, blocks: Sequence[SharedMemory]) -> None:
        # Descriptors are received with the bytes of their message, so each message carries one byte of the head.
        for start in range(0, len(blocks), _MAX_DESCRIPTORS):
            descriptors = array.array("i", [block.descriptor for block in blocks[start : start + _MAX_DESCRIPTORS]])
            part = head[start // _MAX_DESCRIPTORS : start // _MAX_DESCRIPTORS + 1]
            self._socket.sendmsg([part], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
        self._socket.sendall(head[-(-len(blocks) // _MAX_DESCRIPTORS) :])

    def _read(self, size: int, descriptors: array.array[int]) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            try:
                received, ancillary, _, _ = self._socket.recvmsg_into([view], _ANCILLARY_BYTES)
            except ConnectionResetError as gone:
                raise ChannelClosed from gone
            if not received:
                raise ChannelClosed
            for level, kind, content in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
            view = view[received:]
        return data
