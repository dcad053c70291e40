"""Calls that a function of the program, or somebody over HTTP, approves or denies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from modelyard import FunctionTool, ModelBuilder, MultiModelBuilder, ToolApproval, start_server
from support.program_tools import Build, weather
from support.scripted_engines import ScriptedEngines

WAIT_S = 20.0


def test_a_function_approves_calls_or_denies_them_with_a_reason(
    tiny: Callable[[], ModelBuilder], build: Build, engines: ScriptedEngines
) -> None:
    asked: list[ToolApproval] = []
    decisions: list[Any] = [True, False, "not on Sundays", ValueError("broken"), 3]

    def approve(approval: ToolApproval) -> bool | str:
        asked.append(approval)
        decision = decisions[len(asked) - 1]
        if isinstance(decision, Exception):
            raise decision
        return decision  # type: ignore[no-any-return]

    model = build(
        MultiModelBuilder().add_model_with_alias("a", tiny()).with_tools([weather]).with_tool_approval(approve)
    )
    results = []
    for _ in decisions:
        (made,) = model.send_chat_request("How is Rome?").agentic_tool_calls or []
        results.append((made.is_error, made.result))
    assert asked == [ToolApproval("weather", "program", {"city": "Rome"}, "a")] * 5
    assert "Rome" not in repr(asked[0])
    assert results[0] == (False, '{"city":"Rome","degrees":4}')
    assert [is_error for is_error, _ in results[1:]] == [True] * 4
    assert "denied" in results[1][1]
    assert results[2][1].endswith("not on Sundays")
    assert "failed" in results[3][1]
    assert "failed" in results[4][1]
    assert all(tool.needs_approval for tool in model.tools)


def test_approvals_may_be_asynchronous_and_belong_to_one_model(
    tiny: Callable[[], ModelBuilder], build: Build, engines: ScriptedEngines
) -> None:
    async def never(approval: ToolApproval) -> bool:
        return False

    builder = (
        MultiModelBuilder()
        .add_model_with_alias("a", tiny().with_tool_approval(never))
        .add_model_with_alias("b", tiny())
        .with_tools([weather])
    )
    model = build(builder)
    (made,) = model.send_chat_request_with_model("How is Rome?", "a").agentic_tool_calls or []
    assert made.is_error
    (made,) = model.send_chat_request_with_model("How is Rome?", "b").agentic_tool_calls or []
    assert not made.is_error
    with model.stream_chat_request_with_model("How is Rome?", "a") as stream:
        chunks = list(stream)
    (waiting,) = [each.agentic_tool_approval_required for each in chunks if each.agentic_tool_approval_required]
    assert waiting.tool["name"] == "weather"
    phases = [each.agentic_tool_call_progress.phase for each in chunks if each.agentic_tool_call_progress]
    assert phases == ["calling", "denied", "complete"]


@pytest.mark.parametrize("fault", [ValueError("broken"), SystemExit(3), asyncio.CancelledError("of its own")])
def test_an_asynchronous_approval_that_fails_denies_the_call_at_once(
    tiny: Callable[[], ModelBuilder], build: Build, fault: BaseException
) -> None:
    async def approve(approval: ToolApproval) -> bool:
        raise fault

    model = build(tiny().with_tools([weather]).with_tool_approval(approve))
    (made,) = model.send_chat_request("How is Rome?").agentic_tool_calls or []
    assert made.is_error
    assert "its approval failed" in made.result


def test_an_approval_runs_on_a_thread_of_its_own(tiny: Callable[[], ModelBuilder], build: Build) -> None:
    def approve(approval: ToolApproval) -> bool:
        # It may use the model, which a callback on its event loop could not.
        return bool(model.list_models())

    model = build(tiny().with_tools([weather]).with_tool_approval(approve))
    (made,) = model.send_chat_request("How is Rome?").agentic_tool_calls or []
    assert not made.is_error


def test_a_call_that_waits_for_its_approval_is_decided_over_http(
    tiny: Callable[[], ModelBuilder], build: Build, engines: ScriptedEngines
) -> None:
    model = build(tiny().with_tools([FunctionTool(weather, needs_approval=True)]))
    with start_server(model, port=0) as server, ThreadPoolExecutor(1) as asking:
        answer = asking.submit(model.send_chat_request, "How is Rome?")
        waiting = httpx.get(f"{server.url}/v1/agent/approvals", params={"wait": WAIT_S}, timeout=2 * WAIT_S).json()
        (pending,) = waiting["data"]
        assert (pending["tool"], pending["server"]) == ("weather", "program")
        decided = httpx.post(
            f"{server.url}/v1/agent/approvals/{pending['id']}",
            json={"decision": "deny", "message": "not now"},
            timeout=WAIT_S,
        )
        assert decided.json() == {"status": "resolved"}
        (made,) = answer.result(WAIT_S).agentic_tool_calls or []
    assert made.is_error
    assert made.result.endswith("not now")


def test_a_client_of_responses_cannot_approve_what_the_program_denies(
    tiny: Callable[[], ModelBuilder], build: Build
) -> None:
    asked: list[ToolApproval] = []

    def approve(approval: ToolApproval) -> str:
        asked.append(approval)
        return "never"

    model = build(tiny().with_tools([weather]).with_tool_approval(approve))
    call = {"id": "mcpr_1", "server_label": "program", "name": "weather", "arguments": '{"city": "Rome"}'}
    approved = [
        {"role": "user", "content": "How is Rome?"},
        {"type": "mcp_approval_request", **call},
        {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True},
    ]
    with start_server(model, port=0) as server:
        for given, calls in (("How is Rome?", 1), (approved, 1)):
            answer = httpx.post(f"{server.url}/v1/responses", json={"input": given}, timeout=WAIT_S).json()
            made = [item for item in answer["output"] if item["type"] == "mcp_call"]
            assert len(made) == calls
            assert not any(item["type"] == "mcp_approval_request" for item in answer["output"])
            assert all("never" in json.dumps(item) for item in made), made
    assert [each.arguments for each in asked] == [{"city": "Rome"}] * 2
