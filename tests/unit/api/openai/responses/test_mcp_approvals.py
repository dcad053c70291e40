"""Calls of the server's tools that the client of /v1/responses approves, or denies, in its next request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.responses import Response

from support.scripted_responses import CALC, EVENT, calls_of, kinds
from support.scripted_server import ScriptedServer, call, scripted_server
from support.scripted_tools import ScriptedTools, add, fail, server_tool

ADD, FAIL = server_tool("add", add, needs_approval=True), server_tool("fail", fail)


@pytest.fixture
def source() -> ScriptedTools:
    return ScriptedTools(ADD, FAIL)


@pytest.fixture
async def server(tmp_path: Path, source: ScriptedTools) -> AsyncIterator[ScriptedServer]:
    async with scripted_server(tmp_path, tools=[source]) as server:
        yield server


async def asked(server: ScriptedServer, client: openai.AsyncOpenAI, **more: Any) -> Response:
    server.answers = [["May I?", call("calc_add", a=1, b=2)], ["Done."]]
    return await client.responses.create(model="m", input="Go.", **more)


async def test_a_call_runs_once_it_is_approved(server: ScriptedServer, client: openai.AsyncOpenAI) -> None:
    first = await asked(server, client)
    assert kinds(first) == ["message", "mcp_approval_request"]
    request: Any = first.output[-1]
    assert (request.server_label, request.name, request.arguments) == ("calc", "add", '{"a": 1, "b": 2}')
    assert first.status == "completed"
    decision: Any = {"type": "mcp_approval_response", "approval_request_id": request.id, "approve": True}
    second = await client.responses.create(model="m", input=[decision], previous_response_id=first.id)
    (called,) = calls_of(second)
    assert (called.output, called.approval_request_id, called.status) == ("3", request.id, "completed")
    expected = [("user", "Go."), ("assistant", "May I?", ("calc_add", '{"a": 1, "b": 2}')), ("tool", "3")]
    assert server.turns == expected
    await client.responses.create(model="m", input="Thanks.", previous_response_id=second.id)
    assert server.turns == [*expected, ("assistant", "Done."), ("user", "Thanks.")]


async def test_events_of_an_approval_are_valid(server: ScriptedServer) -> None:
    server.answers = [[call("calc_add", a=1, b=2)], ["Done."]]
    events = await server.events(model="m", input="Go.")
    (request,) = [item for item in events[-1]["response"]["output"] if item["type"] == "mcp_approval_request"]
    decision = {"type": "mcp_approval_response", "approval_request_id": request["id"], "approve": True}
    later = await server.events(model="m", input=[decision], previous_response_id=events[-1]["response"]["id"])
    for event in (*events, *later):
        EVENT.validate_python(event)
    assert "response.mcp_call.completed" in [event["type"] for event in later]


async def test_a_decision_may_be_added_to_the_conversation(server: ScriptedServer, client: openai.AsyncOpenAI) -> None:
    conversation = await client.conversations.create()
    first = await asked(server, client, conversation=conversation.id)
    decision: Any = {"type": "mcp_approval_response", "approval_request_id": first.output[-1].id, "approve": True}
    await client.conversations.items.create(conversation.id, items=[decision])
    second = await client.responses.create(model="m", input=[], conversation=conversation.id)
    assert len(calls_of(second)) == 1
    third = await client.responses.create(model="m", input="Thanks.", conversation=conversation.id)
    assert not calls_of(third)


async def test_a_denied_call_says_why(server: ScriptedServer, client: openai.AsyncOpenAI) -> None:
    first = await asked(server, client)
    decision: Any = {
        "type": "mcp_approval_response",
        "approval_request_id": first.output[-1].id,
        "approve": False,
        "reason": "Too expensive.",
    }
    second = await client.responses.create(model="m", input=[decision], previous_response_id=first.id)
    (called,) = calls_of(second)
    assert (called.status, called.output) == ("failed", None)
    assert "Too expensive." in called.error.content[0]["text"]
    assert "Too expensive." in server.turns[-1][1]


async def test_a_client_that_stores_nothing_sends_all_items(server: ScriptedServer, client: openai.AsyncOpenAI) -> None:
    first = await asked(server, client, store=False)
    history: Any = [{"role": "user", "content": "Go."}]
    history += [item.model_dump(exclude_none=True) for item in first.output]
    history.append({"type": "mcp_approval_response", "approval_request_id": first.output[-1].id, "approve": True})
    second = await client.responses.create(model="m", input=history, store=False)
    assert len(calls_of(second)) == 1
    history += [item.model_dump(exclude_none=True) for item in second.output]
    third = await client.responses.create(
        model="m", input=[*history, {"role": "user", "content": "Thanks."}], store=False
    )
    assert not calls_of(third), "a decided call runs once"


async def test_a_call_that_nobody_decides_about_is_left_out(server: ScriptedServer, client: openai.AsyncOpenAI) -> None:
    first = await asked(server, client)
    await client.responses.create(model="m", input="Never mind.", previous_response_id=first.id)
    assert server.turns == [("user", "Go."), ("assistant", "May I?"), ("user", "Never mind.")]


async def test_a_decision_must_be_about_a_call_of_the_conversation(server: ScriptedServer) -> None:
    decision = {"type": "mcp_approval_response", "approval_request_id": "mcpr_other", "approve": True}
    refused = await server.post("/v1/responses", model="m", input=[{"role": "user", "content": "Go."}, decision])
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "input[1].approval_request_id"


async def test_a_call_that_is_approved_needs_its_tool(
    server: ScriptedServer, client: openai.AsyncOpenAI, source: ScriptedTools
) -> None:
    first = await asked(server, client)
    source.offered = (FAIL,)
    decision: Any = {
        "type": "mcp_approval_response",
        "approval_request_id": first.output[-1].id,
        "approve": True,
    }
    second = await client.responses.create(model="m", input=[decision], previous_response_id=first.id)
    assert second.output_text == "Done."
    role, content, *_ = server.turns[-1]
    assert (role, "add" in content) == ("tool", True)


async def test_a_request_can_only_add_to_what_the_server_asks(
    server: ScriptedServer, client: openai.AsyncOpenAI
) -> None:
    first = await asked(server, client, tools=[{**CALC, "require_approval": "never"}])
    assert kinds(first) == ["message", "mcp_approval_request"]
    server.answers = [[call("calc_fail")], ["Done."]]
    second = await client.responses.create(
        model="m",
        input="Go.",
        tools=[{**CALC, "require_approval": {"always": {"tool_names": ["fail"]}, "never": {"tool_names": []}}}],
    )
    assert kinds(second) == ["mcp_approval_request"]
