"""Our MCP client against the servers of the protocol's authors on npm, and against their suite."""

import json
import re
import subprocess
import sys
from typing import Final

import pytest

from support.client_environments import INSTALL_S, mcp_suite, npm_package
from support.mcp_clients import PEERS, call, connected, tools_of

SERVERS_VERSION: Final = "2026.8.31"
RUN_S: Final = 60

APPLY: Final = ("initialize", "tools_call", "sse-retry")
"""Scenarios of the suite for clients. The others are about OAuth, which operators' tokens stand for, and about
elicitation, which there is nobody to answer."""


def node_server(name: str, *arguments: str, **keys: object) -> dict[str, object]:
    program = npm_package(f"@modelcontextprotocol/server-{name}", SERVERS_VERSION) / "dist" / "index.js"
    return {"name": name, "command": "node", "args": [str(program), *arguments], **keys}


@pytest.mark.long
@pytest.mark.timeout(3 * INSTALL_S + RUN_S)
async def test_the_servers_of_the_protocols_authors_are_used(tmp_path):
    (tmp_path / "a.txt").write_text("the content")
    servers = [
        node_server("everything", "stdio", resources=["demo://resource/static/document/features.md"]),
        node_server("filesystem", str(tmp_path)),
        node_server("memory", env={"MEMORY_FILE_PATH": str(tmp_path / "memory.jsonl")}),
    ]
    async with connected(*servers) as clients:
        assert [status.state for status in clients.statuses()] == ["connected"] * 3
        assert (await call(clients, "echo", message="hi")).text == "Echo: hi"
        assert "[An image is left out: image/png" in (await call(clients, "get-tiny-image")).text
        assert "[Resource " in (await call(clients, "get-resource-links", count=2)).text
        structured = await call(clients, "get-structured-content", location="New York")
        assert "temperature" in json.loads(structured.text)
        reports = []
        slow = tools_of(clients)["trigger-long-running-operation"]
        assert "completed" in (await slow.run({"duration": 1, "steps": 3}, reports.append)).text
        assert [report.progress for report in reports] == [1, 2, 3]
        # What needs a person is not offered, since the client declares no such capability.
        assert not {"trigger-sampling-request", "trigger-elicitation-request"} & tools_of(clients).keys()
        assert (await call(clients, "read_text_file", path=str(tmp_path / "a.txt"))).text == "the content"
        denied = await call(clients, "read_text_file", path="/etc/hostname")
        assert (denied.is_error, denied.text.startswith("Access denied")) == (True, True)
        entity = {"name": "sea", "entityType": "water", "observations": ["deep"]}
        assert not (await call(clients, "create_entities", entities=[entity])).is_error
        assert json.loads((await call(clients, "read_graph")).text)["entities"] == [entity]


@pytest.mark.long
@pytest.mark.timeout(INSTALL_S + RUN_S)
@pytest.mark.parametrize("scenario", APPLY)
def test_the_suite_for_clients_passes(scenario):
    client = f"{sys.executable} {PEERS / 'suite_client.py'}"
    command = ["node", mcp_suite(), "client", "--command", client, "--scenario", scenario]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=RUN_S)
    passed = re.search(r"Passed: ([1-9]\d*)/\d+, 0 failed", ran.stderr)
    assert passed, ran.stderr[-3000:]
