"""The server on uvloop, on which the command runs: its transports, its TLS and its way to accept are others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from modelyard.inprocess.http_server.tls import certificate_of
from support.raw_http import site
from unit.inprocess.http_server import test_protocol as protocol
from unit.inprocess.http_server import test_server as server
from unit.inprocess.http_server import test_tls as tls
from unit.inprocess.http_server.test_protocol import POST, Echo, refused

folder = tls.folder

ON_A_SITE = [
    protocol.test_a_head_that_drips_is_late,
    protocol.test_a_connection_that_asks_nothing_is_closed_in_silence,
    protocol.test_an_upload_that_goes_on_is_waited_for,
    protocol.test_an_idle_connection_is_closed,
    protocol.test_further_requests_have_bounds_of_their_own,
    protocol.test_a_body_that_nobody_wants_is_read_so_that_its_sender_sees_the_answer,
    protocol.test_nothing_is_written_behind_an_answer_that_came_before_its_body,
    protocol.test_linger_ends,
]
WITH_ECHO = [
    protocol.test_few_requests_wait_on_one_connection,
    protocol.test_a_body_that_does_not_go_on_is_late,
    protocol.test_a_running_answer_has_no_deadline_here,
    protocol.test_a_client_that_does_not_read_is_given_up,
]
OF_A_SERVER = [
    server.test_unfinished_requests_give_way_oldest_first,
    server.test_health_is_answered_while_all_places_are_in_use,
    server.test_a_server_that_stops_waits_for_answers_alone,
]
OVER_TLS = [
    tls.test_requests_are_answered_over_tls,
    tls.test_a_handshake_has_the_deadline_of_a_head,
    tls.test_who_does_not_speak_tls_is_closed_and_counted,
    tls.test_a_server_that_stops_does_not_wait_for_handshakes,
]


def run(work: Callable[[], Awaitable[Any]]) -> None:
    async def working() -> None:
        await work()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(working())


@pytest.mark.parametrize("test", [*ON_A_SITE, *WITH_ECHO], ids=lambda test: test.__name__)
def test_a_connection_is_bounded(test: Callable[..., Awaitable[None]]) -> None:
    async def work() -> None:
        echo = Echo()
        async with site(echo) as served:
            await (test(served, echo) if test in WITH_ECHO else test(served))
        echo.goes_on.set()

    run(work)


@pytest.mark.parametrize(
    "sent",
    [
        POST + b"x: " + b"y" * 400_000,
        b"GET /" + b"a" * 400_000,
        POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nTrailer: " + b"y" * 400_000,
    ],
    ids=["header", "address", "trailer"],
)
def test_what_has_no_end_is_refused(sent: bytes) -> None:
    async def work() -> None:
        async with site(Echo()) as served, served.client() as client:
            await client.send(sent)
            assert refused(await client.rest())[0] in (400, 414, 431)

    run(work)


@pytest.mark.parametrize("test", OF_A_SERVER, ids=lambda test: test.__name__)
def test_places_are_kept(test: Callable[[Echo], Awaitable[None]]) -> None:
    async def work() -> None:
        await test(Echo())

    run(work)


@pytest.mark.parametrize("test", OVER_TLS, ids=lambda test: test.__name__)
def test_tls_is_spoken(test: Callable[[Path], Awaitable[None]], folder: Path) -> None:
    run(lambda: test(folder))


def test_a_client_that_does_not_read_over_tls_is_given_up(folder: Path) -> None:
    async def work() -> None:
        echo = Echo()
        context = tls.client_context()
        async with (
            site(echo, certificate_of(tls.settings(folder))) as served,
            served.client(ssl=context, server_hostname="localhost", limit=1) as client,
        ):
            await client.send(b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert await client.chunk(1)
            await served.until(lambda: served.connections.unread == 1)
            await protocol.given_up(served, echo)

    run(work)
