"""Serves an application on a bound socket: uvicorn's server with our own connections."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from modelyard.api.mcp.own_port import McpPort
from modelyard.config import Server
from modelyard.inprocess.http_server.acceptor import Acceptor
from modelyard.inprocess.http_server.connections import Connections
from modelyard.inprocess.http_server.forwarded import TrustedProxies
from modelyard.inprocess.http_server.limits import address_limit, connection_limit
from modelyard.inprocess.http_server.places import Place
from modelyard.inprocess.http_server.protocol import Address, BoundedProtocol
from modelyard.inprocess.http_server.tls import Certificate

logger = logging.getLogger(__name__)

# How long running answers may take to finish after the server was asked to stop.
DRAIN_S = 30.0

# Connections that the kernel queues until they are accepted.
BACKLOG: Final = 2048


class HttpServer:
    """Serves an application on a bound socket.

    Args:
        app: the application.
        listener: the bound socket.
        server: the ``[server]`` table of the configuration.
        models: how many models the application serves.
        tls: the certificate; None: connections are not encrypted.
        mcp_listener: a bound socket on which /mcp alone is served; None: there is none.
        drain_s: how long running answers may take to finish after a stop; then their connections are aborted.

    Attributes:
        serving: the task of the server, which is done when it has stopped.
    """

    serving: asyncio.Task[None]

    def __init__(
        self,
        app: ASGIApp,
        listener: socket.socket,
        server: Server,
        *,
        models: int = 1,
        tls: Certificate | None = None,
        mcp_listener: socket.socket | None = None,
        drain_s: float = DRAIN_S,
    ) -> None:
        self._listeners = [listener]
        if mcp_listener is not None:
            self._listeners.append(mcp_listener)
            app = McpPort(app, mcp_listener.getsockname()[1])
        max_files = _max_files()
        limit = connection_limit(max_files, _open_files(), models, server.max_connections)
        if limit < (server.max_connections or 0):
            logger.warning(
                "%d connections may be open at once, not %d as max_connections says: the process may have %s files "
                "open. Raise that limit, with ulimit -n or systemd's LimitNOFILE.",
                limit,
                server.max_connections,
                max_files,
            )
        self._server = _Uvicorn(
            uvicorn.Config(
                app,
                http=BoundedProtocol,
                # No endpoint speaks WebSocket. A handshake is answered like the GET request that it is.
                ws="none",
                lifespan="off",
                log_config=None,
                # AccessLog has more fields, and shows no query.
                access_log=False,
                server_header=False,
                # uvicorn would trust every process on this machine as a proxy.
                proxy_headers=False,
                backlog=BACKLOG,
                timeout_graceful_shutdown=int(drain_s),
            ),
            Connections(
                limit,
                address_limit(limit, server.max_connections_per_address),
                TrustedProxies(server.trusted_proxies),
            ),
            tls,
        )

    @property
    def connections(self) -> Connections:
        """The connections of the server."""
        return self._server.connections

    @property
    def open_requests(self) -> int:
        """How many requests are being answered."""
        return len(self._server.server_state.tasks)

    async def start(self) -> None:
        """Start to accept connections."""
        self.serving = asyncio.create_task(self._server.serve(sockets=self._listeners))
        await finishes_before(self._server.listens, self.serving)

    def ask_to_stop(self) -> None:
        """Stop accepting connections, and stop the server when open connections have ended."""
        self._server.should_exit = True


class _Uvicorn(uvicorn.Server):
    """uvicorn's server, whose connections have places. It leaves signals to the caller.

    Attributes:
        connections: the connections of the server.
        listens: set when the server accepts connections.
    """

    def __init__(self, config: uvicorn.Config, connections: Connections, tls: Certificate | None) -> None:
        super().__init__(config)
        self.connections = connections
        self.listens = asyncio.Event()
        self._tls = tls
        self._acceptors: list[Acceptor] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections on ``sockets``, with an ``Acceptor`` in place of asyncio's servers."""
        await self.lifespan.startup()
        self._acceptors = [
            Acceptor(listener, self.connections, self._protocol, self._tls) for listener in sockets or ()
        ]
        for acceptor in self._acceptors:
            acceptor.start(self.config.backlog)
        self.servers = []
        self.connections.start()
        self.started = True
        self.listens.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shut down like uvicorn, and then abort connections that have not ended."""
        for acceptor in self._acceptors:
            await acceptor.close()
        try:
            await super().shutdown(sockets)
        finally:
            self.connections.stop()
            for connection in list(self.server_state.connections):
                connection.transport.abort()

    def _protocol(self, place: Place, addresses: tuple[Address, Address]) -> BoundedProtocol:
        return BoundedProtocol(
            self.config,
            self.server_state,
            self.lifespan.state,
            connections=self.connections,
            place=place,
            addresses=addresses,
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def finishes_before(event: asyncio.Event, work: asyncio.Task[None]) -> bool:
    """Wait until ``work`` is done or ``event`` is set; return whether the work is done."""
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait((work, waiting), return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    return work.done()


def _max_files() -> int | None:
    """Return the limit of file descriptors of the process; None: there is none."""
    try:
        import resource
    except ImportError:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def _open_files() -> int:
    """Return how many file descriptors are open; an estimate where the system does not report them."""
    for folder in ("/proc/self/fd", "/dev/fd"):
        with contextlib.suppress(OSError):
            return len(os.listdir(Path(folder)))  # noqa: PTH208 (names alone)
    return 32
