"""Requests to the MCP endpoint without a client of the SDK: sessions, and versions of the protocol without them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from modelyard.api.app import create_app
from modelyard.config import validate_config
from modelyard.inprocess.transport import async_http_client
from modelyard.protocol.requests import Cancel, Submit
from modelyard.yard.yard import Yard
from support.gguf_writer import tiny_model, write
from support.mcp_endpoint import KEYS, hello, served
from support.scripted_engines import ScriptedEngines

HEADERS = {"accept": "application/json, text/event-stream", "content-type": "application/json"}


def request(number: int, method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


async def opened(http: httpx2.AsyncClient, **headers: str) -> dict[str, str]:
    """The headers of a session that was opened."""
    info = {"name": "test", "version": "1"}
    body = request(1, "initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo=info)
    answer = await http.post("/mcp", json=body, headers={**HEADERS, **headers})
    assert answer.status_code == 200
    session = {**HEADERS, **headers, "mcp-session-id": answer.headers["mcp-session-id"]}
    note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    assert (await http.post("/mcp", json=note, headers=session)).status_code == 202
    return session


async def test_a_notification_gets_202_and_never_a_reply(tmp_path: Path) -> None:
    async with served(tmp_path, hello) as server, async_http_client(server.app) as http:
        session = await opened(http)
        for method in ("notifications/initialized", "notifications/cancelled", "notifications/nothing"):
            answer = await http.post("/mcp", json={"jsonrpc": "2.0", "method": method}, headers=session)
            assert (answer.status_code, answer.content) == (202, b"")


async def test_a_session_belongs_to_the_key_that_opened_it(tmp_path: Path) -> None:
    async with served(tmp_path, hello, KEYS) as server, async_http_client(server.app) as http:
        session = await opened(http, authorization="Bearer everything")
        for headers in ({**session, "authorization": "Bearer asks"}, {**session, "mcp-session-id": "0" * 32}):
            for method in ("POST", "GET", "DELETE"):
                body = request(2, "tools/list") if method == "POST" else None
                answer = await http.request(method, "/mcp", json=body, headers=headers)
                assert answer.status_code == 404, method
        answer = await http.post("/mcp", json=request(2, "tools/list"), headers=session)
        assert answer.status_code == 200
        assert (await http.post("/mcp", json=request(2, "tools/list"), headers=HEADERS)).status_code == 401


async def test_a_key_without_scopes_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path, hello, KEYS) as server, async_http_client(server.app) as http:
        answer = await http.post("/mcp", json=request(1, "ping"), headers={"authorization": "Bearer nothing"})
        assert answer.status_code == 403
        assert answer.json()["error"]["message"].endswith("it needs a scope, and has: nothing.")


async def test_a_session_ends_when_its_client_deletes_it(tmp_path: Path) -> None:
    async with served(tmp_path, hello) as server, async_http_client(server.app) as http:
        session = await opened(http)
        assert server.sessions == 1
        assert (await http.delete("/mcp", headers=session)).status_code == 200
        assert server.sessions == 0
        assert (await http.post("/mcp", json=request(2, "tools/list"), headers=session)).status_code == 404


async def test_the_end_of_a_session_ends_its_calls(tmp_path: Path) -> None:
    async with served(tmp_path) as server, async_http_client(server.app) as http:
        session = await opened(http)
        body = request(2, "tools/call", name="chat", arguments={"prompt": "Hi"})
        calling = asyncio.create_task(http.post("/mcp", json=body, headers=session))
        engine = await asyncio.to_thread(server.engines.started, "a")
        submitted = (await asyncio.to_thread(engine.heard, Submit))[0]
        assert (await http.delete("/mcp", headers=session)).status_code == 200
        cancelled = (await asyncio.to_thread(engine.heard, Cancel))[0]
        assert cancelled.sequence == submitted.sequence
        await asyncio.wait_for(calling, 10)


async def test_a_session_without_requests_ends_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard.api.mcp.transport.REAP_S", 0.01)
    async with served(tmp_path, hello) as server, async_http_client(server.app) as http:
        session = await opened(http)
        monkeypatch.setattr("modelyard.api.mcp.sessions.MAX_IDLE_S", 0.0)
        async with asyncio.timeout(10):
            while server.sessions:  # noqa: ASYNC110 (nothing announces it)
                await asyncio.sleep(0.01)
        assert (await http.post("/mcp", json=request(2, "ping"), headers=session)).status_code == 404


async def test_requests_that_open_no_session_leave_none(tmp_path: Path) -> None:
    async with served(tmp_path, hello) as server, async_http_client(server.app) as http:
        await opened(http)
        for sent in (
            {"content": b"{broken"},
            {"content": b"[]"},
            {"json": request(1, "tools/list")},
            {"json": [request(1, "ping"), request(2, "ping")]},
        ):
            answer = await http.post("/mcp", headers=HEADERS, **sent)  # type: ignore[arg-type]
            assert answer.status_code == 400, sent
        wrong = {**HEADERS, "content-type": "text/plain"}
        assert (await http.post("/mcp", content=b"{}", headers=wrong)).status_code in (400, 415)
        assert (await http.post("/mcp", json={}, headers={"accept": "text/html"})).status_code == 406
        assert (await http.get("/mcp", headers=HEADERS)).status_code == 400
        assert server.sessions == 1


async def test_sessions_are_bounded_and_the_oldest_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard.api.mcp.sessions.MAX_SESSIONS", 3)
    async with served(tmp_path, hello) as server, async_http_client(server.app) as http:
        first, *_, last = [await opened(http) for _ in range(5)]
        assert server.sessions == 3
        assert (await http.post("/mcp", json=request(2, "ping"), headers=first)).status_code == 404
        assert (await http.post("/mcp", json=request(2, "ping"), headers=last)).status_code == 200


async def test_a_body_that_nests_too_deeply_or_is_too_long_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path, hello) as server, async_http_client(server.app) as http:
        deep = await http.post("/mcp", content=b"[" * 100_000, headers=HEADERS)
        assert deep.status_code == 400
        long = await http.post("/mcp", content=b" " * ((4 << 20) + 1), headers=HEADERS)
        assert long.status_code == 413


MODERN_META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
}


def modern(method: str, name: str | None = None) -> dict[str, str]:
    """The headers of a request in a version without sessions."""
    named = {} if name is None else {"mcp-name": name}
    return {**HEADERS, "mcp-protocol-version": "2026-07-28", "mcp-method": method, **named}


async def test_clients_of_versions_without_sessions_are_served(tmp_path: Path) -> None:
    async with served(tmp_path, hello, KEYS) as server, async_http_client(server.app) as http:
        http.headers["authorization"] = "Bearer asks"
        body = request(1, "tools/list", _meta=MODERN_META)
        listed = (await http.post("/mcp", json=body, headers=modern("tools/list"))).json()
        assert [tool["name"] for tool in listed["result"]["tools"]] == ["chat", "embed", "rerank"]
        body = request(2, "tools/call", name="chat", arguments={"prompt": "Hi"}, _meta=MODERN_META)
        answered = (await http.post("/mcp", json=body, headers=modern("tools/call", "chat"))).json()
        assert answered["result"]["content"][0]["text"] == "Hello you"
        assert server.sessions == 0


async def test_a_stream_of_events_tells_what_its_key_may_see(tmp_path: Path) -> None:
    wanted = {
        "resourcesListChanged": True,
        "toolsListChanged": True,
        "resourceSubscriptions": ["modelyard://models/a", "modelyard://models/b", "modelyard://models/nothing"],
    }
    async with served(tmp_path, hello, KEYS) as server, async_http_client(server.app) as http:
        http.headers["authorization"] = "Bearer small"
        body = request(5, "subscriptions/listen", notifications=wanted, _meta=MODERN_META)
        async with http.stream("POST", "/mcp", json=body, headers=modern("subscriptions/listen")) as stream:
            lines = (line.removeprefix("data: ") async for line in stream.aiter_lines() if line.startswith("data: "))
            acknowledged = json.loads(await anext(lines))
            assert acknowledged["params"]["notifications"] == {
                "resourcesListChanged": True,
                "resourceSubscriptions": ["modelyard://models/a"],
            }
            for model in ("b", "a"):
                await server.yard.reload(model)
            await server.yard.unload("a")
            changed = json.loads(await anext(lines))
            assert changed["method"] == "notifications/resources/list_changed"
            updated = json.loads(await anext(lines))
            while updated["method"] == "notifications/resources/list_changed":
                updated = json.loads(await anext(lines))
            assert updated["params"]["uri"] == "modelyard://models/a"
        http.headers["authorization"] = "Bearer asks"
        async with http.stream("POST", "/mcp", json=body, headers=modern("subscriptions/listen")) as stream:
            lines = (line.removeprefix("data: ") async for line in stream.aiter_lines() if line.startswith("data: "))
            assert json.loads(await anext(lines))["params"]["notifications"] == {}


async def test_a_stream_of_events_tells_of_a_model_that_is_named_by_an_alias(tmp_path: Path) -> None:
    wanted = {"resourceSubscriptions": ["modelyard://models/alpha", "modelyard://models/later"]}
    body = request(5, "subscriptions/listen", notifications=wanted, _meta=MODERN_META)
    async with (
        served(tmp_path, hello) as server,
        async_http_client(server.app) as http,
        http.stream("POST", "/mcp", json=body, headers=modern("subscriptions/listen")) as stream,
    ):
        lines = (line.removeprefix("data: ") async for line in stream.aiter_lines() if line.startswith("data: "))
        assert json.loads(await anext(lines))["params"]["notifications"] == {
            "resourceSubscriptions": ["modelyard://models/a", "modelyard://models/later"]
        }
        await server.yard.unload("a")
        async with asyncio.timeout(10):
            assert json.loads(await anext(lines))["params"]["uri"] == "modelyard://models/a"


async def test_without_serve_there_is_no_endpoint(tmp_path: Path) -> None:
    write(tmp_path / "a.gguf", tiny_model())
    tables = {"models": [{"model_id": "a.gguf"}], "mcp": {"serve": False}}
    yard = Yard(validate_config(tables, source="test", base=tmp_path), ScriptedEngines().make_handle)
    async with async_http_client(create_app(yard)) as http:
        assert (await http.post("/mcp", json={})).status_code == 404


async def test_a_disconnect_ends_the_calls_of_its_request(tmp_path: Path) -> None:
    async with served(tmp_path) as server, async_http_client(server.app) as http:
        session = await opened(http)
        body = request(2, "tools/call", name="chat", arguments={"prompt": "Hi"})
        async with http.stream("POST", "/mcp", json=body, headers=session) as answer:
            assert answer.status_code == 200
            engine = await asyncio.to_thread(server.engines.started, "a")
            submitted = (await asyncio.to_thread(engine.heard, Submit))[0]
        cancelled = (await asyncio.to_thread(engine.heard, Cancel))[0]
        assert cancelled.sequence == submitted.sequence
