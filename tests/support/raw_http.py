"""A small server on a socket, and clients that write whatever bytes they like to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.types import Receive, Scope, Send

from modelyard.config import Server
from modelyard.inprocess.http_server.server import HttpServer
from modelyard.inprocess.http_server.tls import Certificate
from modelyard.inprocess.listen import listen

WAIT_S = 20.0

Answer = Callable[[Scope, Receive, Send], Awaitable[None]]


class Client:
    """One connection, and what came on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        """Write, as far as the server takes it."""
        self.writer.write(data)
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(self.writer.drain(), WAIT_S)

    async def rest(self) -> bytes:
        """All that comes until the server closes the connection."""
        got = b""
        with contextlib.suppress(ConnectionError):
            while piece := await asyncio.wait_for(self._reader.read(65536), WAIT_S):
                got += piece
        return got

    async def head(self) -> bytes:
        """The head of one answer."""
        return await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), WAIT_S)

    async def answer(self) -> bytes:
        """The head and body of one answer that has a length."""
        head = await self.head()
        length = next(
            int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
        )
        return head + await asyncio.wait_for(self._reader.readexactly(length), WAIT_S)

    async def chunk(self, size: int) -> bytes:
        return await asyncio.wait_for(self._reader.readexactly(size), WAIT_S)


class Site:
    """A server, what it has been asked, and how to reach it."""

    def __init__(self, http: HttpServer, port: int) -> None:
        self.http, self.port = http, port
        self.connections = http.connections

    @contextlib.asynccontextmanager
    async def client(self, **options: Any) -> AsyncIterator[Client]:
        connection = asyncio.open_connection("127.0.0.1", self.port, **options)
        reader, writer = await asyncio.wait_for(connection, WAIT_S)
        try:
            yield Client(reader, writer)
        finally:
            writer.transport.abort()

    async def until(self, happens: Callable[[], bool]) -> None:
        """Let the server go on until something is so."""
        async with asyncio.timeout(WAIT_S):
            while not happens():  # noqa: ASYNC110 (the server tells nobody)
                await asyncio.sleep(0)

    async def stop(self) -> None:
        self.http.ask_to_stop()
        await asyncio.wait_for(self.http.serving, WAIT_S)


@contextlib.asynccontextmanager
async def site(answer: Answer, tls: Certificate | None = None, **server: Any) -> AsyncIterator[Site]:
    """A server whose requests ``answer`` answers; ``server`` is its table of the configuration."""
    with contextlib.closing(listen("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        http = HttpServer(answer, listener, Server.model_validate(server), tls=tls, drain_s=2)
        await http.start()
        running = Site(http, port)
        try:
            yield running
        finally:
            await running.stop()
