"""One connection's bounds, by bytes on a socket: what is refused, how, and that the connection is closed then."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from modelyard.api.middleware.body_intake import MAX_BODY_BYTES
from modelyard.inprocess.http_server.limits import (
    BODY_GRACE_S,
    MAX_BODY_BYTES_BEFORE_START,
    MAX_BODY_PAUSE_S,
    MAX_FRAMING_BYTES,
    MAX_HEAD_BYTES,
    MAX_HEAD_S,
    MAX_HEADER_LINES,
    MAX_IDLE_S,
    MAX_LINGER_S,
    MAX_PIPELINED,
    MAX_URL_BYTES,
    STALL_S,
)
from modelyard.inprocess.http_server.places import Loss, Phase
from support.raw_http import Site, site

POST = b"POST /v1/chat HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


class Echo:
    """Answers with what it got, except for paths that say otherwise; it notes what it is asked, and what ends."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.ended = 0
        self.goes_on = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        try:
            await self._answer(scope, receive, send)
        finally:
            self.ended += 1

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/refuse":
            await self._send(send, 413, b"no")
            return
        if scope["path"] == "/endless":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
                message = await asyncio.wait_for(_now(receive), None)
                if message is not None and message["type"] == "http.disconnect":
                    return
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            if not message.get("more_body"):
                break
        if scope["path"] == "/wait":
            await self.goes_on.wait()
        await self._send(send, 200, b"%d" % len(body))

    async def _send(self, send: Send, status: int, body: bytes) -> None:
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def _now(receive: Receive) -> Any:
    """What is there to be received without waiting for it."""
    receiving = asyncio.ensure_future(receive())
    await asyncio.sleep(0)
    if receiving.done():
        return receiving.result()
    receiving.cancel()
    return None


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
async def served(echo: Echo) -> AsyncIterator[Site]:
    async with site(echo) as running:
        yield running
    echo.goes_on.set()


def refused(answer: bytes) -> tuple[int, str, str]:
    """Status, code and message of a refusal; the headers of all answers are there."""
    head, _, body = answer.partition(b"\r\n\r\n")
    for line in (b"connection: close", b"x-content-type-options: nosniff", b"cache-control: no-store"):
        assert line in head.lower()
    error = json.loads(body)["error"]
    return int(head.split()[1]), error["code"], error["message"]


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"GET /" + b"a" * MAX_URL_BYTES, 414, "uri_too_long"),
        (b"GET /?" + b"a" * MAX_URL_BYTES + b" HTTP/1.1\r\n\r\n", 414, "uri_too_long"),
        (POST + b"x: y\r\n" * (MAX_HEADER_LINES + 1), 431, "request_head_too_large"),
        (POST + b"x: " + b"y" * (2 * MAX_HEAD_BYTES), 431, "request_head_too_large"),
        (POST + b"x" * (2 * MAX_HEAD_BYTES), 431, "request_head_too_large"),
        (POST + b"x: " + b" " * (2 * MAX_HEAD_BYTES), 431, "request_head_too_large"),
        (POST + (b"x: " + b"y" * 1000 + b"\r\n") * 70 + b"\r\n", 431, "request_head_too_large"),
        (b"\r\n" * MAX_HEAD_BYTES, 431, "request_head_too_large"),
        (b"A" * 100, 400, "invalid_request"),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400, "invalid_request"),
        (POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "invalid_request"),
        (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "invalid_request"),
        (POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nhi", 400, "invalid_request"),
        (b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example\r\n\r\n", 400, "invalid_request"),
        (CHUNKED + b"1\r\nx\r\n0\r\nTrailer: y\r\n\r\n", 400, "invalid_request"),
        (CHUNKED + b"1\r\nx\r\n0\r\nTrailer: " + b"y" * 3 * MAX_HEAD_BYTES, 400, "invalid_request"),
        (CHUNKED + b"1;" + b"e" * 3 * MAX_HEAD_BYTES, 400, "invalid_request"),
        (CHUNKED + (b"1;" + b"e" * 1000 + b"\r\nx\r\n") * 200, 400, "invalid_request"),
        (CHUNKED + b"zz\r\n", 400, "invalid_request"),
    ],
    ids=range(19),
)
async def test_what_has_no_end_or_no_sense_is_refused(
    served: Site, echo: Echo, sent: bytes, status: int, code: str
) -> None:
    async with served.client() as client:
        await client.send(sent)
        assert refused(await client.rest())[:2] == (status, code)
    await served.until(lambda: len(echo.scopes) == echo.ended)
    assert served.connections.losses.total[Loss.UNFIT] == 1


async def test_a_refusal_is_written_in_the_words_of_its_dialect(served: Site) -> None:
    async with served.client() as client:
        await client.send(b"POST /v1/messages HTTP/1.1\r\n" + b"x: y\r\n" * 200)
        body = json.loads((await client.rest()).partition(b"\r\n\r\n")[2])
        assert (body["type"], set(body["error"])) == ("error", {"type", "message"})
    async with served.client() as client:
        await client.send(b"POST /api/chat HTTP/1.1\r\n" + b"x: y\r\n" * 200)
        body = json.loads((await client.rest()).partition(b"\r\n\r\n")[2])
        assert body == {"error": f"The head of the request has more than {MAX_HEADER_LINES} header lines."}


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /" + b"a" * (MAX_URL_BYTES - 1) + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        POST + b"x: y\r\n" * (MAX_HEADER_LINES - 1) + b"\r\n",
        POST + b"x: " + b"y" * (MAX_HEAD_BYTES - 200) + b"\r\n\r\n",
        POST + b"Content-Length: 300000\r\n\r\n" + b"x" * 300_000,
        CHUNKED + b"1\r\nx\r\n" * (MAX_FRAMING_BYTES // 6) + b"0\r\n\r\n",
        CHUNKED + b"20000\r\n" + b"x" * 0x20000 + b"\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ],
    ids=range(7),
)
async def test_what_is_within_the_bounds_is_answered(served: Site, sent: bytes) -> None:
    async with served.client() as client:
        await client.send(sent)
        assert (await client.answer()).startswith(b"HTTP/1.1 200 ")


async def test_further_requests_have_bounds_of_their_own(served: Site) -> None:
    """What was sent before does not count against them, whether it came in one piece or in many."""
    fat = POST + b"x: " + b"y" * 40_000 + b"\r\nContent-Length: 5\r\n\r\nhello"
    async with served.client() as client:
        for _ in range(3):
            await client.send(fat)
            assert (await client.answer()).endswith(b"5")
        await client.send(fat * 3)
        for _ in range(3):
            assert (await client.answer()).endswith(b"5")
        await client.send(POST + b"x: y\r\n" * 200)
        assert refused(await client.rest())[0] == 431


async def test_few_requests_wait_on_one_connection(served: Site, echo: Echo) -> None:
    get = b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with served.client() as client:
        await client.send(get * (MAX_PIPELINED + 1))
        await served.until(lambda: len(echo.scopes) == 1)
        echo.goes_on.set()
        for _ in range(MAX_PIPELINED + 1):
            assert (await client.answer()).startswith(b"HTTP/1.1 200 ")
    echo.goes_on.clear()
    async with served.client() as client:
        await client.send(get * 5000)
        assert refused(await client.rest())[0] == 400
    echo.goes_on.set()


async def test_a_head_that_drips_is_late(served: Site) -> None:
    async with served.client() as client:
        await client.send(POST)
        await served.until(lambda: served.connections.places.count(Phase.HEAD) == 1)
        for _ in range(4):
            served.connections.advance(MAX_HEAD_S / 4)
            await client.send(b"x: y\r\n")
        served.connections.advance(1)
        assert refused(await client.rest())[:2] == (408, "request_timeout")


async def test_a_connection_that_asks_nothing_is_closed_in_silence(served: Site) -> None:
    async with served.client() as client:
        await served.until(lambda: len(served.connections.places) == 1)
        served.connections.advance(MAX_HEAD_S + 1)
        assert await client.rest() == b""


async def test_a_body_that_does_not_go_on_is_late(served: Site, echo: Echo) -> None:
    # A request whose body is short is not begun before it is there.
    for sent, begun in ((5, 0), (MAX_BODY_BYTES_BEFORE_START, 1)):
        async with served.client() as client:
            await client.send(POST + b"Content-Length: 100000\r\n\r\n" + b"x" * sent)
            await served.until(lambda: served.connections.places.count(Phase.BODY) == 1)
            await served.until(lambda begun=begun: len(echo.scopes) == begun)
            served.connections.advance(MAX_BODY_PAUSE_S + 1)
            assert refused(await client.rest())[:2] == (408, "request_timeout")
        await served.until(lambda begun=begun: echo.ended == begun)
    assert len(echo.scopes) == 1


async def test_a_short_body_is_there_before_its_request_is_begun(served: Site, echo: Echo) -> None:
    async with served.client() as client:
        await client.send(POST + b"Content-Length: 10\r\n\r\nhello")
        await served.until(lambda: served.connections.places.count(Phase.BODY) == 1)
        assert echo.scopes == []
        await client.send(b"world")
        assert (await client.answer()).endswith(b"10")


async def test_a_body_that_says_it_is_too_large_is_not_waited_for(served: Site) -> None:
    async with served.client() as client:
        await client.send(b"POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1))
        assert (await client.answer()).startswith(b"HTTP/1.1 413 ")


async def test_an_answer_before_the_end_of_a_body_is_seen_also_where_the_connection_is_to_be_closed(
    served: Site,
) -> None:
    body = b"x" * 3_000_000
    head = b"POST /refuse HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with served.client() as client:
        await client.send(head + body)
        answer = await client.rest()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.endswith(b"no")


async def test_a_client_that_waits_to_be_told_to_go_on_is_told(served: Site) -> None:
    async with served.client() as client:
        await client.send(POST + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert (await client.head()).startswith(b"HTTP/1.1 100 ")
        await client.send(b"hello")
        assert (await client.answer()).endswith(b"5")


async def test_an_upload_that_goes_on_is_waited_for(served: Site) -> None:
    async with served.client() as client:
        await client.send(POST + b"Content-Length: 400000\r\n\r\n")
        await served.until(lambda: served.connections.places.count(Phase.BODY) == 1)
        place = next(iter(served.connections.places.in_phase(Phase.BODY)))
        for number in range(1, 10):
            await client.send(b"x" * 40_000)
            await served.until(lambda number=number: place.received == number * 40_000)
            served.connections.advance(BODY_GRACE_S - 1)
        await client.send(b"x" * 40_000)
        assert (await client.answer()).endswith(b"400000")


async def test_an_idle_connection_is_closed(served: Site) -> None:
    async with served.client() as client:
        await client.send(POST + b"\r\n")
        assert (await client.answer()).endswith(b"0")
        served.connections.advance(MAX_IDLE_S + 1)
        assert await client.rest() == b""


async def test_a_running_answer_has_no_deadline_here(served: Site, echo: Echo) -> None:
    async with served.client() as client:
        await client.send(b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await served.until(lambda: served.connections.places.count(Phase.ANSWER) == 1)
        served.connections.advance(10_000)
        echo.goes_on.set()
        assert (await client.answer()).startswith(b"HTTP/1.1 200 ")


async def given_up(served: Site, echo: Echo) -> None:
    """Let time pass until the answer has ended: the kernel's buffers may still fill up."""

    def has_ended() -> bool:
        served.connections.advance(STALL_S + 1)
        return echo.ended == 1

    await served.until(has_ended)


async def test_a_client_that_does_not_read_is_given_up(served: Site, echo: Echo) -> None:
    async with served.client(limit=1) as client:
        await client.send(b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await client.chunk(1)
        await served.until(lambda: served.connections.unread == 1)
        await given_up(served, echo)
    assert served.connections.losses.total[Loss.STALLED] == 1


async def test_a_body_that_nobody_wants_is_read_so_that_its_sender_sees_the_answer(served: Site) -> None:
    async with served.client() as client:
        await client.send(b"POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 3_000_000)
        assert (await client.answer()).startswith(b"HTTP/1.1 413 ")
        await client.send(POST + b"Content-Length: 2\r\n\r\nhi")
        assert (await client.answer()).endswith(b"2")


async def test_nothing_is_written_behind_an_answer_that_came_before_its_body(served: Site) -> None:
    async with served.client() as client:
        await client.send(b"POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 40_000)
        assert (await client.answer()).startswith(b"HTTP/1.1 413 ")
        served.connections.advance(MAX_BODY_PAUSE_S + 1)
        assert await client.rest() == b""


async def test_the_host_of_a_whole_url_is_one_of_the_request(served: Site, echo: Echo) -> None:
    async with served.client() as client:
        await client.send(b"GET http://evil.example:99/x?y HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await client.answer()
    (scope,) = echo.scopes
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    assert (scope["path"], hosts) == ("/x", [b"localhost", b"evil.example:99"])


FORWARDED = b"X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: models.example\r\n\r\n"


async def test_a_proxy_is_not_believed_unless_it_is_trusted(served: Site, echo: Echo) -> None:
    async with served.client() as client:
        await client.send(POST + FORWARDED)
        await client.answer()
    (scope,) = echo.scopes
    assert (scope["client"][0], scope["scheme"]) == ("127.0.0.1", "http")
    assert [value for name, value in scope["headers"] if name == b"host"] == [b"localhost"]


async def test_a_trusted_proxy_says_who_asks_for_what(echo: Echo) -> None:
    async with site(echo, trusted_proxies=["127.0.0.0/8"]) as served, served.client() as client:
        await client.send(POST + FORWARDED)
        await client.answer()
        (scope,) = echo.scopes
        assert (scope["client"][0], scope["scheme"]) == ("192.0.2.7", "https")
        assert [value for name, value in scope["headers"] if name == b"host"] == [b"models.example"]


async def test_a_client_behind_a_proxy_has_a_share_of_its_own(echo: Echo) -> None:
    wait = b"GET /wait HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n"
    settings = {"trusted_proxies": ["127.0.0.1"], "max_connections_per_address": 1}
    async with (
        site(echo, **settings) as served,
        served.client() as first,
        served.client() as second,
        served.client() as other,
    ):
        await first.send(wait)
        await served.until(lambda: len(echo.scopes) == 1)
        await second.send(wait)
        assert refused(await second.rest())[:2] == (503, "too_many_connections")
        await other.send(POST + b"X-Forwarded-For: 192.0.2.8\r\n\r\n")
        assert (await other.answer()).startswith(b"HTTP/1.1 200 ")
        echo.goes_on.set()
        assert (await first.answer()).startswith(b"HTTP/1.1 200 ")
        await other.send(wait)
        assert (await other.answer()).startswith(b"HTTP/1.1 200 ")


async def test_linger_ends(served: Site) -> None:
    """Who is refused and does not leave is cut."""
    async with served.client() as client:
        await client.send(b"A" * 100)
        assert refused(await client.rest())[0] == 400
        served.connections.advance(MAX_LINGER_S + 1)
        await served.until(lambda: len(served.connections.places) == 0)


@pytest.mark.parametrize("has_length", [True, False])
async def test_a_client_of_http_1_0_gets_no_chunks_and_the_end_of_the_connection(has_length: bool) -> None:
    async def stream(_scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"11")] if has_length else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for piece in (b"Hello", b" ", b"world"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async with site(stream) as running, running.client() as client:
        await client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        answer = await client.rest()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert body == b"Hello world"
    assert b"connection: close" in head.lower()
    assert b"transfer-encoding" not in head.lower()
