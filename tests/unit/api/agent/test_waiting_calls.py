"""Requests that wait for calls to approve, when the server stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio

from modelyard.api.services import Services
from support.scripted_server import ScriptedServer, call, scripted_server
from support.scripted_tools import ScriptedTools, add, server_tool

WAIT_S = 20


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[ScriptedServer]:
    source = ScriptedTools(server_tool("guarded", add, needs_approval=True))
    async with scripted_server(tmp_path, tools=[source]) as server:
        yield server


async def waiting(server: ScriptedServer) -> list[dict[str, Any]]:
    """The calls that wait, at once or for longer than a test may."""
    async with asyncio.timeout(WAIT_S):
        answer = await server.client.get("/v1/agent/approvals", params={"wait": 60})
    return list(answer.json()["data"])


async def test_they_do_not_hold_up_the_stop(server: ScriptedServer) -> None:
    services: Services = server.app.state.services
    asked = asyncio.create_task(waiting(server))
    async with asyncio.timeout(WAIT_S):
        while not services.yard.monitor.dismiss_observers(for_good=False):  # noqa: ASYNC110 (nothing announces it)
            await asyncio.sleep(0.01)
    assert await asked == []


async def test_after_it_they_return_the_calls_that_wait_already(server: ScriptedServer) -> None:
    services: Services = server.app.state.services
    services.yard.monitor.dismiss_observers()
    assert await waiting(server) == []
    server.answers = [[call("calc_guarded")], ["Then not."]]
    with services.agent.approvals.observer() as changes:
        body = {"messages": [{"role": "user", "content": "Hi"}]}
        asked = asyncio.create_task(server.post("/v1/chat/completions", **body))
        async with asyncio.timeout(WAIT_S):
            pending = (await anext(changes)).pending
    assert [each["id"] for each in await waiting(server)] == [pending.id]
    await server.post(f"/v1/agent/approvals/{pending.id}", decision="deny")
    assert (await asked).status_code == 200
