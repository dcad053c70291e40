"""Functions of a program, and tools of an MCP server, that a real model is forced to call."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from modelyard import Model, ModelBuilder, TextModelBuilder, ToolApproval, start_server

WAIT_S = 60.0
SERVER_TIME = {"command": sys.executable, "args": ["-m", "mcp_server_time", "--local-timezone", "UTC"]}


def population(city: str) -> int:
    """Return how many people live in a city.

    Args:
        city: Name of the city.
    """
    return {"Paris": 2_100_000}.get(city, 500_000)


async def rooms() -> list[str]:
    """List the rooms that are free."""
    return ["garden", "tower"]


def smollm2(weights: dict[str, Path]) -> ModelBuilder:
    return TextModelBuilder(weights["smollm2"]).with_max_seq_len(2048).with_max_tool_rounds(1)


@pytest.fixture(scope="module")
def asked() -> list[ToolApproval]:
    return []


@pytest.fixture(scope="module")
def model(weights: dict[str, Path], asked: list[ToolApproval]) -> Iterator[Model]:
    def approve(call: ToolApproval) -> bool:
        asked.append(call)
        return True

    builder = smollm2(weights).with_tools([population, rooms]).with_tool_approval(approve)
    with builder.with_mcp_config({"mcpServers": {"time": SERVER_TIME}}).build() as model:
        yield model


def test_a_function_is_called_with_what_the_model_makes_of_the_question(
    model: Model, asked: list[ToolApproval]
) -> None:
    question = "How many people live in Paris?"
    completion = model.send_chat_request(question, tool_choice=population, temperature=0, max_tokens=60)
    (made,) = completion.agentic_tool_calls or []
    assert (made.name, json.loads(made.arguments), made.result) == ("population", {"city": "Paris"}, "2100000")
    assert completion.choices[0].message.content
    assert asked[-1].arguments == {"city": "Paris"}
    with model.stream_chat_request(question, tool_choice="population", temperature=0, max_tokens=60) as stream:
        chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == completion.choices[0].message.content
    assert chunks[-1].usage == completion.usage.model_copy(
        update={"prompt_tokens_details": chunks[-1].usage and chunks[-1].usage.prompt_tokens_details}
    )


def test_a_tool_of_an_mcp_server_is_called(model: Model) -> None:
    (server,) = model.mcp_servers
    assert (server.name, server.state) == ("time", "connected")
    assert {"population", "rooms", "time_get_current_time"} <= {tool.name for tool in model.tools}
    completion = model.send_chat_request(
        "What time is it in UTC?", tool_choice="time_get_current_time", temperature=0, max_tokens=80
    )
    (made,) = completion.agentic_tool_calls or []
    assert (made.name, made.server) == ("time_get_current_time", "time")
    assert made.result


def test_a_server_on_the_model_calls_its_functions(model: Model) -> None:
    body = {
        "messages": [{"role": "user", "content": "Which rooms are free?"}],
        "tool_choice": {"type": "function", "function": {"name": "rooms"}},
        "max_tokens": 40,
        "temperature": 0,
    }
    with start_server(model, port=0) as server:
        answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=WAIT_S).json()
        listed = httpx.get(f"{server.url}/v1/models", timeout=WAIT_S).json()["data"][0]
    (made,) = answer["agentic_tool_calls"]
    assert made["result"] == '["garden","tower"]'
    # Functions are no tools of MCP servers.
    assert listed["mcp_servers_connected"] == 1
    assert listed["mcp_tools_count"] == len([tool for tool in model.tools if tool.server == "time"])


def test_an_mcp_server_that_fails_stops_nothing(weights: dict[str, Path]) -> None:
    builder = smollm2(weights).with_mcp_server("broken", command=sys.executable, args=["-c", "raise SystemExit(3)"])
    with builder.with_tools([rooms]).build() as model:
        (server,) = model.mcp_servers
        assert server.state == "failed"
        assert server.reason
        assert [tool.name for tool in model.tools] == ["rooms"]
        assert model.send_chat_request("Hello!", max_tokens=4).usage.completion_tokens
