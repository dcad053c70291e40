"""MCP servers over the network: streamable HTTP, server-sent events, WebSocket; and servers that requests name."""

import asyncio
import json
import signal
import subprocess
import sys
from contextlib import asynccontextmanager

import pytest
import websockets.asyncio.server

from modelyard.errors import InvalidRequest
from modelyard.mcp import connection, request_servers, session
from modelyard.mcp.request_servers import RequestServer, connect_for_request
from support.mcp_clients import PEERS, call, connected, free_port, mcp_config, running, tools_of, until
from support.mcp_peers.raw_peer import serve_websocket

TOKEN = "tell-nobody"


class FastPeer:
    """A server of fastmcp, in a process of its own."""

    def __init__(self, kind: str) -> None:
        self.kind, self.port = kind, free_port()
        self.url = f"http://127.0.0.1:{self.port}/{'sse' if kind == 'sse' else 'mcp'}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, str(PEERS / "fastmcp_peer.py"), self.kind, str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module", params=["http", "sse"])
def fast(request):
    peer = FastPeer(request.param)
    peer.start()
    yield peer
    peer.kill()


def table(peer, **keys):
    return {"name": "fast", "url": peer.url, "transport": peer.kind, **keys}


@asynccontextmanager
async def connected_to(peer, **keys):
    """Enter with a client that is connected, once the server has started."""
    async with connected(table(peer, **keys), max_concurrent_calls=20) as clients:
        await until(lambda: clients.statuses()[0].state == "connected")
        yield clients


async def test_tools_are_called_over_http_and_server_sent_events(fast):
    async with connected_to(fast, bearer_token=TOKEN, headers={"X-Own": "1"}, resources=["note://one"]) as clients:
        tools = tools_of(clients)
        assert tools["add"].name == "fast_add"
        assert tools["add"].is_read_only
        assert (await call(clients, "add", a=2, b=3)).text == "5"
        failed = await call(clients, "fail")
        assert (failed.is_error, "it cannot be done" in failed.text) == (True, True)
        assert (await call(clients, "read_resource", uri="note://one")).text == "the note"
        sent = json.loads((await call(clients, "headers")).text)
        assert (sent["authorization"], sent["x-own"]) == (f"Bearer {TOKEN}", "1")
        reports = []
        result = await tools["slow"].run({"seconds": 0.6}, reports.append)
        assert (result.text, reports[-1].message) == ("done", "step 2")
        assert "x" * 100 in (await call(clients, "large", size=200_000)).text


async def test_a_flood_over_http_fails_its_call_and_the_next_one_works(fast):
    async with connected_to(fast) as clients:
        result = await call(clients, "large", size=100_000_000)
        assert result.is_error
        assert len(result.text) < 2000
        await until(lambda: clients.statuses()[0].state == "connected")
        assert (await call(clients, "add", a=1, b=1)).text == "2"


@pytest.mark.parametrize("kind", ["http", "sse"])
async def test_a_server_that_is_killed_and_comes_back_is_connected_again(kind, monkeypatch):
    monkeypatch.setattr(connection, "CHECK_S", 0.5)
    peer = FastPeer(kind)
    peer.start()
    try:
        async with connected_to(peer) as clients:
            ten = [asyncio.create_task(call(clients, "slow", seconds=60)) for _ in range(10)]
            await until(lambda: running(clients) == 10)
            peer.kill()
            async with asyncio.timeout(15):
                results = await asyncio.gather(*ten)
            assert all(result.is_error for result in results)
            await until(lambda: clients.statuses()[0].state != "connected")
            peer.start()
            await until(lambda: clients.statuses()[0].state == "connected")
            assert (await call(clients, "add", a=1, b=1)).text == "2"
    finally:
        peer.kill()


async def test_a_server_that_answers_nothing_any_more_is_given_up_and_closed_in_time(monkeypatch):
    monkeypatch.setattr(connection, "CHECK_S", 0.2)
    monkeypatch.setattr(session, "PING_S", 0.5)
    peer = FastPeer("http")
    peer.start()
    try:
        async with connected_to(peer) as clients:
            peer.process.send_signal(signal.SIGSTOP)
            await until(lambda: clients.statuses()[0].state != "connected")
            assert clients.statuses()[0].reason == "it does not answer in time"
            monkeypatch.setattr(connection, "CHECK_S", 600)
            peer.process.send_signal(signal.SIGCONT)
            await until(lambda: clients.statuses()[0].state == "connected")
            peer.process.send_signal(signal.SIGSTOP)
    finally:
        peer.kill()


@asynccontextmanager
async def websocket_peer(port=0):
    async with websockets.asyncio.server.serve(serve_websocket, "127.0.0.1", port, subprotocols=["mcp"]) as server:
        yield server


def port_of(server):
    return next(iter(server.sockets)).getsockname()[1]


async def test_tools_are_called_over_websocket_which_reconnects_after_a_loss():
    async with websocket_peer() as server:
        port = port_of(server)
        async with connected({"name": "ws", "url": f"ws://127.0.0.1:{port}"}, max_concurrent_calls=20) as clients:
            assert (await call(clients, "echo", a=1)).text == '{"a": 1}'
            flood = await call(clients, "flood")
            assert flood.is_error
            await until(lambda: clients.statuses()[0].state == "connected")
            ten = [asyncio.create_task(call(clients, "hang")) for _ in range(10)]
            await until(lambda: running(clients) == 10)
            server.close()
            async with asyncio.timeout(15):
                results = await asyncio.gather(*ten)
            assert all("was lost during the call" in result.text for result in results)
            await server.wait_closed()
            async with websocket_peer(port):
                await until(lambda: clients.statuses()[0].state == "connected")
                assert (await call(clients, "echo", a=2)).text == '{"a": 2}'


@pytest.mark.parametrize("scheme", ["http", "ws"])
async def test_an_address_where_nothing_listens_has_its_reason(scheme):
    async with connected({"name": "a", "url": f"{scheme}://127.0.0.1:{free_port()}/mcp"}) as clients:
        (status,) = clients.statuses()
        assert (status.state, status.reason) == ("failed", "nothing listens there")


async def test_a_refused_access_is_told_and_no_secret_is():
    async def refuse(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{port_of(server)}/{TOKEN}"
        async with connected({"name": "a", "url": url, "bearer_token": TOKEN}) as clients:
            (status,) = clients.statuses()
            assert status.reason == "it refuses the access (HTTP status 401)"
            assert TOKEN not in repr((status, clients._connections))


# Servers that requests name


def of_request(url, **keys):
    return RequestServer("my server", url, **keys)


def allowing(*hosts):
    return mcp_config(allow_request_servers=list(hosts))


@pytest.mark.parametrize("fast", ["http"], indirect=True)
async def test_a_server_that_a_request_names_is_connected_for_its_answer(fast):
    async with connected_to(fast):
        pass
    named = of_request(
        fast.url, headers={"X-Own": "1"}, authorization=TOKEN, allowed_tools=frozenset({"add", "headers"})
    )
    context = connect_for_request(named, allowing("127.0.0.1"), taken={"my_server_add"})
    # Entered and left by different tasks, as the handler of a request and the stream of its answer are.
    add, headers = await asyncio.create_task(context.__aenter__())
    assert (add.server, add.own_name, add.name.startswith("my_server_add_")) == ("my server", "add", True)
    assert (await add.run({"a": 1, "b": 2}, lambda _: None)).text == "3"
    sent = json.loads((await headers.run({}, lambda _: None)).text)
    assert (sent["authorization"], sent["x-own"], sent["host"]) == (f"Bearer {TOKEN}", "1", f"127.0.0.1:{fast.port}")
    await asyncio.create_task(context.__aexit__(None, None, None))
    assert (await add.run({"a": 1, "b": 2}, lambda _: None)).is_error


@pytest.mark.parametrize(
    ("url", "hosts", "why"),
    [
        ("https://a.example/mcp", [], "Its operator can allow hosts with allow_request_servers"),
        ("https://a.example/mcp", ["b.example"], "is none that this server connects to"),
        ("https://a.example/mcp", ["*.a.example"], "is none that this server connects to"),
        ("ftp://a.example/mcp", ["a.example"], "must be an http or https URL"),
        ("https://[a/mcp", ["a.example"], "is none. Check it"),
        ("https://a.example:port/mcp", ["a.example"], "is none. Check it"),
        ("https://u:p@a.example/mcp", ["a.example"], "has a user name or a password"),
        (f"https://a.example/{'x' * 3000}", ["a.example"], "at most 2048 characters"),
        ("https://a.invalid/mcp", ["*.invalid"], "its host is not known"),
        ("http://127.0.0.1:9/mcp", ["127.0.0.1"], "nothing listens there"),
    ],
)
async def test_a_server_that_requests_may_not_name_is_refused(url, hosts, why):
    with pytest.raises(InvalidRequest, match=why) as refused:
        async with connect_for_request(of_request(url), allowing(*hosts), param="tools[0]"):
            pass
    assert refused.value.param == "tools[0]"
    assert url not in str(refused.value)


async def test_a_name_with_a_private_address_is_refused(monkeypatch):
    async def resolve(*_args, **_keys):
        return [(2, 1, 6, "", ("93.184.216.34", 80)), (2, 1, 6, "", ("10.0.0.1", 80))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    with pytest.raises(InvalidRequest, match="has a private address"):
        async with connect_for_request(of_request("http://a.example/mcp"), allowing("a.example")):
            pass


@pytest.mark.parametrize("name", ["Host", "content-length", "Mcp-Session-Id", "", "a b", "ü", "a\n"])
async def test_headers_that_belong_to_the_transport_are_refused(name):
    named = of_request("http://127.0.0.1:9/mcp", headers={name: "1"})
    with pytest.raises(InvalidRequest, match="cannot be sent"):
        async with connect_for_request(named, allowing("127.0.0.1")):
            pass


async def test_a_redirect_is_not_followed():
    async def redirect(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 307 Elsewhere\r\nlocation: /other\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(redirect, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{port_of(server)}/mcp"
        with pytest.raises(InvalidRequest, match="redirects to another URL"):
            async with connect_for_request(of_request(url), allowing("127.0.0.1")):
                pass


def test_secrets_of_a_request_are_not_shown():
    named = of_request(f"http://a/{TOKEN}", headers={"X": TOKEN}, authorization=TOKEN)
    assert TOKEN not in repr(named)


async def test_a_reason_hides_the_secrets_of_a_request_and_nothing_else():
    async def refuse(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 401 Who\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        named = of_request(f"http://127.0.0.1:{port_of(server)}/mcp", headers={"X-Empty": "", "X-Short": "e"})
        with pytest.raises(InvalidRequest, match=r"cannot be used: it refuses the access \(HTTP status 401\)\."):
            async with connect_for_request(named, allowing("127.0.0.1")):
                pass


async def test_a_request_that_is_cancelled_gives_up_to_connect_at_once():
    arrived = asyncio.Event()

    async def hang(reader, writer):
        arrived.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        named = of_request(f"http://127.0.0.1:{port_of(server)}/mcp")
        connecting = asyncio.create_task(connect_for_request(named, allowing("127.0.0.1")).__aenter__())
        async with asyncio.timeout(10):
            await arrived.wait()
        connecting.cancel()
        done, _ = await asyncio.wait((connecting,), timeout=request_servers.CONNECT_S / 3)
        assert done
