"""Connections in numbers, which do nothing, or do it slowly."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from attacks.sockets import Connection, connected, post, whole

CROWD: Final = 1000
CLOSED_WITHIN_S: Final = 45.0

UNFINISHED: Final = {
    "nothing": b"",
    "half of a head": b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nx: ",
    "half of a body": post("/v1/chat/completions", "Content-Length: 1000") + b'{"model":',
    "half of a chunk": post("/v1/chat/completions", "Transfer-Encoding: chunked") + b"ffff\r\n{",
}


@contextlib.asynccontextmanager
async def crowd(url: str, said: bytes, size: int = CROWD):  # type: ignore[no-untyped-def]
    """Connections on which ``said`` was said, and nothing else is."""
    async with contextlib.AsyncExitStack() as stack:
        connections: list[Connection] = []
        for _ in range(size):
            try:
                connection = await stack.enter_async_context(connected(url))
            except OSError:
                continue
            await connection.send(said)
            connections.append(connection)
        yield connections


async def closed_in_time(connections: list[Connection]) -> int:
    """How many of them the server closes within ``CLOSED_WITHIN_S``."""
    closed = await asyncio.gather(*(connection.is_closed(CLOSED_WITHIN_S) for connection in connections))
    return sum(closed)


async def answered(url: str) -> int:
    """The status of the answer to an honest client, beside a crowd."""
    body = b'{"model":"smollm2","prompt":"Once","max_tokens":4}'
    async with connected(url) as connection:
        await connection.send(whole("/v1/completions", body))
        return await connection.status()


async def drip(connection: Connection, seconds: int) -> int:
    """Send a byte a second, as long as the server takes them; for how many seconds it did."""
    for second in range(seconds):
        if not await connection.send(b"a"):
            return second
        await asyncio.sleep(1)
    return seconds
