"""Tools that this server runs, in /v1/messages: their blocks, histories, and the servers that requests name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic.types.beta import BetaMessage

from modelyard.protocol.prompts import NamedTool
from support.scripted_server import ScriptedServer, call, scripted_server
from support.scripted_tools import ScriptedTools, add, fail, server_tool

TOOL: Any = {"name": "f", "input_schema": {"type": "object"}}
ADD, FAIL = server_tool("add", add), server_tool("fail", fail)
READ, WRITE = (server_tool(name, add, server="files") for name in ("read", "write"))
BETAS = ["mcp-client-2025-11-20"]


@pytest.fixture
def source() -> ScriptedTools:
    return ScriptedTools(ADD, FAIL, READ, WRITE)


@pytest.fixture
async def server(tmp_path: Path, source: ScriptedTools) -> AsyncIterator[ScriptedServer]:
    async with scripted_server(tmp_path, tools=[source]) as server:
        yield server


@pytest.fixture
async def client(server: ScriptedServer) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(
        base_url="http://localhost",
        api_key="unused",
        http_client=httpx2.AsyncClient(transport=httpx2.ASGITransport(server.app)),
        max_retries=0,
        _strict_response_validation=True,
    ) as client:
        yield client


def user(text: str) -> Any:
    return {"role": "user", "content": text}


async def create(client: anthropic.AsyncAnthropic, messages: list[Any], **more: Any) -> BetaMessage:
    return await client.beta.messages.create(model="m", max_tokens=99, messages=messages, betas=BETAS, **more)


def kinds(message: BetaMessage) -> list[str]:
    return [block.type for block in message.content]


async def test_a_message_has_the_calls_and_their_results(
    server: ScriptedServer, client: anthropic.AsyncAnthropic
) -> None:
    server.answers = [["Let me add.", call("calc_add", a=1, b=2)], [call("calc_fail")], ["It is 3."]]
    message = await create(client, [user("1 + 2?")])
    assert kinds(message) == ["text", "mcp_tool_use", "mcp_tool_result", "mcp_tool_use", "mcp_tool_result", "text"]
    _, called, result, _, failed, _ = message.content
    assert called.type == "mcp_tool_use"
    assert (called.name, called.server_name, called.input) == ("add", "calc", {"a": 1, "b": 2})
    assert result.type == failed.type == "mcp_tool_result"
    assert (result.tool_use_id, result.is_error) == (called.id, False)
    assert [(result.content[0].text, failed.content[0].text, failed.is_error)] == [("3", "The disk is full.", True)]  # type: ignore[union-attr]
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens == 4


async def test_a_stream_adds_up_to_the_whole_message(server: ScriptedServer, client: anthropic.AsyncAnthropic) -> None:
    answers = ["<think>Hm.</think>", "So:", call("calc_add", a=1, b=2)], ["Done."]
    server.answers = [*answers]
    whole = await create(client, [user("Go.")])
    server.answers = [*answers]
    async with client.beta.messages.stream(model="m", max_tokens=99, messages=[user("Go.")], betas=BETAS) as stream:
        events = [event async for event in stream]
        streamed = await stream.get_final_message()
    assert kinds(streamed) == ["thinking", "text", "mcp_tool_use", "mcp_tool_result", "text"]

    def shape(message: BetaMessage) -> list[dict[str, Any]]:
        return [
            {k: v for k, v in block.model_dump().items() if k not in ("id", "tool_use_id", "parsed_output")}
            for block in message.content
        ]

    assert shape(streamed) == shape(whole)
    assert (streamed.stop_reason, streamed.usage) == (whole.stop_reason, whole.usage)
    starts = [event.index for event in events if event.type == "content_block_start"]
    assert starts == [event.index for event in events if event.type == "content_block_stop"] == [0, 1, 2, 3, 4]


async def test_a_history_with_calls_is_what_the_model_has_seen(
    server: ScriptedServer, client: anthropic.AsyncAnthropic
) -> None:
    server.answers = [["Let me add.", call("calc_add", a=1, b=2)], [call("calc_fail")], ["It is 3."]]
    message = await create(client, [user("1 + 2?")])
    seen = server.turns
    content: Any = message.content
    await create(client, [user("1 + 2?"), {"role": "assistant", "content": content}, user("And?")])
    shown = [
        ("user", "1 + 2?"),
        ("assistant", "Let me add.", ("calc_add", {"a": 1, "b": 2})),
        ("tool", "3"),
        ("assistant", "", ("calc_fail", {})),
        ("tool", "The disk is full."),
    ]
    assert server.turns == [*shown, ("assistant", "It is 3."), ("user", "And?")]
    assert [turn[:2] for turn in seen] == [turn[:2] for turn in shown]


async def test_calls_of_one_turn_stay_calls_of_one_turn(
    server: ScriptedServer, client: anthropic.AsyncAnthropic
) -> None:
    answers = [call("calc_add", a=1), call("calc_fail")], ["Done."]
    server.answers = [*answers]
    whole = await create(client, [user("Go.")])
    server.answers = [*answers]
    async with client.beta.messages.stream(model="m", max_tokens=99, messages=[user("Go.")], betas=BETAS) as stream:
        streamed = await stream.get_final_message()
    for message in (whole, streamed):
        assert kinds(message) == ["mcp_tool_use", "mcp_tool_use", "mcp_tool_result", "mcp_tool_result", "text"]
        content: Any = message.content
        await create(client, [user("Go."), {"role": "assistant", "content": content}, user("And?")])
        assert [len(turn) for turn in server.turns] == [2, 4, 2, 2, 2, 2]


async def test_blocks_of_another_server_are_read(server: ScriptedServer) -> None:
    listing = {"type": "mcp_tool_listing", "mcp_server_name": "mail", "tools": [{"name": "send"}]}
    use = {"type": "mcp_tool_use", "id": "mcptoolu_1", "name": "send", "server_name": "mail", "input": {"to": "me"}}
    result = {"type": "mcp_tool_result", "tool_use_id": "mcptoolu_1", "is_error": False, "content": "Sent."}
    messages = [user("Send."), {"role": "assistant", "content": [listing, use, result]}, user("Thanks.")]
    answer = await server.post("/v1/messages", model="m", max_tokens=9, messages=messages)
    assert answer.status_code == 200, answer.text
    assert server.turns[1:3] == [("assistant", "", ("mail_send", {"to": "me"})), ("tool", "Sent.")]


async def test_a_message_ends_with_the_clients_calls_after_ours(
    server: ScriptedServer, client: anthropic.AsyncAnthropic
) -> None:
    server.answers = [[call("calc_add", a=1)], [call("f"), call("calc_add", a=2)], ["Done."]]
    message = await create(client, [user("Go.")], tools=[TOOL])
    assert message.stop_reason == "tool_use"
    (called,) = [block for block in message.content if block.type == "tool_use"]
    content: Any = message.content
    result: Any = {"type": "tool_result", "tool_use_id": called.id, "content": "F."}
    history = [user("Go."), {"role": "assistant", "content": content}, {"role": "user", "content": [result]}]
    second = await create(client, history, tools=[TOOL])
    assert second.stop_reason == "end_turn"
    results = [content for role, content, *_ in server.turns if role == "tool"]
    assert sorted(results) == ["1", "2", "F."], "each once"


async def test_a_call_waits_at_the_desk_for_its_approval(tmp_path: Path, source: ScriptedTools) -> None:
    source.offered = (replace(ADD, needs_approval=True),)
    async with scripted_server(tmp_path, tools=[source]) as server:
        server.answers = [[call("calc_add", a=1, b=2)], ["Done."]]
        body = {"model": "m", "max_tokens": 9, "messages": [user("Go.")], "stream": True}
        asking = asyncio.create_task(server.client.post("/v1/messages", json=body))
        (waiting,) = (await server.client.get("/v1/agent/approvals?wait=20")).json()["data"]
        decided = await server.post(f"/v1/agent/approvals/{waiting['id']}", decision="approve")
        assert decided.json() == {"status": "resolved"}
        answer = await asking
    assert "event: ping" in answer.text
    assert '"mcp_tool_result"' in answer.text


@pytest.mark.parametrize(
    ("tools", "functions"),
    [
        ([], ["calc_add", "calc_fail", "files_read", "files_write"]),
        ([{"type": "mcp_toolset", "mcp_server_name": "calc"}], ["calc_add", "calc_fail"]),
        (
            [
                {
                    "type": "mcp_toolset",
                    "mcp_server_name": "files",
                    "default_config": {"enabled": False},
                    "configs": {"read": {"enabled": True}},
                }
            ],
            ["files_read"],
        ),
        (
            [{"type": "mcp_toolset", "mcp_server_name": "files", "configs": {"read": {"enabled": False}}}, TOOL],
            ["files_write", "f"],
        ),
    ],
)
async def test_tool_sets_select_the_tools_of_configured_servers(
    server: ScriptedServer, tools: list[Any], functions: list[str]
) -> None:
    answer = await server.post("/v1/messages", model="m", max_tokens=9, messages=[user("Go.")], tools=tools)
    assert answer.status_code == 200, answer.text
    assert server.offered == functions
    assert "x-modelyard-ignored" not in answer.headers


@pytest.mark.parametrize(
    ("choice", "chosen"),
    [
        ({"type": "any"}, "required"),
        ({"type": "tool", "name": "calc_add"}, NamedTool("calc_add")),
        ({"type": "none"}, "none"),
    ],
)
async def test_a_choice_of_tools_is_about_ours_as_well(server: ScriptedServer, choice: Any, chosen: Any) -> None:
    body = {"model": "m", "max_tokens": 9, "messages": [user("Go.")], "tool_choice": choice}
    answer = await server.post("/v1/messages", **body)
    assert answer.status_code == 200, answer.text
    assert server.chat.tool_choice == chosen
    assert len(server.offered) == (0 if chosen == "none" else 4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mcp_servers": [{"type": "url", "url": "https://mcp.example/mcp", "name": "m"}]}, "MCP server"),
        ({"tools": [{"type": "mcp_toolset", "mcp_server_name": "mail"}]}, "these have: calc, files"),
        ({"tools": [{"type": "mcp_toolset"}]}, "must have an mcp_server_name"),
        ({"tools": [{"type": "mcp_toolset", "mcp_server_name": "calc"}] * 2}, "another mcp_toolset"),
        ({"mcp_servers": [{"type": "url", "url": "https://mcp.example", "name": "m"}] * 2}, "Two MCP servers"),
        (
            {"mcp_servers": [{"type": "url", "url": "https://mcp.example", "name": f"m{n}"} for n in range(17)]},
            "16 are the most",
        ),
    ],
)
async def test_servers_that_cannot_be_used_are_refused(
    server: ScriptedServer, fields: dict[str, Any], message: str
) -> None:
    refused = await server.post("/v1/messages", model="m", max_tokens=9, messages=[user("Go.")], **fields)
    assert refused.status_code == 400
    assert message in refused.json()["error"]["message"]
    assert not server.asked


async def test_our_tools_are_counted(server: ScriptedServer) -> None:
    async def counted(headers: dict[str, str], *tools: Any, **more: Any) -> int:
        body = {"model": "m", "messages": [user("Go.")], "tools": tools, **more}
        answer = await server.client.post("/v1/messages/count_tokens", json=body, headers=headers)
        tokens: int = answer.json()["input_tokens"]
        return tokens

    # The scripted engine has a token a word, and one a tool.
    assert await counted({}) == 1 + 4
    assert await counted({}, TOOL, {"type": "mcp_toolset", "mcp_server_name": "calc"}) == 1 + 3
    assert await counted({}, TOOL, tool_choice={"type": "none"}) == 1 + 1
    assert await counted({"X-Tools": "off"}, TOOL) == 1 + 1


async def test_the_client_of_the_stable_api_reads_a_stream(
    server: ScriptedServer, client: anthropic.AsyncAnthropic
) -> None:
    server.answers = [["So:", call("calc_add", a=1, b=2)], ["Done."]]
    lenient = client.copy(_extra_kwargs={"_strict_response_validation": False})
    async with lenient.messages.stream(model="m", max_tokens=99, messages=[user("Go.")]) as stream:
        text = "".join([each async for each in stream.text_stream])
    assert text == "So:Done."
