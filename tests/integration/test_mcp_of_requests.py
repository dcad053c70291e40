"""MCP servers that requests name by URL: Responses and Anthropic's dialect connect to a real one for one answer."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from modelyard.config import AccessKey
from modelyard.config.key_rules import digest_of
from support.mcp_clients import free_port
from support.scripted_server import ScriptedServer, call, scripted_server

SERVER = """
import sys
from fastmcp import FastMCP
from fastmcp.server.dependencies import get_http_headers

server = FastMCP("numbers")

@server.tool(annotations={"readOnlyHint": True})
def add(a: int, b: int) -> int:
    "Add two numbers."
    return a + b

@server.tool
def token() -> str:
    "Return the token that the request was sent with."
    return get_http_headers(include_all=True).get("authorization", "none")

server.run(transport="http", host="127.0.0.1", port=int(sys.argv[1]), show_banner=False)
"""
WAIT_S = 60.0
UNFINISHED = ("queued", "in_progress")


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The URL of a server of fastmcp."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + WAIT_S
        while not listens(port):
            assert time.monotonic() < deadline, "the server has not started in time"
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.terminate()
        process.wait(WAIT_S)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ScriptedServer]:
    async with scripted_server(tmp_path, mcp={"allow_request_servers": ["127.0.0.1"]}) as server:
        yield server


async def test_a_response_calls_the_tools_of_a_server_that_it_names(server: ScriptedServer, url: str) -> None:
    server.answers = [[call("numbers_add", a=1, b=2)], ["It is 3."]]
    tool = {"type": "mcp", "server_label": "numbers", "server_url": url, "require_approval": "never"}
    answer = (await server.post("/v1/responses", model="m", input="1 + 2?", tools=[tool])).json()
    listed, called, message = answer["output"]
    assert [each["name"] for each in listed["tools"]] == ["add", "token"]
    assert (called["server_label"], called["name"], called["output"]) == ("numbers", "add", "3")
    assert message["content"][0]["text"] == "It is 3."


async def test_calls_need_an_approval_unless_the_request_says_otherwise(server: ScriptedServer, url: str) -> None:
    server.answers = [[call("numbers_add", a=1, b=2)], ["It is 3."]]
    tool = {"type": "mcp", "server_label": "numbers", "server_url": url}
    first = (await server.post("/v1/responses", model="m", input="1 + 2?", tools=[tool])).json()
    request = first["output"][-1]
    assert request["type"] == "mcp_approval_request"
    decision = {"type": "mcp_approval_response", "approval_request_id": request["id"], "approve": True}
    # The server is connected again.
    second = await server.post(
        "/v1/responses", model="m", input=[decision], previous_response_id=first["id"], tools=[tool]
    )
    assert [item["type"] for item in second.json()["output"]] == ["mcp_call", "message"]
    assert server.turns[-1] == ("tool", "3")


async def test_filters_and_secrets_reach_the_server_and_nobody_else(server: ScriptedServer, url: str) -> None:
    server.answers = [[call("numbers_token")], ["Done."]]
    tool = {
        "type": "mcp",
        "server_label": "numbers",
        "server_url": f"{url}?key=secret-of-url",
        "authorization": "secret",
        "headers": {"X-Key": "secret-of-header"},
        "allowed_tools": {"read_only": False},
        "require_approval": {"never": {"tool_names": ["token"]}},
    }
    answer = await server.post("/v1/responses", model="m", input="Go.", tools=[tool])
    assert server.offered == ["numbers_token"]
    assert answer.json()["output"][1]["output"] == "Bearer secret"
    stored = (await server.client.get(f"/v1/responses/{answer.json()['id']}")).json()
    for shown in (answer.json(), stored):
        (echoed,) = shown["tools"]
        assert not {"authorization", "headers", "server_url"} & set(echoed)
        assert "secret-of" not in json.dumps(shown)


async def test_a_response_in_the_background_keeps_its_connection(server: ScriptedServer, url: str) -> None:
    server.answers = [[call("numbers_add", a=1, b=2)], ["It is 3."]]
    tool = {"type": "mcp", "server_label": "numbers", "server_url": url, "require_approval": "never"}
    queued = (await server.post("/v1/responses", model="m", input="Go.", tools=[tool], background=True)).json()
    deadline = time.monotonic() + WAIT_S
    while (response := (await server.client.get(f"/v1/responses/{queued['id']}")).json())["status"] in UNFINISHED:
        assert time.monotonic() < deadline
    assert [item["type"] for item in response["output"]] == ["mcp_list_tools", "mcp_call", "message"]


@pytest.mark.parametrize("streams", [False, True])
async def test_a_message_calls_the_tools_of_a_server_that_it_names(
    server: ScriptedServer, url: str, streams: bool
) -> None:
    server.answers = [[call("numbers_token")], ["Done."]]
    named = {"type": "url", "url": url, "name": "numbers", "authorization_token": "secret"}
    answer = await server.post(
        "/v1/messages",
        model="m",
        max_tokens=9,
        messages=[{"role": "user", "content": "Go."}],
        mcp_servers=[{**named, "tool_configuration": {"allowed_tools": ["token"]}}],
        stream=streams,
    )
    assert answer.status_code == 200, answer.text
    assert server.offered == ["numbers_token"]
    assert server.turns[-1] == ("tool", "Bearer secret")
    assert '"mcp_tool_result"' in answer.text


async def test_names_of_tools_stay_unique(server: ScriptedServer, url: str) -> None:
    function = {"type": "function", "name": "numbers_add", "parameters": {"type": "object"}}
    tools = [{"type": "mcp", "server_label": "numbers", "server_url": url}, function]
    await server.post("/v1/responses", model="m", input="Go.", tools=tools)
    assert len(set(server.offered)) == 3


def named(url: str) -> dict[str, Any]:
    return {"model": "m", "input": "Go.", "tools": [{"type": "mcp", "server_label": "n", "server_url": url}]}


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("https://mcp.example/mcp", "allow_request_servers"),
        ("http://localhost/mcp", "allow_request_servers"),
        ("http://127.0.0.1:1/mcp", "cannot be used"),
        ("file:///etc/passwd", "http"),
        ("http://me:secret@127.0.0.1/mcp", "user name or a password"),
    ],
)
async def test_a_server_that_cannot_be_used_is_refused(server: ScriptedServer, address: str, message: str) -> None:
    refused = await server.post("/v1/responses", **named(address))
    assert refused.status_code == 400
    assert message in refused.json()["error"]["message"]
    assert refused.json()["error"]["param"] == "tools[0]"
    assert "secret" not in refused.text


async def test_no_host_is_allowed_unless_the_operator_lists_it(tmp_path: Path, url: str) -> None:
    async with scripted_server(tmp_path) as server:
        refused = await server.post("/v1/responses", **named(url))
        assert refused.status_code == 400
        assert "allow_request_servers" in refused.json()["error"]["message"]


async def test_a_key_that_is_limited_to_servers_names_no_others(tmp_path: Path, url: str) -> None:
    keys = [AccessKey("k", digest_of("secret"), None, frozenset({"inference"}), mcp_servers=frozenset())]
    async with scripted_server(tmp_path, keys=keys, mcp={"allow_request_servers": ["127.0.0.1"]}) as server:
        headers = {"Authorization": "Bearer secret"}
        refused: httpx.Response = await server.client.post("/v1/responses", json=named(url), headers=headers)
    assert refused.status_code == 403
    assert "MCP" in refused.json()["error"]["message"]
