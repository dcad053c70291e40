"""Tools that this server runs, in /api/chat: their calls and results are messages."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest

from support.scripted_server import ScriptedServer, call, scripted_server
from support.scripted_tools import ScriptedTools, add, fail, server_tool

TOOL: Any = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ScriptedServer]:
    source = ScriptedTools(server_tool("add", add), server_tool("fail", fail))
    async with scripted_server(tmp_path, tools=[source]) as server:
        yield server


@pytest.fixture
def client(server: ScriptedServer) -> ollama.AsyncClient:
    return ollama.AsyncClient("http://localhost", transport=httpx.ASGITransport(server.app))


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


async def test_a_stream_has_calls_and_results_as_messages(server: ScriptedServer, client: ollama.AsyncClient) -> None:
    server.answers = [["Let me add.", call("calc_add", a=1, b=2)], ["It is 3."]]
    lines = [line async for line in await client.chat(model="m", messages=[user("1 + 2?")], stream=True)]
    messages = [line.message for line in lines]
    assert [(message.role, message.content) for message in messages] == [
        ("assistant", "Let me add."),
        ("assistant", ""),
        ("tool", "3"),
        ("assistant", "\n\nIt is 3."),
        ("assistant", ""),
    ]
    (called,) = messages[1].tool_calls or ()
    assert (called.function.name, called.function.arguments) == ("calc_add", {"a": 1, "b": 2})
    assert messages[2].tool_name == "calc_add"
    assert [line.done for line in lines] == [False, False, False, False, True]
    last = lines[-1]
    assert (last.done_reason, last.prompt_eval_count, last.eval_count) == ("stop", 6, 3)


async def test_messages_that_come_back_are_what_the_model_has_seen(
    server: ScriptedServer, client: ollama.AsyncClient
) -> None:
    server.answers = [[call("calc_add", a=1, b=2)], ["It is 3."]]
    lines = [line async for line in await client.chat(model="m", messages=[user("1 + 2?")], stream=True)]
    history = [user("1 + 2?"), *(line.message for line in lines if not line.done), user("And?")]
    await client.chat(model="m", messages=history)
    assert server.turns == [
        ("user", "1 + 2?"),
        ("assistant", "", ("calc_add", {"a": 1, "b": 2})),
        ("tool", "3"),
        ("assistant", "It is 3."),
        ("user", "And?"),
    ]


async def test_a_whole_answer_is_one_message_and_lists_the_calls(
    server: ScriptedServer, client: ollama.AsyncClient
) -> None:
    answers = ["So:", call("calc_add", a=1, b=2), call("calc_fail")], ["Done."]
    server.answers = [*answers]
    await client.chat(model="m", messages=[user("Go.")])
    server.answers = [*answers]
    answer = (await server.post("/api/chat", model="m", messages=[user("Go.")], stream=False)).json()
    assert answer["message"] == {"role": "assistant", "content": "So:\n\nDone."}
    listed = {each["name"]: each for each in answer["agentic_tool_calls"]}
    assert (listed["calc_add"]["result"], listed["calc_add"]["server"]) == ("3", "calc")
    assert (listed["calc_fail"]["result"], listed["calc_fail"]["is_error"]) == ("The disk is full.", True)
    server.answers = [*answers]
    streamed = await server.post("/api/chat", model="m", messages=[user("Go.")])
    last = json.loads(streamed.text.splitlines()[-1])
    assert {each["name"] for each in last["agentic_tool_calls"]} == set(listed)


async def test_an_answer_ends_with_the_clients_calls_after_ours(
    server: ScriptedServer, client: ollama.AsyncClient
) -> None:
    server.answers = [[call("calc_add", a=1)], [call("f", x=1)], ["Done."]]
    first = await client.chat(model="m", messages=[user("Go.")], tools=[TOOL])
    assert [each.function.name for each in first.message.tool_calls or ()] == ["f"]
    history: list[Any] = [user("Go."), first.message, {"role": "tool", "content": "F.", "tool_name": "f"}]
    second = await client.chat(model="m", messages=history, tools=[TOOL])
    assert second.message.content == "Done."
    assert server.turns == [
        ("user", "Go."),
        ("assistant", "", ("calc_add", '{"a": 1}')),
        ("tool", "1"),
        ("assistant", "", ("f", '{"x": 1}')),
        ("tool", "F."),
    ]


async def test_a_completion_has_no_tools_of_ours(server: ScriptedServer, client: ollama.AsyncClient) -> None:
    server.answers = [["Hello."]]
    answer = await client.generate(model="m", prompt="Hi.")
    assert answer.response == "Hello."
    assert not server.chat.tools
