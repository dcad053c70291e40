"""Accepts connections, takes a place for each, and attaches its protocol.

asyncio's own servers accept without a limit, and uvloop's server stops for good when file descriptors run out.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from modelyard.inprocess.http_server.connections import Connections
from modelyard.inprocess.http_server.limits import MAX_HEAD_S, MAX_LINGER_S
from modelyard.inprocess.http_server.places import Loss, Place
from modelyard.inprocess.http_server.protocol import Address, BoundedProtocol
from modelyard.inprocess.http_server.tls import Certificate

logger = logging.getLogger(__name__)

# Connections that are accepted in a row before the event loop runs other callbacks.
MAX_ACCEPTED_AT_ONCE: Final = 64
# No event reports that file descriptors are free again, so accept is retried.
RETRY_S: Final = 0.1

_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_REASON: Final = b"All connections of the server are in use.\n"
_REJECTION: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-type: text/plain\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_REASON), _REASON)
)


class Acceptor:
    """Accepts connections on one socket until it is closed.

    Args:
        make_protocol: makes the protocol of a connection from its place and the addresses of the server and the client.
        tls: the certificate; None: connections are not encrypted.
    """

    def __init__(
        self,
        listener: socket.socket,
        connections: Connections,
        make_protocol: Callable[[Place, tuple[Address, Address]], BoundedProtocol],
        tls: Certificate | None,
    ) -> None:
        self._listener, self._connections, self._make_protocol = listener, connections, make_protocol
        self._tls = tls
        self._address: Address = listener.getsockname()[:2]
        self._attaching: set[asyncio.Task[None]] = set()
        self._accepting: asyncio.Task[None] | None = None

    def start(self, backlog: int) -> None:
        """Start to accept connections."""
        self._listener.listen(backlog)
        self._listener.setblocking(False)
        self._accepting = asyncio.create_task(self._accept(), name="accept connections")

    async def close(self) -> None:
        """Stop accepting, and drop connections that are still in their handshake."""
        tasks = [task for task in (self._accepting, *self._attaching) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                self._attach_or_reject(*await loop.sock_accept(self._listener))
                for _ in range(MAX_ACCEPTED_AT_ONCE):
                    self._attach_or_reject(*self._listener.accept())
            except (BlockingIOError, InterruptedError, ConnectionError):
                # No connection is waiting, or a client left before its connection was accepted.
                continue
            except OSError as error:
                # accept(2) also reports network errors of a single connection; those need no further handling.
                if error.errno in _EXHAUSTED:
                    self._connections.losses.note(Loss.NO_FILES, None)
                    self._connections.lose_oldest()
                await asyncio.sleep(RETRY_S)
            except Exception:
                # A bug costs one connection; the acceptor goes on.
                logger.exception("A connection was not accepted")

    def _attach_or_reject(self, connection: socket.socket, address: tuple[str, int, *tuple[int, ...]]) -> None:
        """Attach a connection, or answer 503 if it gets no place."""
        connection.setblocking(False)
        place = self._connections.admit(address[0])
        if place is None:
            with connection, suppress(OSError):
                if self._tls is None:
                    connection.send(_REJECTION)
            return
        protocol = self._make_protocol(place, (self._address, (address[0], address[1])))
        task = asyncio.create_task(self._attach(connection, protocol, place))
        protocol.attaching = task
        self._attaching.add(task)

        def finish(task: asyncio.Task[None]) -> None:
            self._attaching.discard(task)
            if protocol.transport is None:
                # The task was cancelled before it started, or the handshake failed.
                self._connections.places.leave(place)
                connection.close()

        task.add_done_callback(finish)

    async def _attach(self, connection: socket.socket, protocol: BoundedProtocol, place: Place) -> None:
        loop = asyncio.get_running_loop()
        handshake_s = None if self._tls is None else MAX_HEAD_S
        linger_s = None if self._tls is None else MAX_LINGER_S
        try:
            await loop.connect_accepted_socket(
                lambda: protocol,
                connection,
                ssl=None if self._tls is None else self._tls.context,
                ssl_handshake_timeout=handshake_s,
                ssl_shutdown_timeout=linger_s,
            )
        except OSError:
            # TLS errors are OSErrors, too: the client speaks another protocol, or leaves during the handshake.
            self._connections.losses.note(Loss.HANDSHAKE, place.address)
