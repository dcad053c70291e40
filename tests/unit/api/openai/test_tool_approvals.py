"""Calls of the server's tools that wait for their approval in chat completions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest_asyncio

from modelyard.config import AccessKey
from modelyard.config.key_rules import digest_of
from support.scripted_chats import SUM, USER, chat, chunks, news_of, text_of
from support.scripted_server import ScriptedServer, call, scripted_server
from support.scripted_tools import ScriptedTools, add, server_tool


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[ScriptedServer]:
    source = ScriptedTools(server_tool("add", add), server_tool("guarded", add, needs_approval=True))
    async with scripted_server(tmp_path, tools=[source]) as server:
        yield server


async def waiting(client: httpx.AsyncClient, **headers: str) -> dict[str, Any]:
    """The first call that waits for its approval."""
    answer = await client.get("/v1/agent/approvals", params={"wait": 20}, headers=headers)
    (pending,) = answer.json()["data"]
    return dict(pending)


async def decide(client: httpx.AsyncClient, approval: str, decision: str, **fields: Any) -> httpx.Response:
    return await client.post(f"/v1/agent/approvals/{approval}", json={"decision": decision, **fields})


async def test_a_call_waits_until_it_is_approved(server: ScriptedServer) -> None:
    server.answers = [[call("calc_guarded", a=1, b=2)], ["It is 3."]]
    asked = asyncio.create_task(chunks(server))
    pending = await waiting(server.client)
    assert (pending["tool"], pending["server"], pending["model"]) == ("calc_guarded", "calc", "m")
    assert pending["arguments"] == '{"a": 1, "b": 2}'
    assert pending["created_at"] + 300 == pending["expires_at"]
    answer = await decide(server.client, pending["id"], "approve")
    assert (answer.status_code, answer.json()) == (200, {"status": "resolved"})
    read = await asked
    assert text_of(read) == "It is 3."
    begun, required, approved, ended = news_of(read)
    assert (begun["phase"], approved["phase"], ended["phase"]) == ("calling", "approved", "complete")
    assert (required["approval_id"], required["tool"]["name"]) == (pending["id"], "calc_guarded")
    again = await decide(server.client, pending["id"], "approve")
    assert (again.status_code, again.json()["error"]["code"]) == (404, "approval_not_found")
    assert (await server.client.get("/v1/agent/approvals")).json() == {"object": "list", "data": []}


async def test_a_denied_call_is_a_result_that_says_why(server: ScriptedServer) -> None:
    server.answers = [[call("calc_guarded")], ["Then not."]]
    asked = asyncio.create_task(chat(server))
    pending = await waiting(server.client)
    await decide(server.client, pending["id"], "deny", message="Not on a Sunday.")
    answer = await asked
    (made,) = answer["agentic_tool_calls"]
    assert (made["is_error"], made["duration_ms"]) == (True, 0)
    assert server.chat.messages[-1]["content"] == "This call was denied, so it was not run: Not on a Sunday."


async def test_an_approval_may_count_for_the_whole_answer(server: ScriptedServer) -> None:
    server.answers = [[call("calc_guarded", a=1)], [call("calc_guarded", a=2)], ["Done."]]
    asked = asyncio.create_task(chat(server))
    pending = await waiting(server.client)
    await decide(server.client, pending["id"], "approve", remember_for_session=True)
    answer = await asked
    assert [made["result"] for made in answer["agentic_tool_calls"]] == ["1", "2"]


async def test_a_request_may_ask_for_approvals_of_all_calls(server: ScriptedServer) -> None:
    server.answers = [[SUM], ["It is 3."]]
    asked = asyncio.create_task(chunks(server, agent_permission="ask"))
    pending = await waiting(server.client)
    assert pending["tool"] == "calc_add"
    await decide(server.client, pending["id"], "approve")
    assert text_of(await asked) == "It is 3."


async def test_a_decision_is_one_of_two_words(server: ScriptedServer) -> None:
    answer = await decide(server.client, "apr_0", "perhaps")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "decision")


async def test_a_key_sees_and_decides_its_own_calls_alone(tmp_path: Path) -> None:
    keys = [
        AccessKey("alice", digest_of("alice"), None, frozenset({"inference"})),
        AccessKey("bob", digest_of("bob"), None, frozenset({"inference"})),
        AccessKey("root", digest_of("root"), None, frozenset({"inference", "admin"})),
    ]
    source = ScriptedTools(server_tool("guarded", add, needs_approval=True))
    async with scripted_server(tmp_path, tools=[source], keys=keys) as server:
        alice, bob, root = ({"authorization": f"Bearer {key.name}"} for key in keys)
        server.answers = [[call("calc_guarded")], ["Done."]]
        body = {"messages": [USER]}
        asked = asyncio.create_task(server.client.post("/v1/chat/completions", json=body, headers=alice))
        pending = await waiting(server.client, **alice)
        path = f"/v1/agent/approvals/{pending['id']}"
        assert (await server.client.get("/v1/agent/approvals", headers=bob)).json()["data"] == []
        assert (await server.client.post(path, json={"decision": "approve"}, headers=bob)).status_code == 404
        assert (await waiting(server.client, **root))["id"] == pending["id"]
        assert (await server.client.post(path, json={"decision": "approve"}, headers=alice)).status_code == 200
        assert (await asked).json()["agentic_tool_calls"][0]["result"] == "0"


async def test_to_ask_for_approvals_needs_a_stream(server: ScriptedServer) -> None:
    answer = await server.post("/v1/chat/completions", messages=[USER], agent_permission="ask")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
    assert answer.json()["error"]["param"] == "agent_permission"
