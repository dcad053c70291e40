"""One end of a connection between two processes: values go in, the same values come out."""

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
from modelyard.engine.hosts.shared_memory import SharedMemory

# A frame: version, bytes of the value, number of blocks; then the bytes of each block; then the value. The descriptors
# of the blocks go with the head.
_VERSION: Final = 1
_HEAD: Final = struct.Struct("<IQI")
_SIZE: Final = struct.Struct("<Q")

# Of descriptors in one message. Source: Linux, include/net/scm.h, SCM_MAX_FD is 253.
_MAX_DESCRIPTORS: Final = 200
_BESIDE_BYTES: Final = socket.CMSG_SPACE(4 * _MAX_DESCRIPTORS)

MAX_COPIED_BYTES: Final = 1 << 16
"""Of a value that is sent in one call with its head."""


class ChannelClosed(Exception):
    """The other end is gone."""


class Channel:
    """Sends and receives values. Several threads may send; one receives.

    Args:
        connection: a Unix stream socket, which belongs to this from then on.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._sending = threading.Lock()
        # select() knows no descriptors from 1,024 on.
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)

    @staticmethod
    def pair() -> tuple[Channel, socket.socket]:
        """A new connection: this end, and the socket of the other."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        return Channel(ours), theirs

    def send(self, value: object) -> None:
        """Send a value; waits while the other end does not read.

        Raises:
            ChannelClosed: there is no other end any more.
            OSError: there is no memory for what goes beside the value.
        """
        data, blocks = encode(value)
        head = _HEAD.pack(_VERSION, len(data), len(blocks)) + b"".join(_SIZE.pack(b.size_bytes) for b in blocks)
        with self._sending:
            try:
                if blocks:
                    self._send_with_descriptors(head, blocks)
                    self._socket.sendall(data)
                elif len(data) > MAX_COPIED_BYTES:
                    # To join them would copy all of it, and hold the interpreter's lock for as long.
                    self._socket.sendall(head)
                    self._socket.sendall(data)
                else:
                    self._socket.sendall(head + data)
            except (BrokenPipeError, ConnectionResetError) as gone:
                raise ChannelClosed from gone

    def wait(self, timeout_s: float) -> bool:
        """Wait for something to receive; whether there is."""
        return bool(self._poll.poll(1000 * timeout_s))

    def receive(self) -> Any:
        """The next value; waits for it.

        Raises:
            ChannelClosed: there is no other end any more.
            ForeignValue: what came is not of the protocol.
        """
        descriptors = array.array("i")
        try:
            version, size, count = _HEAD.unpack(self._read(_HEAD.size, descriptors))
            if version != _VERSION:
                raise ChannelClosed(f"It speaks version {version}, and not {_VERSION}.")
            sizes = self._read(_SIZE.size * count, descriptors)
            data = self._read(size, descriptors)
        finally:
            blocks = [SharedMemory(descriptor) for descriptor in descriptors]
        if len(blocks) != count:
            raise ChannelClosed(f"{len(blocks)} blocks came with a value, and not {count}.")
        for at, block in enumerate(blocks):
            (block.size_bytes,) = _SIZE.unpack_from(sizes, _SIZE.size * at)
        return decode(data, blocks)

    def close_sending(self) -> None:
        """Let the other end know that nothing follows. A ``send`` that waits raises ChannelClosed."""
        # Where the other end is gone, it needs not know.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close this end."""
        self._socket.close()

    def _send_with_descriptors(self, head: bytes, blocks: Sequence[SharedMemory]) -> None:
        # Each message takes a byte of the head at least: descriptors come with the bytes that they were sent with.
        for start in range(0, len(blocks), _MAX_DESCRIPTORS):
            some = array.array("i", [block.descriptor for block in blocks[start : start + _MAX_DESCRIPTORS]])
            part = head[start // _MAX_DESCRIPTORS : start // _MAX_DESCRIPTORS + 1]
            self._socket.sendmsg([part], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, some)])
        self._socket.sendall(head[-(-len(blocks) // _MAX_DESCRIPTORS) :])

    def _read(self, size: int, descriptors: array.array[int]) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            try:
                received, beside, _, _ = self._socket.recvmsg_into([view], _BESIDE_BYTES)
            except ConnectionResetError as gone:
                raise ChannelClosed from gone
            if not received:
                raise ChannelClosed
            for level, kind, content in beside:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
            view = view[received:]
        return data
