"""The MCP server of an application with a scripted model, through the official client."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from modelyard.inprocess.transport import async_http_client
from modelyard.protocol.requests import Cancel, Submit
from support.mcp_endpoint import KEYS, hello, served
from support.scripted_server import call
from support.scripted_tools import ScriptedTools, add, server_tool

# Methods of earlier versions of the protocol, which clients of today use.
SUBSCRIBES = pytest.mark.filterwarnings("ignore:resources/(un)?subscribe is removed")

NAMES = ["chat", "embed", "rerank", "list_models", "model_status", "load_model", "unload_model"]


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
