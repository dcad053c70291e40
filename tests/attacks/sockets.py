"""Raw connections to a server, which say what no HTTP client would."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Final
from urllib.parse import urlsplit

PATIENCE_S: Final = 60.0
"""How long an attacker waits for anything."""


class Connection:
    """One connection, and what the server said on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, data: bytes) -> bool:
        """Send bytes; whether the server took them."""
        try:
            self._writer.write(data)
            async with asyncio.timeout(PATIENCE_S):
                await self._writer.drain()
        except OSError:
            return False
        return not self._writer.transport.is_closing()

    async def send_all(self, pieces: Iterable[bytes]) -> int:
        """Send pieces until the server takes no more; how many bytes it took."""
        sent = 0
        for piece in pieces:
            if not await self.send(piece):
                break
            sent += len(piece)
        return sent

    async def status(self) -> int:
        """The status of the answer; 0 where the connection is closed without one."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                line = await self._reader.readline()
        except (OSError, ValueError):
            return 0
        return int(line.split()[1]) if line.startswith(b"HTTP/1.") else 0

    async def is_closed(self, within_s: float) -> bool:
        """Whether the server closes the connection in time, whatever it says before."""
        try:
            async with asyncio.timeout(within_s):
                while await self._reader.read(1 << 16):
                    pass
        except TimeoutError:
            return False
        except OSError:
            return True
        return True


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    """A connection for the length of the context."""
    address = urlsplit(url)
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.transport.abort()


def post(path: str, *headers: str) -> bytes:
    """The head of a request with a body of JSON."""
    lines = (f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def whole(path: str, body: bytes) -> bytes:
    """A request with its body."""
    return post(path, f"Content-Length: {len(body)}", "Connection: close") + body
