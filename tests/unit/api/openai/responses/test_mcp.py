"""Tools that this server runs, in /v1/responses: their items, events, histories and choices."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import openai
import openresponses_types.types as open_responses
import pytest
from openai.types.responses import Response
from starlette.types import Message, Receive, Scope, Send

from modelyard.config import AccessKey
from modelyard.config.key_rules import digest_of
from modelyard.protocol.events import Accepted
from modelyard.protocol.prompts import NamedTool
from support.scripted_responses import CALC, EVENT, calls_of, kinds, until_done
from support.scripted_server import ScriptedServer, call, scripted_server
from support.scripted_tools import Gate, ScriptedTools, add, fail, server_tool

FUNCTION: Any = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False}
ADD, FAIL = server_tool("add", add), server_tool("fail", fail)
READ = replace(server_tool("read", add, server="files"), is_read_only=True)
WRITE = server_tool("write", add, server="files")
FILES: Any = {"type": "mcp", "server_label": "files"}


@pytest.fixture
def source() -> ScriptedTools:
    return ScriptedTools(ADD, FAIL, READ, WRITE)


@pytest.fixture
async def server(tmp_path: Path, source: ScriptedTools) -> AsyncIterator[ScriptedServer]:
    async with scripted_server(tmp_path, tools=[source]) as server:
        yield server


async def test_a_stream_shows_the_tools_and_their_calls_as_openai_does(
    server: ScriptedServer, client: openai.AsyncOpenAI
) -> None:
    server.answers = [["Let me add.", call("calc_add", a=1, b=2)], ["It is 3."]]
    events = await server.events(model="m", input="1 + 2?", tools=[CALC])
    for event in events:
        EVENT.validate_python(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    names = [event["type"].removeprefix("response.") for event in events if not event["type"].endswith(".delta")]
    message = ("output_item.added", "content_part.added", "output_text.done", "content_part.done", "output_item.done")
    assert names == [
        *("created", "in_progress"),
        *("output_item.added", "mcp_list_tools.in_progress", "mcp_list_tools.completed", "output_item.done"),
        *message,
        *("output_item.added", "mcp_call.in_progress", "mcp_call_arguments.done", "mcp_call.completed"),
        "output_item.done",
        *message,
        "completed",
    ]
    response = events[-1]["response"]
    open_responses.ResponseResource.model_validate({**response, "output": [], "tools": []})
    Response.model_validate(response)
    listed, first, called, last = response["output"]
    assert [event["item"] for event in events if event["type"] == "response.output_item.done"] == response["output"]
    assert (listed["server_label"], [tool["name"] for tool in listed["tools"]]) == ("calc", ["add", "fail"])
    assert first["content"][0]["text"] == "Let me add."
    assert (called["server_label"], called["name"], called["arguments"]) == ("calc", "add", '{"a": 1, "b": 2}')
    assert (called["output"], called["error"], called["status"]) == ("3", None, "completed")
    assert last["content"][0]["text"] == "It is 3."
    # All rounds count.
    assert response["usage"]["output_tokens"] == 3
    assert response["usage"]["input_tokens"] == 6


async def test_a_whole_response_has_the_items_of_a_stream(server: ScriptedServer, client: openai.AsyncOpenAI) -> None:
    def answers() -> None:
        server.answers = [["<think>Hm.</think>", "So: ", call("calc_add", a=1), call("calc_fail")], ["Done."]]

    answers()
    whole = await client.responses.create(model="m", input="Go.")
    answers()
    async with client.responses.stream(model="m", input="Go.") as stream:
        streamed = await stream.get_final_response()

    def shape(response: Response) -> list[dict[str, Any]]:
        return [
            item.model_dump(exclude={"id": True, "content": {"__all__": {"parsed"}}})
            if item.type == "message"
            else item.model_dump(exclude={"id"})
            for item in response.output
        ]

    assert shape(whole) == shape(streamed)
    assert kinds(whole) == ["reasoning", "message", "mcp_call", "mcp_call", "message"]
    failed = next(item for item in calls_of(whole) if item.name == "fail")
    assert (failed.status, failed.output) == ("failed", None)
    assert failed.error.content[0]["text"] == "The disk is full."


async def test_calls_of_one_turn_end_in_any_order(server: ScriptedServer, source: ScriptedTools) -> None:
    gate = Gate()

    async def open_gate(*_: Any) -> Any:
        await gate.wait_for(started=1)
        gate.open()
        return await add({}, lambda _: None)

    source.offered = (server_tool("slow", gate), server_tool("quick", open_gate))
    server.answers = [[call("calc_slow"), call("calc_quick")], ["Done."]]
    events = await server.events(model="m", input="Go.")
    completed = [event for event in events if event["type"] == "response.mcp_call.completed"]
    output = events[-1]["response"]["output"]
    for event in completed:
        assert output[event["output_index"]]["id"] == event["item_id"]
    assert {output[event["output_index"]]["name"] for event in completed} == {"slow", "quick"}


async def test_a_continued_response_has_the_calls_in_its_history(
    server: ScriptedServer, client: openai.AsyncOpenAI
) -> None:
    server.answers = [["Let me.", call("calc_add", a=1, b=2)], [call("calc_fail")], ["It is 3."]]
    first = await client.responses.create(model="m", input="1 + 2?")
    shown = [
        ("user", "1 + 2?"),
        ("assistant", "Let me.", ("calc_add", '{"a": 1, "b": 2}')),
        ("tool", "3"),
        ("assistant", "", ("calc_fail", "{}")),
        ("tool", "The disk is full."),
    ]
    # As in the last round, so that what was computed is used again.
    assert server.turns == shown
    expected = [*shown, ("assistant", "It is 3."), ("user", "And?")]
    second = await client.responses.create(model="m", input="And?", previous_response_id=first.id)
    assert server.turns == expected
    assert [item.type for item in second.output] == ["message"], "the tools are listed already"
    items: Any = [item.model_dump(exclude_none=True) for item in first.output]
    sent: Any = [{"role": "user", "content": "1 + 2?"}, *items, {"role": "user", "content": "And?"}]
    raw = await client.responses.with_raw_response.create(model="m", input=sent, store=False)
    assert server.turns == expected
    assert "x-modelyard-ignored" not in raw.headers


async def test_calls_of_one_turn_stay_calls_of_one_turn(server: ScriptedServer, client: openai.AsyncOpenAI) -> None:
    server.answers = [[call("calc_add", a=1), call("calc_add", a=2)], [call("calc_add", a=3)], ["Done."]]
    first = await client.responses.create(model="m", input="Go.")
    seen = server.turns
    assert [len(turn) for turn in seen] == [2, 4, 2, 2, 3, 2]
    await client.responses.create(model="m", input="And?", previous_response_id=first.id)
    assert server.turns[: len(seen)] == seen


async def test_tools_are_listed_again_where_they_have_changed(
    server: ScriptedServer, client: openai.AsyncOpenAI, source: ScriptedTools
) -> None:
    first = await client.responses.create(model="m", input="Hi.")
    assert [item.type for item in first.output] == ["mcp_list_tools", "mcp_list_tools", "message"]
    source.offered = (ADD, READ, WRITE)
    second = await client.responses.create(model="m", input="Hi.", previous_response_id=first.id)
    labels = [item.server_label for item in second.output if item.type == "mcp_list_tools"]
    assert labels == ["calc"]


async def test_a_conversation_keeps_the_calls(server: ScriptedServer, client: openai.AsyncOpenAI) -> None:
    conversation = await client.conversations.create()
    server.answers = [[call("calc_add", a=1, b=2)], ["It is 3."]]
    await client.responses.create(model="m", input="1 + 2?", conversation=conversation.id)
    items = [item.type async for item in await client.conversations.items.list(conversation.id, order="asc")]
    assert items == ["message", "mcp_list_tools", "mcp_list_tools", "mcp_call", "message"]
    await client.responses.create(model="m", input="And?", conversation=conversation.id)
    assert server.turns[2] == ("tool", "3")


async def test_an_answer_ends_with_the_clients_calls_after_ours(
    server: ScriptedServer, client: openai.AsyncOpenAI
) -> None:
    server.answers = [[call("calc_add", a=1)], [call("f", x=1), call("calc_add", a=2)], ["Done."]]
    first = await client.responses.create(model="m", input="Go.", tools=[FUNCTION])
    assert sorted(kinds(first)) == ["function_call", "mcp_call", "mcp_call"]
    called: Any = next(item for item in first.output if item.type == "function_call")
    result: Any = {"type": "function_call_output", "call_id": called.call_id, "output": "F."}
    second = await client.responses.create(model="m", input=[result], tools=[FUNCTION], previous_response_id=first.id)
    assert second.output_text == "Done."
    results = [content for role, content, *_ in server.turns if role == "tool"]
    assert sorted(results) == ["1", "2", "F."], "each once"


@pytest.mark.parametrize(
    ("tools", "functions"),
    [
        ([], ["calc_add", "calc_fail", "files_read", "files_write"]),
        ([CALC], ["calc_add", "calc_fail"]),
        ([CALC, {**FILES, "allowed_tools": ["read"]}], ["calc_add", "calc_fail", "files_read"]),
        ([{**FILES, "allowed_tools": {"read_only": True}}], ["files_read"]),
        ([{**FILES, "allowed_tools": {"tool_names": ["write"]}}], ["files_write"]),
        ([{**FILES, "allowed_tools": []}], []),
    ],
)
async def test_a_request_names_the_servers_and_the_tools_of_which_the_model_may_call(
    server: ScriptedServer, tools: list[Any], functions: list[str]
) -> None:
    answer = await server.post("/v1/responses", model="m", input="Go.", tools=tools)
    assert answer.status_code == 200, answer.text
    assert server.offered == functions
    assert "x-modelyard-ignored" not in answer.headers


@pytest.mark.parametrize(
    ("choice", "functions", "chosen"),
    [
        ({"type": "mcp", "server_label": "calc", "name": "add"}, 5, NamedTool("calc_add")),
        ({"type": "function", "name": "calc_add"}, 5, NamedTool("calc_add")),
        ({"type": "mcp", "server_label": "files"}, 2, "required"),
        ("required", 5, "required"),
        ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp", "server_label": "calc"}]}, 2, "auto"),
        ({"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "f"}]}, 1, "required"),
        ("none", 1, "none"),
    ],
)
async def test_a_choice_of_tools_is_about_ours_as_well(
    server: ScriptedServer, choice: Any, functions: int, chosen: Any
) -> None:
    answer = await server.post("/v1/responses", model="m", input="Go.", tools=[FUNCTION], tool_choice=choice)
    assert answer.status_code == 200, answer.text
    assert server.chat.tool_choice == chosen
    assert len(server.offered) == functions


async def test_a_header_does_without_our_tools(server: ScriptedServer) -> None:
    body = {"model": "m", "input": "Go.", "tools": [FUNCTION]}
    answer = await server.client.post("/v1/responses", json=body, headers={"X-Tools": "off"})
    assert [item["type"] for item in answer.json()["output"]] == ["message"]
    assert server.offered == ["f"]


async def test_calls_of_earlier_answers_keep_their_names_without_our_tools(
    server: ScriptedServer, client: openai.AsyncOpenAI
) -> None:
    server.answers = [[call("calc_add", a=1, b=2)], ["It is 3."]]
    first = await client.responses.create(model="m", input="1 + 2?")
    headers = {"X-Tools": "off"}
    await client.responses.create(model="m", input="And?", previous_response_id=first.id, extra_headers=headers)
    assert server.turns[1] == ("assistant", "", ("calc_add", '{"a": 1, "b": 2}'))


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ([{"type": "mcp", "server_label": "mail"}], "these have: calc, files"),
        ([{"type": "mcp"}], "must have a server_label"),
        ([CALC, CALC], "Two MCP servers have the server_label 'calc'"),
        ([{**CALC, "authorization": "secret"}], "headers and authorization are for servers with a server_url"),
        ([{**CALC, "server_url": "https://mcp.example/mcp"}], "MCP server"),
        (
            [{"type": "mcp", "server_label": f"s{n}", "server_url": "https://mcp.example/mcp"} for n in range(17)],
            "16 are the most",
        ),
    ],
)
async def test_servers_that_cannot_be_used_are_refused(server: ScriptedServer, tools: list[Any], message: str) -> None:
    refused = await server.post("/v1/responses", model="m", input="Go.", tools=tools)
    assert refused.status_code == 400
    assert message in refused.json()["error"]["message"]
    assert "secret" not in refused.text
    assert not server.asked


async def test_calls_are_bounded_by_max_tool_calls(server: ScriptedServer, client: openai.AsyncOpenAI) -> None:
    server.answers = [[call("calc_add", a=1), call("calc_add", a=2)], ["Done."]]
    response = await client.responses.create(model="m", input="Go.", max_tool_calls=1)
    assert [item.output for item in calls_of(response)] == ["1"]
    assert [role for role, *_ in server.turns] == ["user", "assistant", "tool", "tool"]


async def test_a_response_in_the_background_runs_tools(
    server: ScriptedServer, client: openai.AsyncOpenAI, source: ScriptedTools
) -> None:
    gate = Gate()
    source.offered = (server_tool("wait", gate),)
    server.answers = [["One moment.", call("calc_wait")], ["Done."]]
    queued = await client.responses.create(model="m", input="Go.", background=True)
    await gate.wait_for(started=1)
    running = await client.responses.retrieve(queued.id)
    assert running.status == "in_progress"
    assert kinds(running) == ["message", "mcp_call"]
    gate.open()
    await until_done(queued.id)
    response = await client.responses.retrieve(queued.id)
    assert (response.status, response.output_text) == ("completed", "One moment.Done.")
    assert [item.output for item in calls_of(response)] == ["open"]


async def test_what_a_key_may_not_have_is_refused_also_in_the_background(tmp_path: Path) -> None:
    gate = Gate()
    key = AccessKey("alice", digest_of("alice"), None, frozenset({"inference"}), max_concurrent=1, max_tokens=50)
    async with scripted_server(tmp_path, keys=[key], tools=[ScriptedTools(server_tool("wait", gate))]) as server:
        server.answers = [[call("calc_wait")], ["Done."]]

        async def asked(**more: Any) -> httpx.Response:
            body = {"model": "m", "input": "Go.", "background": True, **more}
            headers = {"authorization": "Bearer alice"}
            return await server.client.post("/v1/responses", json=body, headers=headers)

        long = await asked(max_output_tokens=51)
        assert (long.status_code, long.json()["error"]["code"]) == (400, "invalid_request")
        first = await asked()
        assert first.status_code == 200
        await gate.wait_for(started=1)
        second = await asked()
        assert (second.status_code, "max_concurrent" in second.text) == (429, True)
        gate.open()
        await until_done(first.json()["id"])
        third = await asked()
        assert third.status_code == 200
        await until_done(third.json()["id"])


async def test_the_log_of_a_request_does_not_count_what_its_response_does_in_the_background(
    server: ScriptedServer, source: ScriptedTools, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()
    source.offered = (server_tool("wait", gate),)
    server.answers = [[call("calc_wait")], ["Done."]]

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        async def held(message: Message) -> None:
            await gate.wait_for(started=1)
            await send(message)

        await server.app(scope, receive, held)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(slow), base_url="http://localhost") as client:
        with caplog.at_level("INFO", "modelyard.access"):
            answer = await client.post("/v1/responses", json={"model": "m", "input": "Go.", "background": True})
    assert answer.status_code == 200
    assert "POST /v1/responses 200 model=m" in caplog.text
    assert "finish=" not in caplog.text
    gate.open()
    await until_done(answer.json()["id"])


async def test_the_log_has_what_a_response_in_the_background_needed_for_its_conversation(
    server: ScriptedServer,
    client: openai.AsyncOpenAI,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    accepted = partial(Accepted, repairs=("merged messages[0] and messages[1]",))
    monkeypatch.setattr("support.scripted_engines.Accepted", accepted)
    server.answers = [[call("calc_add", a=1)], ["Done."]]
    with caplog.at_level("INFO", "modelyard.api"):
        queued = await client.responses.create(model="m", input="Go.", background=True)
        await until_done(queued.id)
    assert caplog.text.count(f"Response {queued.id}: x-modelyard-repaired: merged") == 1


async def test_cancelling_a_response_in_the_background_cancels_its_tool(
    server: ScriptedServer, client: openai.AsyncOpenAI, source: ScriptedTools
) -> None:
    gate = Gate()
    source.offered = (server_tool("wait", gate),)
    server.answers = [[call("calc_wait")], ["Done."]]
    queued = await client.responses.create(model="m", input="Go.", background=True)
    await gate.wait_for(started=1)
    assert (await client.responses.cancel(queued.id)).status == "cancelled"
    await gate.wait_for(cancelled=1)


async def test_the_tokens_of_our_tools_are_counted(server: ScriptedServer) -> None:
    async def counted(headers: dict[str, str], *tools: Any, **more: Any) -> int:
        body = {"model": "m", "input": "Go.", "tools": tools, **more}
        answer = await server.client.post("/v1/responses/input_tokens", json=body, headers=headers)
        tokens: int = answer.json()["input_tokens"]
        return tokens

    # The scripted engine has a token a word, and one a tool.
    assert await counted({}) == 1 + 4
    assert await counted({}, FUNCTION, CALC) == 1 + 3
    assert await counted({}, FUNCTION, CALC, tool_choice={"type": "mcp", "server_label": "calc"}) == 1 + 2
    assert await counted({}, FUNCTION, tool_choice="none") == 1 + 1
    assert await counted({"X-Tools": "off"}, FUNCTION) == 1 + 1


async def test_a_request_without_tools_of_ours_is_as_before(server: ScriptedServer, source: ScriptedTools) -> None:
    source.offered = ()
    answer = await server.post("/v1/responses", model="m", input="Hi.")
    assert [item["type"] for item in answer.json()["output"]] == ["message"]
