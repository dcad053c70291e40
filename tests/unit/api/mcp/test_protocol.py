"""The MCP server of an application with a scripted model, through the official client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from modelyard.agent.agent import Agent
from modelyard.agent.tools import ToolSource
from modelyard.api.app import close_app, create_app
from modelyard.api.mcp.transport import Transport
from modelyard.config import AccessKey, Scope, validate_config
from modelyard.config.key_rules import digest_of
from modelyard.inprocess.transport import async_http_client
from modelyard.protocol.requests import Cancel, Submit
from modelyard.yard.yard import Yard
from support.gguf_writer import tiny_model, write
from support.scripted_engines import ScriptedEngines
from support.scripted_server import HERMES, call
from support.scripted_tools import ScriptedTools, add, server_tool

# Methods of earlier versions of the protocol, which clients of today use.
SUBSCRIBES = pytest.mark.filterwarnings("ignore:resources/(un)?subscribe is removed")

NAMES = ["chat", "embed", "rerank", "list_models", "model_status", "load_model", "unload_model"]


def key(name: str, *scopes: Scope, models: Iterable[str] | None = None) -> AccessKey:
    permitted = None if models is None else frozenset(models)
    return AccessKey(name, digest_of(name.encode()), permitted, frozenset(scopes))


IMPORT_S = 60.0

KEYS = (
    key("everything", "inference", "read", "admin"),
    key("asks", "inference"),
    key("reads", "read"),
    key("nothing"),
    key("small", "inference", "read", models=["a"]),
)


@dataclass
class Served:
    """An application with the models ``a`` and ``b``."""

    app: FastAPI
    engines: ScriptedEngines
    yard: Yard

    @asynccontextmanager
    async def client(self, key: str | None = None) -> AsyncIterator[ClientSession]:
        """A session of the official client."""
        async with async_http_client(self.app) as http:
            # The first request imports the SDK, which takes seconds on a busy machine.
            http.timeout = IMPORT_S
            if key is not None:
                http.headers["authorization"] = f"Bearer {key}"
            async with (
                streamable_http_client("http://localhost/mcp", http_client=http) as streams,
                ClientSession(*streams) as session,
            ):
                await session.initialize()
                yield session

    @property
    def transport(self) -> Transport:
        """What serves the sessions, once a request has come."""
        transport: Transport = self.app.state.mcp.started
        return transport

    @property
    def sessions(self) -> int:
        return len(self.transport.sessions)

    async def hears_events(self) -> None:
        """Wait until a client has opened its stream of events."""
        async with asyncio.timeout(10):
            while self.transport.spare_streams < 0:  # noqa: ASYNC110 (nothing announces it)
                await asyncio.sleep(0.01)


@asynccontextmanager
async def served(
    folder: Path,
    answer: Callable[[Submit], Sequence[str]] | None = None,
    keys: Sequence[AccessKey] = (),
    tools: Sequence[ToolSource] = (),
    *,
    is_strict: bool = False,
) -> AsyncIterator[Served]:
    write(folder / "a.gguf", tiny_model())
    write(folder / "b.gguf", tiny_model())
    models = [
        {"model_id": "a.gguf", "alias": "a", "aliases": ["alpha"]},
        {"model_id": "b.gguf", "alias": "b", "load": "on-demand"},
    ]
    tables = {"models": models, "default_model_id": "a", "server": {"strict": is_strict}}
    config = validate_config(tables, source="test", base=folder)
    engines = ScriptedEngines(answer=answer, output_format=HERMES if tools else None)
    yard = Yard(config, engines.make_handle)
    await yard.start()
    app = create_app(yard, keys, agent=Agent.of(tools))
    try:
        yield Served(app, engines, yard)
    finally:
        await close_app(app)
        await yard.close()
        assert await asyncio.to_thread(engines.end)


def hello(_: Submit) -> list[str]:
    return ["Hel", "lo", " you"]


def text_of(result: Any) -> str:
    (content,) = result.content
    return str(content.text)


async def test_a_chat_is_answered_as_over_http(tmp_path: Path) -> None:
    async with served(tmp_path, hello) as server, server.client() as client:
        result = await client.call_tool("chat", {"prompt": "Hi", "max_tokens": 7})
        assert not result.is_error
        assert text_of(result) == "Hello you"
        over_http = await async_http_client(server.app).post(
            "/v1/chat/completions", json={"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 7}
        )
        assert result.structured_content["choices"] == over_http.json()["choices"]
        assert result.structured_content.keys() == over_http.json().keys()


async def test_a_chat_takes_messages_and_the_parameters_of_chat_completions(tmp_path: Path) -> None:
    asked: list[Submit] = []

    def answer(submit: Submit) -> list[str]:
        asked.append(submit)
        return ["Yes"]

    messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Really?"}]
    arguments = {"messages": messages, "model": "b", "temperature": 0.5, "top_k": 3, "mirostat": 0, "n": 2}
    async with served(tmp_path, answer) as server, server.client() as client:
        result = await client.call_tool("chat", arguments)
        assert [choice["message"]["content"] for choice in result.structured_content["choices"]] == ["Yes", "Yes"]
        assert result.structured_content["model"] == "b"
        assert asked[0].sampling.temperature == 0.5
        assert asked[0].sampling.top_k == 3


async def test_parts_without_effect_are_listed(tmp_path: Path) -> None:
    arguments = {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi", "colour": "red"}]}]}
    async with served(tmp_path, hello) as server, server.client() as client:
        result = await client.call_tool("chat", arguments)
        assert result.meta == {"modelyard/ignored": ["messages[0].content[0].colour"]}


async def test_a_strict_server_refuses_parts_without_effect(tmp_path: Path) -> None:
    async with served(tmp_path, hello, is_strict=True) as server, server.client() as client:
        result = await client.call_tool("model_status", {"model_id": "a"})
        assert not result.is_error
        arguments = {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi", "colour": "red"}]}]}
        result = await client.call_tool("chat", arguments)
        assert result.is_error
        assert text_of(result).startswith(
            "'messages[0].content[0].colour' would have no effect, and this server is strict"
        )


async def test_progress_has_the_text_of_the_answer(tmp_path: Path) -> None:
    reports: list[tuple[float, float | None, str | None]] = []

    async def report(progress: float, total: float | None, message: str | None) -> None:
        reports.append((progress, total, message))

    async with served(tmp_path, hello) as server, server.client() as client:
        await client.call_tool("chat", {"prompt": "Hi", "max_tokens": 9}, progress_callback=report)
        assert "".join(message or "" for _, _, message in reports) == "Hello you"
        assert reports[-1][1] == 9
        reports.clear()
        await client.call_tool("load_model", {"model_id": "b"}, progress_callback=report)
        assert reports
        values = [progress for progress, _, _ in reports]
        assert values == sorted(set(values))
        assert all(0 <= value < 1 for value in values)
        assert reports[-1][2] == "b: loading"


async def test_a_chat_calls_the_tools_of_the_server(tmp_path: Path) -> None:
    answers = [[call("calc_add", a=1, b=2)], ["The sum", " is 3."]]
    reports: list[str | None] = []

    async def report(_progress: float, _total: float | None, message: str | None) -> None:
        reports.append(message)

    tools = [ScriptedTools(server_tool("add", add), connected=1)]
    async with served(tmp_path, lambda _: answers.pop(0), tools=tools) as server, server.client() as client:
        result = await client.call_tool("chat", {"prompt": "1 + 2?"}, progress_callback=report)
        assert text_of(result) == "The sum is 3."
        (made,) = result.structured_content["agentic_tool_calls"]
        assert (made["name"], made["result"]) == ("calc_add", "3")
        assert "The sum is 3." in "".join(message or "" for message in reports)
        listed = await client.call_tool("list_models", {})
        assert listed.structured_content["data"][0]["mcp_tools_count"] == 1


async def test_models_are_listed_loaded_and_unloaded(tmp_path: Path) -> None:
    async with served(tmp_path, hello) as server, server.client() as client:
        listed = await client.call_tool("list_models", {})
        assert json.loads(text_of(listed)) == listed.structured_content
        assert [model["id"] for model in listed.structured_content["data"]] == ["a", "b"]
        assert (await client.call_tool("model_status", {"model_id": "b"})).structured_content["status"] == "unloaded"
        loaded = await client.call_tool("load_model", {"model_id": "b"})
        assert loaded.structured_content == {"model_id": "b", "status": "loaded"}
        freed = await client.call_tool("unload_model", {"model_id": "b", "mode": "force"})
        assert freed.structured_content == {"model_id": "b", "status": "unloaded"}


async def test_what_goes_wrong_is_a_result_with_the_message_of_http(tmp_path: Path) -> None:
    calls: list[tuple[str, dict[str, Any], str, str]] = [
        ("chat", {"prompt": "Hi", "model": "c"}, "model_not_found", "The model 'c' does not exist. Known: a, b."),
        ("chat", {"prompt": "Hi", "temperature": -1}, "invalid_request", "'temperature': "),
        ("chat", {}, "invalid_request", "Send a conversation in 'messages', or a text in 'prompt', not both."),
        ("chat", {"prompt": "Hi", "messages": "Hi"}, "invalid_request", "not both"),
        ("chat", {"prompt": 5}, "invalid_request", "'prompt' must be a text"),
        ("embed", {"input": "a"}, "unsupported_operation", "embed"),
        ("embed", {}, "invalid_request", "'input'"),
        ("rerank", {"query": "a"}, "invalid_request", "'documents'"),
        ("unload_model", {"model_id": "a", "mode": "quickly"}, "invalid_request", "'mode'"),
        ("list_models", {}, "", ""),
    ]
    async with served(tmp_path, hello) as server, server.client() as client:
        for name, arguments, code, said in calls:
            result = await client.call_tool(name, arguments)
            assert result.is_error == bool(code), (name, arguments)
            if code:
                assert result.structured_content["error"]["code"] == code, (name, arguments)
                assert said in text_of(result)
                assert text_of(result) == result.structured_content["error"]["message"]


async def test_a_result_that_is_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard.api.mcp.tools.MAX_RESULT_BYTES", 50_000)
    async with served(tmp_path, lambda _: ["x" * 60_000]) as server, server.client() as client:
        result = await client.call_tool("chat", {"prompt": "Hi"})
        assert result.is_error
        assert "at most 50,000 pass as a tool's result" in text_of(result)


async def test_unknown_tools_and_arguments_are_errors_of_the_protocol(tmp_path: Path) -> None:
    async with served(tmp_path, hello) as server, server.client() as client:
        for name, arguments in (("delete_everything", {}), ("chat", {"promt": "Hi"}), ("list_models", {"all": True})):
            with pytest.raises(MCPError) as refused:
                await client.call_tool(name, arguments)
            assert refused.value.error.code == -32602


@pytest.mark.parametrize(
    ("name", "tools"),
    [
        ("everything", NAMES),
        ("asks", ["chat", "embed", "rerank"]),
        ("reads", ["list_models", "model_status"]),
    ],
)
async def test_a_key_sees_and_calls_the_tools_of_its_scopes(tmp_path: Path, name: str, tools: list[str]) -> None:
    async with served(tmp_path, hello, KEYS) as server, server.client(name) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == tools
        for other in NAMES:
            if other not in tools:
                with pytest.raises(MCPError, match="Unknown tool"):
                    await client.call_tool(other, {})
        may_read = "list_models" in tools
        assert bool((await client.list_resources()).resources) == may_read
        assert bool((await client.list_resource_templates()).resource_templates) == may_read
        if not may_read:
            with pytest.raises(MCPError, match="scope 'read'"):
                await client.read_resource("modelyard://models/a")


@SUBSCRIBES
async def test_models_that_are_hidden_from_a_key_are_hidden_here(tmp_path: Path) -> None:
    async with served(tmp_path, hello, KEYS) as server, server.client("small") as client:
        listed = await client.call_tool("list_models", {})
        assert [model["id"] for model in listed.structured_content["data"]] == ["a"]
        assert [resource.name for resource in (await client.list_resources()).resources] == ["a"]
        for uri, said in (("modelyard://models/b", "may not use"), ("modelyard://models/nothing", "Known: a.")):
            with pytest.raises(MCPError, match=said) as refused:
                await client.read_resource(uri)
            assert refused.value.error.code == -32002
            with pytest.raises(MCPError, match=said):
                await client.subscribe_resource(uri)
        result = await client.call_tool("chat", {"prompt": "Hi", "model": "b"})
        assert result.is_error
        assert text_of(result) == "This API key may not use the model 'b'. It may use: a."


async def test_a_model_is_a_resource(tmp_path: Path) -> None:
    async with served(tmp_path, hello) as server, server.client() as client:
        first, second = (await client.list_resources()).resources
        assert (first.name, first.uri, first.mime_type) == ("a", "modelyard://models/a", "application/json")
        assert first.description == "loaded, text, 2048 tokens"
        assert second.description == "unloaded"
        (content,) = (await client.read_resource("modelyard://models/b")).contents
        assert json.loads(content.text)["status"] == "unloaded"  # type: ignore[union-attr]
        (template,) = (await client.list_resource_templates()).resource_templates
        assert template.uri_template == "modelyard://models/{model_id}"
        with pytest.raises(MCPError) as refused:
            await client.read_resource("file:///etc/passwd")
        assert refused.value.error.code == -32002


@SUBSCRIBES
async def test_a_change_is_announced_to_those_who_subscribed(tmp_path: Path) -> None:
    heard: list[Any] = []
    is_heard = asyncio.Event()

    async def on_message(message: Any) -> None:
        heard.append(message.method if hasattr(message, "method") else message)
        if {"notifications/resources/list_changed", "notifications/resources/updated"} <= set(heard):
            is_heard.set()

    async with (
        served(tmp_path, hello) as server,
        async_http_client(server.app) as http,
        streamable_http_client("http://localhost/mcp", http_client=http) as streams,
        ClientSession(*streams, message_handler=on_message) as client,
    ):
        await client.initialize()
        await client.subscribe_resource("modelyard://models/b")
        await server.hears_events()
        await client.call_tool("load_model", {"model_id": "b"})
        await asyncio.wait_for(is_heard.wait(), 10)


@SUBSCRIBES
async def test_a_subscription_ends_under_the_name_that_it_was_made_under(tmp_path: Path) -> None:
    async with served(tmp_path, hello) as server, server.client() as client:
        (session,) = server.transport.sessions
        for uri in ("modelyard://models/alpha", "modelyard://models/%62"):
            await client.subscribe_resource(uri)
        assert session.subscriptions == {"modelyard://models/a", "modelyard://models/b"}
        for uri in ("modelyard://models/alpha", "modelyard://models/%62"):
            await client.unsubscribe_resource(uri)
        assert not session.subscriptions


async def test_a_cancelled_call_ends_its_sequence(tmp_path: Path) -> None:
    async with served(tmp_path) as server, server.client() as client:
        call = asyncio.create_task(client.call_tool("chat", {"prompt": "Hi"}))
        engine = await asyncio.to_thread(server.engines.started, "a")
        submitted = (await asyncio.to_thread(engine.heard, Submit))[0]
        call.cancel()
        cancelled = (await asyncio.to_thread(engine.heard, Cancel))[0]
        assert cancelled.sequence == submitted.sequence
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (await client.call_tool("list_models", {})).is_error is False


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
