"""The suites of the protocol's authors against our MCP server, and their inspector."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from support.client_environments import INSTALL_S, mcp_suite, npm_package
from support.server import RunningServer

RUN_S: Final = 110

APPLY: Final = {
    "server-initialize",
    "ping",
    "tools-list",
    "resources-list",
    "server-sse-polling",
    "server-sse-multiple-streams",
    "dns-rebinding-protection",
}

TEST_TOOL: Final = "calls a tool that only servers made for this suite have"
TEST_RESOURCE: Final = "reads a resource that only servers made for this suite have"
NO_PROMPTS: Final = "needs prompts, of which a server of models has none"

DO_NOT_APPLY: Final = {
    "logging-set-level": "needs logs as notifications, which the protocol has removed; the server has its own log",
    "completion-complete": "completes an argument of a prompt of this suite",
    **dict.fromkeys(
        (
            "tools-call-simple-text",
            "tools-call-image",
            "tools-call-audio",
            "tools-call-embedded-resource",
            "tools-call-mixed-content",
            "tools-call-with-logging",
            "tools-call-error",
            "tools-call-with-progress",
            "tools-call-sampling",
            "tools-call-elicitation",
            "json-schema-2020-12",
            "elicitation-sep1034-defaults",
            "elicitation-sep1330-enums",
        ),
        TEST_TOOL,
    ),
    **dict.fromkeys(
        (
            "resources-read-text",
            "resources-read-binary",
            "resources-templates-read",
            "resources-subscribe",
            "resources-unsubscribe",
        ),
        TEST_RESOURCE,
    ),
    **dict.fromkeys(
        (
            "prompts-list",
            "prompts-get-simple",
            "prompts-get-with-args",
            "prompts-get-embedded-resource",
            "prompts-get-with-image",
        ),
        NO_PROMPTS,
    ),
}


@pytest.mark.long
@pytest.mark.timeout(INSTALL_S + RUN_S)
def test_the_suite_passes_as_far_as_it_applies(server: RunningServer) -> None:
    command = ["node", mcp_suite(), "server", "--url", f"{server.url}/mcp", "--suite", "all"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=RUN_S)
    outcomes = dict(re.findall(r"^(?:✓|✗) ([\w-]+): (\d+ passed, \d+ failed)", ran.stdout, re.MULTILINE))
    assert set(outcomes) == APPLY | set(DO_NOT_APPLY), ran.stdout[-2000:]
    failed = {name: outcomes[name] for name in APPLY if not outcomes[name].endswith(" 0 failed")}
    assert failed == {}, ran.stdout[-4000:]


def inspect(inspector: Path, server: RunningServer, *arguments: str) -> dict[str, Any]:
    program = inspector / "cli" / "build" / "cli.js"
    command = ["node", program, "--cli", f"{server.url}/mcp", "--transport", "http", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=RUN_S)
    assert ran.returncode == 0, ran.stderr
    answer: dict[str, Any] = json.loads(ran.stdout)
    return answer


@pytest.mark.long
@pytest.mark.timeout(INSTALL_S + RUN_S)
def test_the_inspector_lists_calls_and_reads(server: RunningServer) -> None:
    inspector = npm_package("@modelcontextprotocol/inspector", "0.17.2")
    tools = inspect(inspector, server, "--method", "tools/list")["tools"]
    assert [tool["name"] for tool in tools][:2] == ["chat", "embed"]
    arguments = ["--tool-name", "chat", "--tool-arg", "prompt=Hi", "--tool-arg", "max_tokens=4"]
    called = inspect(inspector, server, "--method", "tools/call", *arguments)
    assert called["structuredContent"]["usage"]["completion_tokens"] <= 4
    uri = inspect(inspector, server, "--method", "resources/list")["resources"][0]["uri"]
    read = inspect(inspector, server, "--method", "resources/read", "--uri", uri)
    assert json.loads(read["contents"][0]["text"])["object"] == "model"
