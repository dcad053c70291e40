"""``modelyard mcp serve``: what passes between standard input and output and a server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from modelyard.api.app import close_app, create_app
from modelyard.api.mcp.transport import Transport
from modelyard.cli.mcp.serve import serve_streams
from modelyard.cli.mcp.standard_io import LineTooLong, lines_of
from modelyard.config import validate_config
from modelyard.inprocess.transport import async_http_client
from modelyard.protocol.requests import Cancel, Submit
from modelyard.yard.yard import Yard
from support.gguf_writer import tiny_model, write
from support.scripted_engines import ScriptedEngines

WAIT_S = 20.0
MODERN = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


class Program:
    """A program that speaks to the bridge by its standard streams."""

    def __init__(self, into: int, out: int) -> None:
        self._into, self._out = into, os.fdopen(out, "rb")

    def send(self, message: dict[str, Any] | bytes) -> None:
        os.write(self._into, (message if isinstance(message, bytes) else json.dumps(message).encode()) + b"\n")

    async def receive(self) -> dict[str, Any]:
        line = await asyncio.wait_for(asyncio.to_thread(self._out.readline), WAIT_S)
        message: dict[str, Any] = json.loads(line)
        return message

    async def ask(self, identifier: int | str, method: str, **params: Any) -> dict[str, Any]:
        self.send({"jsonrpc": "2.0", "id": identifier, "method": method, "params": params})
        return await self.receive()

    async def initialize(self) -> dict[str, Any]:
        info = {"name": "test", "version": "1"}
        answer = await self.ask(0, "initialize", protocolVersion="2025-06-18", capabilities={}, clientInfo=info)
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return answer

    def end(self) -> None:
        os.close(self._into)

    def close(self) -> None:
        self._out.close()


# The model answers nothing.
BY_HAND = pytest.mark.parametrize("server", ["silent"], indirect=True)

Connect = Callable[[], contextlib.AbstractAsyncContextManager[httpx2.AsyncClient]]


@contextlib.asynccontextmanager
async def bridged(connect: Connect) -> AsyncIterator[Program]:
    """A program whose streams a bridge serves; its end is waited for."""
    source, into = os.pipe()
    out, sink = os.pipe()
    serving = asyncio.create_task(serve_streams(connect, source, sink))
    program = Program(into, out)
    try:
        yield program
        program.end()
        await asyncio.wait_for(serving, WAIT_S)
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        os.close(sink)
        program.close()


class Server:
    """An application with the scripted model ``m``."""

    def __init__(self, app: FastAPI, engines: ScriptedEngines) -> None:
        self.app, self.engines = app, engines

    def connect(self) -> contextlib.AbstractAsyncContextManager[httpx2.AsyncClient]:
        return async_http_client(self.app)

    @property
    def transport(self) -> Transport:
        transport: Transport = self.app.state.mcp.started
        return transport

    async def end_sessions(self) -> int:
        """End all sessions, as the start of another server would; return how many there were."""
        sessions = list(self.transport.sessions)
        async with self.connect() as http:
            for session in sessions:
                await http.delete("/mcp", headers={"mcp-session-id": session.id})
        return len(sessions)


@pytest.fixture
async def server(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    write(tmp_path / "m.gguf", tiny_model())
    config = validate_config({"models": [{"model_id": "m.gguf", "alias": "m"}]}, source="test", base=tmp_path)
    answers = None if hasattr(request, "param") else (lambda _: ["Hel", "lo"])
    engines = ScriptedEngines(answer=answers)
    yard = Yard(config, engines.make_handle)
    await yard.start()
    app = create_app(yard)
    try:
        yield Server(app, engines)
    finally:
        await close_app(app)
        await yard.close()
        assert await asyncio.to_thread(engines.end)


async def test_messages_pass_both_ways_and_the_session_ends_with_standard_input(server: Server) -> None:
    async with bridged(server.connect) as program:
        started = await program.initialize()
        assert started["result"]["protocolVersion"] == "2025-06-18"
        assert started["result"]["serverInfo"]["name"] == "modelyard"
        listed = await program.ask("a", "tools/list")
        assert listed["id"] == "a"
        assert listed["result"]["tools"][0]["name"] == "chat"
        arguments = {"prompt": "Hi"}
        reported = await program.ask(7, "tools/call", name="chat", arguments=arguments, _meta={"progressToken": "t"})
        assert reported["method"] == "notifications/progress"
        assert reported["params"]["progressToken"] == "t"
        answered = await program.receive()
        assert answered["id"] == 7
        assert answered["result"]["content"] == [{"type": "text", "text": "Hello"}]
        assert len(server.transport.sessions) == 1
    assert len(server.transport.sessions) == 0


async def test_clients_of_versions_without_sessions_are_served(server: Server) -> None:
    async with bridged(server.connect) as program:
        answered = await program.ask(1, "tools/call", name="chat", arguments={"prompt": "Hi"}, _meta=MODERN)
        assert answered["result"]["content"] == [{"type": "text", "text": "Hello"}]
        read = await program.ask(2, "resources/read", uri="modelyard://models/m", _meta=MODERN)
        assert read["result"]["contents"][0]["uri"] == "modelyard://models/m"
        missing = await program.ask(3, "resources/read", uri="modelyard://models/ü", _meta=MODERN)
        assert "does not exist" in missing["error"]["message"]


async def test_a_session_that_the_server_has_ended_is_opened_again(server: Server) -> None:
    async with bridged(server.connect) as program:
        await program.initialize()
        await program.ask(1, "ping")
        assert await server.end_sessions() == 1
        answered = await program.ask(2, "tools/call", name="model_status", arguments={"model_id": "m"})
        assert answered["result"]["structuredContent"]["status"] == "loaded"
        assert len(server.transport.sessions) == 1


async def test_what_is_no_message_is_an_error_and_the_next_line_counts(server: Server) -> None:
    async with bridged(server.connect) as program:
        for line, code in ((b"{broken", -32700), (b"[]", -32600), (b"5", -32600)):
            program.send(line)
            answer = await program.receive()
            assert (answer["id"], answer["error"]["code"]) == (None, code)
        program.send(b"\n\n")
        assert "result" in await program.initialize()


async def test_requests_before_the_session_are_answered_with_an_error(server: Server) -> None:
    async with bridged(server.connect) as program:
        answer = await program.ask(1, "tools/list")
        assert answer["id"] == 1
        assert "session" in answer["error"]["message"].lower()


@BY_HAND
async def test_the_end_of_standard_input_ends_what_runs(server: Server) -> None:
    async with bridged(server.connect) as program:
        await program.initialize()
        program.send(
            {
                "jsonrpc": "2.0",
                "id": 1,
                "method": "tools/call",
                "params": {"name": "chat", "arguments": {"prompt": "Hi"}},
            }
        )
        engine = await asyncio.to_thread(server.engines.started, "m")
        (submitted,) = await asyncio.to_thread(engine.heard, Submit)
    (cancelled,) = await asyncio.to_thread(engine.heard, Cancel)
    assert cancelled.sequence == submitted.sequence  # type: ignore[union-attr]


@BY_HAND
@pytest.mark.parametrize("is_modern", [False, True])
async def test_a_cancelled_request_is_cancelled_at_the_server(server: Server, is_modern: bool) -> None:
    async with bridged(server.connect) as program:
        if not is_modern:
            await program.initialize()
        meta = {"_meta": MODERN} if is_modern else {}
        params = {"name": "chat", "arguments": {"prompt": "Hi"}, **meta}
        program.send({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
        engine = await asyncio.to_thread(server.engines.started, "m")
        (submitted,) = await asyncio.to_thread(engine.heard, Submit)
        cancel = {"requestId": 1, **meta}
        program.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancel})
        (cancelled,) = await asyncio.to_thread(engine.heard, Cancel)
        assert cancelled.sequence == submitted.sequence  # type: ignore[union-attr]


async def test_a_server_that_is_gone_is_told_as_an_error() -> None:
    def connect() -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url="http://127.0.0.1:9")

    async with bridged(connect) as program:
        answer = await program.ask(1, "initialize")
        assert answer["id"] == 1
        assert "The server does not answer" in answer["error"]["message"]


async def test_a_server_that_opens_no_session_is_told_as_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard.cli.mcp.bridge.OPEN_S", 0.1)

    async def answer(_: httpx2.Request) -> httpx2.Response:
        await asyncio.Event().wait()
        raise AssertionError

    def connect() -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url="http://server", transport=httpx2.MockTransport(answer))

    async with bridged(connect) as program:
        failed = await program.ask(1, "initialize")
        assert failed["id"] == 1
        assert "The server has not answered" in failed["error"]["message"]


class RestartedServer:
    """A server that was started again: it has lost its sessions.

    Attributes:
        opens: set while sessions are opened; otherwise their requests wait.
        fault: "refused" where it opens no session, "lost" where it loses the notification that follows.
        refused: a place for each request of a session that there is not.
    """

    def __init__(self) -> None:
        self.opens = asyncio.Event()
        self.opens.set()
        self.fault = ""
        self.refused = asyncio.Semaphore(0)
        self._opened = 0

    def connect(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url="http://server", transport=httpx2.MockTransport(self._answer))

    def restart(self) -> None:
        self._opened += 1

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        if request.method != "POST":
            return httpx2.Response(405)
        message, session = json.loads(request.content), request.headers.get("mcp-session-id")
        answer = {"jsonrpc": "2.0", "id": message.get("id"), "result": {"protocolVersion": "2025-06-18"}}
        if message["method"] == "initialize":
            assert session is None
            await self.opens.wait()
            if self.fault == "refused":
                return httpx2.Response(503, json={"error": {"message": "Too many connections."}})
            self._opened += 1
            return httpx2.Response(200, json=answer, headers={"mcp-session-id": str(self._opened)})
        if session != str(self._opened):
            self.refused.release()
            return httpx2.Response(400 if session is None else 404)
        if "id" in message:
            return httpx2.Response(200, json=answer)
        if self.fault == "lost":
            raise httpx2.ReadError("reset")
        return httpx2.Response(202)


async def test_a_session_that_cannot_be_opened_again_is_opened_for_a_later_request() -> None:
    server = RestartedServer()
    async with bridged(server.connect) as program:
        await program.initialize()
        server.restart()
        for identifier, server.fault in enumerate(("refused", "lost")):
            answer = await program.ask(identifier, "ping")
            assert answer["id"] == identifier
            assert answer["error"]["message"] == "The session has ended."
        server.fault = ""
        assert "result" in await program.ask(2, "ping")


async def test_requests_that_come_while_a_session_is_opened_again_wait_for_it() -> None:
    server = RestartedServer()
    async with bridged(server.connect) as program:
        await program.initialize()
        server.restart()
        server.opens.clear()
        for identifier in (1, 2):
            program.send({"jsonrpc": "2.0", "id": identifier, "method": "ping"})
            await asyncio.wait_for(server.refused.acquire(), WAIT_S)
        server.opens.set()
        answers = [await program.receive() for _ in range(2)]
        assert sorted(answer["id"] for answer in answers) == [1, 2]
        assert all("result" in answer for answer in answers)


async def test_a_server_without_the_endpoint_is_told_as_an_error() -> None:
    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(404, html="<h1>Not here</h1>")

    def connect() -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url="http://other", transport=httpx2.MockTransport(answer))

    async with bridged(connect) as program:
        failed = await program.ask(1, "initialize")
        assert failed["error"]["message"] == ("The server answered with status 404 and no message. Does it serve /mcp?")


async def test_what_the_server_says_of_a_refusal_is_passed_on() -> None:
    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(401, json={"error": {"message": "There is no such key.", "code": "invalid_api_key"}})

    def connect() -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url="http://server", transport=httpx2.MockTransport(answer))

    async with bridged(connect) as program:
        failed = await program.ask(1, "initialize")
        assert failed["error"]["message"] == "There is no such key."


@BY_HAND
async def test_requests_are_bounded_and_their_ids_differ(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard.cli.mcp.bridge.MAX_IN_FLIGHT", 2)
    async with bridged(server.connect) as program:
        await program.initialize()
        params = {"name": "chat", "arguments": {"prompt": "Hi"}}
        for identifier in (1, 2):
            program.send({"jsonrpc": "2.0", "id": identifier, "method": "tools/call", "params": params})
        engine = await asyncio.to_thread(server.engines.started, "m")
        await asyncio.to_thread(engine.heard, Submit, 2)
        assert "id is running already" in (await program.ask("1", "ping"))["error"]["message"]
        assert (await program.ask(3, "ping"))["error"]["message"] == "2 requests are running already."


async def test_lines_are_read_whole_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard.cli.mcp.standard_io.MAX_LINE_BYTES", 100_000)
    source, into = os.pipe()
    os.write(into, b"one\r\n\n  two\nthree")
    os.close(into)
    assert [line async for line in lines_of(source)] == [b"one", b"two", b"three"]
    source, into = os.pipe()
    writing = asyncio.create_task(asyncio.to_thread(os.write, into, b"x" * 300_000))
    with pytest.raises(LineTooLong):
        _ = [line async for line in lines_of(source)]
    os.close(source)
    await asyncio.gather(writing, return_exceptions=True)
    os.close(into)
