"""Clients of /mcp that mean harm, or that break: others go on, and memory stays flat."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from modelyard.api.mcp.sessions import MAX_SESSIONS
from modelyard.api.mcp.transport import Transport
from modelyard.config import validate_config
from modelyard.protocol.requests import Cancel, Submit
from support.gguf_writer import tiny_model, write
from support.mcp_clients import resident_bytes
from support.scripted_engines import ScriptedEngines
from support.server import WAIT_S, RunningServer, serving

HEADERS = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
# What the allocator keeps of the requests: 8 MiB were measured.
MAX_GROWTH_BYTES = 60 << 20


def request(number: int, method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


INITIALIZE = request(
    1,
    "initialize",
    protocolVersion="2025-11-25",
    capabilities={},
    clientInfo={"name": "test", "version": "1"},
)


# A stream of events without a session.
LISTEN = request(
    5,
    "subscriptions/listen",
    notifications={"resourcesListChanged": True},
    _meta={
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    },
)
LISTEN_HEADERS = {**HEADERS, "mcp-protocol-version": "2026-07-28", "mcp-method": "subscriptions/listen"}


@pytest.fixture(scope="module")
def engines() -> Iterator[ScriptedEngines]:
    engines = ScriptedEngines()
    yield engines
    assert engines.end()


@pytest.fixture(scope="module")
def server(engines: ScriptedEngines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server whose model ``m`` answers as a test says."""
    folder = tmp_path_factory.mktemp("models")
    write(folder / "m.gguf", tiny_model())
    config = validate_config({"models": [{"model_id": "m.gguf", "alias": "m"}]}, source="test", base=folder)
    with serving(config, engines.make_handle) as running:
        yield running


def open_session(client: httpx.Client) -> dict[str, str]:
    answer = client.post("/mcp", json=INITIALIZE, headers=HEADERS)
    assert answer.status_code == 200
    return {**HEADERS, "mcp-session-id": answer.headers["mcp-session-id"]}


def client_of(server: RunningServer) -> httpx.Client:
    return httpx.Client(base_url=server.url, timeout=WAIT_S)


def transport_of(server: RunningServer) -> Transport:
    transport: Transport = server.underway.app.state.mcp.started
    return transport


def open_many(server: RunningServer, number: int) -> None:
    with client_of(server) as client:
        for _ in range(number):
            open_session(client)


def test_sessions_without_end_take_no_memory_and_streams_go_on(server: RunningServer, engines: ScriptedEngines) -> None:
    flood(server, engines, 1_000)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_ten_thousand_sessions_take_no_memory(server: RunningServer, engines: ScriptedEngines) -> None:
    flood(server, engines, 10_000)


def flood(server: RunningServer, engines: ScriptedEngines, number: int) -> None:
    """Open sessions beside a stream that goes on."""
    engine = engines.started("m")
    open_many(server, MAX_SESSIONS)
    gc.collect()
    before = resident_bytes()
    body = {"messages": [{"role": "user", "content": "Hi"}], "stream": True}
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=WAIT_S) as stream:
        lines = stream.iter_lines()
        for step in range(4):
            open_many(server, number // 4)
            engine.say(f"step {step}")
            assert any(f"step {step}" in line for line in lines)
        engine.finish()
        assert any("[DONE]" in line for line in lines)
    gc.collect()
    assert server.read(lambda: len(transport_of(server).sessions)) == MAX_SESSIONS
    assert resident_bytes() - before < MAX_GROWTH_BYTES


def test_a_client_that_never_reads_holds_up_nobody(server: RunningServer, engines: ScriptedEngines) -> None:
    engine = engines.started("m")
    submits = len(engine.heard(Submit, 0))
    cancels = len(engine.heard(Cancel, 0))
    with client_of(server) as client:
        session = open_session(client)
        arguments = {"prompt": "Hi", "model": "m"}
        call = request(2, "tools/call", name="chat", arguments=arguments, _meta={"progressToken": 1})
        address = urlsplit(server.url)
        with socket.create_connection((str(address.hostname), address.port or 0)) as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            content = json.dumps(call).encode()
            fields = {"host": "localhost", **session, "content-length": len(content)}
            head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
            deaf.sendall(f"POST /mcp HTTP/1.1\r\n{head}\r\n".encode() + content)
            engine.heard(Submit, submits + 1)
            for _ in range(100):
                engine.say("x" * 100_000)
            # Another client, and another session, are served meanwhile.
            listed = client.post("/mcp", json=request(3, "tools/list"), headers=open_session(client))
            assert listed.status_code == 200
            assert client.get("/v1/models").status_code == 200
        engine.heard(Cancel, cancels + 1)
    server.settle()


def test_pages_of_other_origins_are_refused(server: RunningServer) -> None:
    with client_of(server) as client:
        session = open_session(client)
        for method in ("POST", "GET", "DELETE"):
            body = request(2, "tools/list") if method == "POST" else None
            for foreign in ({"origin": "https://evil.example"}, {"host": "evil.example"}):
                answer = client.request(method, "/mcp", json=body, headers={**session, **foreign})
                assert answer.status_code == 403, (method, foreign)
        assert client.post("/mcp", json=request(2, "tools/list"), headers=session).status_code == 200


def test_ten_chats_run_at_the_same_time(server: RunningServer, engines: ScriptedEngines) -> None:
    engine = engines.started("m")
    submits = len(engine.heard(Submit, 0))

    async def chat(client: httpx.AsyncClient, session: dict[str, str], number: int) -> httpx.Response:
        call = request(number, "tools/call", name="chat", arguments={"prompt": f"Hi {number}"})
        return await client.post("/mcp", json=call, headers=session)

    async def chats() -> list[httpx.Response]:
        with client_of(server) as opening:
            sessions = [open_session(opening) for _ in range(5)]
        async with httpx.AsyncClient(base_url=server.url, timeout=WAIT_S) as client:
            asked = [asyncio.create_task(chat(client, sessions[number // 2], number)) for number in range(10)]
            await asyncio.to_thread(engine.heard, Submit, submits + 10)
            engine.say("Hello")
            engine.finish()
            return await asyncio.gather(*asked)

    answers = asyncio.run(chats())
    for number, answer in enumerate(answers):
        (line,) = [line for line in answer.text.splitlines() if line.startswith("data: ")]
        message = json.loads(line.removeprefix("data: "))
        assert message["id"] == number
        assert message["result"]["content"][0]["text"] == "Hello"


def test_a_server_that_stops_ends_the_streams_of_events(tmp_path: Path) -> None:
    write(tmp_path / "m.gguf", tiny_model())
    config = validate_config({"models": [{"model_id": "m.gguf", "alias": "m"}]}, source="test", base=tmp_path)
    engines = ScriptedEngines(answer=lambda _: ["Hello"])
    ended: list[str] = []
    with serving(config, engines.make_handle) as server, client_of(server) as client:
        session = open_session(client)
        with (
            client.stream("GET", "/mcp", headers=session) as events,
            client.stream("POST", "/mcp", json=LISTEN, headers=LISTEN_HEADERS) as listened,
        ):
            assert events.status_code == 200
            lines = listened.iter_lines()
            assert any("notifications/subscriptions/acknowledged" in line for line in lines)
            # One observer serves all streams, so that the count of both is the count of streams.
            assert server.read(lambda: transport_of(server).spare_streams) == 1
            assert server.read(lambda: server.yard.monitor.dismiss_observers(for_good=False)) == 1
            ended += list(events.iter_lines())
            assert any('"result"' in line for line in lines)
        assert server.read(lambda: transport_of(server).spare_streams) <= 0
        assert client.post("/mcp", json=request(2, "ping"), headers=session).status_code == 200
    assert not [line for line in ended if line.startswith("data")]
    assert engines.end()
