"""MCP clients of both kinds against the real server with real weights, over HTTP and over standard streams."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import fastmcp
import httpx
import pytest
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from modelyard.config import validate_config
from support.server import WAIT_S, RunningServer, serving

PROMPT = "Name three colours."
SETTINGS: dict[str, Any] = {"temperature": 0, "max_tokens": 24}


@pytest.fixture(scope="module")
def server(weights: dict[str, Path], minilm: Path) -> Iterator[RunningServer]:
    models = [
        {"model_id": str(weights["smollm2"]), "alias": "smol", "device": {"max_seq_len": 2048}},
        {"model_id": str(minilm), "alias": "minilm", "load": "on-demand"},
    ]
    with serving(validate_config({"models": models, "default_model_id": "smol"})) as running:
        yield running


@asynccontextmanager
async def session_at(url: str) -> AsyncIterator[ClientSession]:
    async with streamable_http_client(f"{url}/mcp") as streams, ClientSession(*streams) as session:
        await session.initialize()
        yield session


def answer_over_http(server: RunningServer) -> str:
    body = {"messages": [{"role": "user", "content": PROMPT}], **SETTINGS}
    return str(server.post("/v1/chat/completions", body).json()["choices"][0]["message"]["content"])


async def test_the_official_client_gets_the_answer_of_http_and_hears_of_it_as_it_is_written(
    server: RunningServer,
) -> None:
    reports: list[tuple[float, float | None, str | None]] = []

    async def report(progress: float, total: float | None, message: str | None) -> None:
        reports.append((progress, total, message))

    async with session_at(server.url) as client:
        result = await client.call_tool("chat", {"prompt": PROMPT, **SETTINGS}, progress_callback=report)
    assert not result.is_error
    answer = result.content[0].text  # type: ignore[union-attr]
    assert answer == answer_over_http(server)
    assert result.structured_content["choices"][0]["message"]["content"] == answer
    assert result.structured_content["usage"]["completion_tokens"] == reports[-1][0]
    assert "".join(message or "" for _, _, message in reports) == answer
    assert len(reports) > 1
    assert [total for _, total, _ in reports] == [24.0] * len(reports)


async def test_texts_are_embedded_and_the_load_of_the_model_is_reported(server: RunningServer) -> None:
    reports: list[float] = []

    async def report(progress: float, _total: float | None, _message: str | None) -> None:
        reports.append(progress)

    async with session_at(server.url) as client:
        arguments = {"input": ["red", "blue"], "model": "minilm"}
        result = await client.call_tool("embed", arguments, progress_callback=report)
        vectors = [each["embedding"] for each in result.structured_content["data"]]
        assert [len(vector) for vector in vectors] == [384, 384]
        assert json.loads(result.content[0].text) == result.structured_content  # type: ignore[union-attr]
        assert all(0 <= value < 1 for value in reports)
        over_http = server.post("/v1/embeddings", arguments).json()
        assert over_http["data"] == result.structured_content["data"]
        refused = await client.call_tool("embed", {"input": "red", "model": "smol"})
        assert refused.is_error


async def test_fastmcps_client_lists_and_calls(server: RunningServer) -> None:
    async with fastmcp.Client(f"{server.url}/mcp") as client:
        assert [tool.name for tool in await client.list_tools()][:3] == ["chat", "embed", "rerank"]
        result = await client.call_tool("chat", {"prompt": PROMPT, **SETTINGS})
        assert result.content[0].text == answer_over_http(server)
        models = await client.call_tool("list_models", {})
        assert [model["id"] for model in models.structured_content["data"]] == ["smol", "minilm"]
        (content,) = await client.read_resource("modelyard://models/smol")
        assert json.loads(content.text)["status"] == "loaded"


def test_a_disconnect_in_the_middle_ends_the_sequence(server: RunningServer) -> None:
    headers = {"accept": "application/json, text/event-stream"}
    with httpx.Client(base_url=server.url, timeout=WAIT_S) as client:
        info = {"name": "test", "version": "1"}
        opening = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info}
        message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": opening}
        opened = client.post("/mcp", json=message, headers=headers)
        session = {**headers, "mcp-session-id": opened.headers["mcp-session-id"]}
        note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        assert client.post("/mcp", json=note, headers=session).status_code == 202
        arguments = {"prompt": "Count to a thousand.", "max_tokens": 1500, "ignore_eos": True, "temperature": 0}
        params = {"name": "chat", "arguments": arguments, "_meta": {"progressToken": 1}}
        call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params}
        with client.stream("POST", "/mcp", json=call, headers=session) as answer:
            lines = answer.iter_lines()
            assert any("notifications/progress" in line for line in lines)
            assert server.read(lambda: len(server.yard.monitor.running())) == 1
        server.settle()
        assert server.read(lambda: len(server.yard.monitor.running())) == 0


@asynccontextmanager
async def program(*arguments: str, environ: dict[str, str]) -> AsyncIterator[ClientSession]:
    """A session with ``modelyard mcp serve`` as a program that starts its MCP servers has it."""
    command = ["-m", "modelyard", "mcp", "serve", *arguments]
    parameters = StdioServerParameters(command=sys.executable, args=command, env={**os.environ, **environ})
    async with stdio_client(parameters) as streams, ClientSession(*streams) as session:
        await session.initialize()
        yield session


async def test_a_program_reaches_a_running_server_by_standard_streams(server: RunningServer, tmp_path: Path) -> None:
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
    async with program("--url", server.url, environ=environ) as client:
        result = await client.call_tool("chat", {"prompt": PROMPT, **SETTINGS})
        assert result.content[0].text == answer_over_http(server)  # type: ignore[union-attr]
        assert [resource.name for resource in (await client.list_resources()).resources] == ["smol", "minilm"]


async def test_a_program_has_models_of_its_own(weights: dict[str, Path], tmp_path: Path) -> None:
    environ = {"XDG_RUNTIME_DIR": str(tmp_path), "XDG_STATE_HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    async with program(str(weights["smollm2"]), "--ctx", "1024", environ=environ) as client:
        (model,) = (await client.call_tool("list_models", {})).structured_content["data"]
        assert model["status"] == "unloaded"
        result = await client.call_tool("chat", {"prompt": PROMPT, **SETTINGS})
        assert not result.is_error
        assert result.structured_content["usage"]["completion_tokens"] > 0


def test_standard_output_has_the_protocol_alone_and_the_program_ends_with_standard_input(
    weights: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "models.toml").write_text(f'[[models]]\nmodel_id = "{weights["smollm2"]}"\nalias = "smol"\n')
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize"}
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    command = [sys.executable, "-m", "modelyard", "mcp", "serve", "-f", str(tmp_path / "models.toml")]
    environ = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({**message, "params": params}).encode() + b"\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        assert answer["result"]["serverInfo"]["name"] == "modelyard"
        process.stdin.close()
        assert process.stdout.read() == b""
        assert process.wait(WAIT_S) == 0


def test_a_program_without_a_server_says_so_on_standard_error(tmp_path: Path) -> None:
    environ = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "XDG_STATE_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "modelyard", "mcp", "serve", "--url", "127.0.0.1:9"]
    ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env=environ, timeout=WAIT_S)
    assert ran.returncode != 0
    assert ran.stdout == b""
    assert b"127.0.0.1:9" in ran.stderr
