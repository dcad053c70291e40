"""All connections of a server together: places, the end of them, and what else it has file descriptors for."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from modelyard.inprocess.http_server.places import Loss, Phase
from support.raw_http import WAIT_S, Site, site
from unit.inprocess.http_server.test_protocol import POST, Echo, refused

HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
WAIT = b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def echo() -> Echo:
    return Echo()


async def opened(served: Site, count: int, sent: bytes, stack: AsyncExitStack) -> list[Any]:
    clients = [await stack.enter_async_context(served.client()) for _ in range(count)]
    for client in clients:
        await client.send(sent)
    return clients


async def test_unfinished_requests_give_way_oldest_first(echo: Echo) -> None:
    async with site(echo, max_connections=16, max_connections_per_address=16) as served, AsyncExitStack() as stack:
        clients = await opened(served, 16, POST, stack)
        await served.until(lambda: len(served.connections.places) == 16)
        (newcomer,) = await opened(served, 1, HEALTH, stack)
        assert (await newcomer.answer()).startswith(b"HTTP/1.1 200 ")
        await served.until(lambda: len(served.connections.places) == 16)
        status, code, message = refused(await clients[0].rest())
        assert (status, code) == (503, "too_many_connections")
        assert "max_connections" in message
        await clients[1].send(b"\r\n")
        assert (await clients[1].answer()).startswith(b"HTTP/1.1 200 ")


async def test_health_is_answered_while_all_places_are_in_use(echo: Echo) -> None:
    async with site(echo, max_connections=16, max_connections_per_address=16) as served, AsyncExitStack() as stack:
        await opened(served, 16, WAIT, stack)
        await served.until(lambda: served.connections.places.count(Phase.ANSWER) == 16)
        (health,), (other,) = [await opened(served, 1, sent, stack) for sent in (HEALTH, POST + b"\r\n")]
        assert b"connection: close" in await health.answer()
        assert refused(await other.rest())[:2] == (503, "too_many_connections")
        echo.goes_on.set()


async def test_a_server_that_stops_waits_for_answers_alone(echo: Echo) -> None:
    async with site(echo) as served, AsyncExitStack() as stack:
        (running,) = await opened(served, 1, WAIT, stack)
        silent = await opened(served, 5, b"", stack)
        heads = await opened(served, 5, POST, stack)
        bodies = await opened(served, 5, POST + b"Content-Length: 9\r\n\r\nhi", stack)
        await served.until(lambda: served.connections.places.count(Phase.BODY) == 5)
        await served.until(lambda: len(served.connections.places) == 16)
        served.http.ask_to_stop()
        for client in (*silent, *heads):
            assert await client.rest() == b""
        for client in bodies:
            assert refused(await client.rest())[:2] == (503, "shutting_down")
        assert not served.http.serving.done()
        echo.goes_on.set()
        assert b"connection: close" in await running.answer()
        await asyncio.wait_for(served.http.serving, WAIT_S)


async def test_connections_are_accepted_again_when_there_are_file_descriptors(
    echo: Echo, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    genuine, failures = loop.sock_accept, iter(range(3))

    async def sock_accept(listener: socket.socket) -> Any:
        accepted: Awaitable[Any] = genuine(listener)
        connection, address = await accepted
        if next(failures, None) is not None:
            connection.close()
            raise OSError(errno.EMFILE, "Too many open files")
        return connection, address

    monkeypatch.setattr(loop, "sock_accept", sock_accept)
    with caplog.at_level(logging.WARNING):
        async with site(echo) as served, AsyncExitStack() as stack:
            for _ in range(3):
                (turned_away,) = await opened(served, 1, b"", stack)
                assert await turned_away.rest() == b""
            (newcomer,) = await opened(served, 1, HEALTH, stack)
            assert (await newcomer.answer()).startswith(b"HTTP/1.1 200 ")
    assert served.connections.losses.total[Loss.NO_FILES] == 3
    assert "not accepted for lack of file descriptors" in caplog.text


async def test_more_connections_than_files_are_warned_of(
    echo: Echo, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelyard.inprocess.http_server.server._max_files", lambda: 256)
    with caplog.at_level(logging.WARNING):
        async with site(echo, max_connections=1000) as served:
            assert served.connections.places.limit < 256
    assert "LimitNOFILE" in caplog.text
