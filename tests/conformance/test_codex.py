"""Codex, OpenAI's coding agent, with its defaults, against a model whose answers are the calls that a good one makes.

The program itself is run by ``long`` tests, from its npm package. The other test plays what it sends: its tools, its
items, and the fields of version 0.171.0, without the texts of its prompts.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard.cli.client.launching import CLIENTS, Target
from modelyard.config import validate_config
from modelyard.protocol.prompts import Chat
from modelyard.protocol.requests import Submit
from support.client_environments import INSTALL_S, npm_package
from support.gguf_writer import tiny_model, write
from support.scripted_engines import ScriptedEngines
from support.scripted_server import HERMES, ScriptedServer, call, scripted_server
from support.server import serving

VERSION = "0.171.0"
RUN_S = 60


def function(name: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "additionalProperties": False}
    return {"type": "function", "name": name, "description": "A tool.", "strict": False, "parameters": parameters}


TEXT = {"type": "string", "description": "A text."}
TOOLS = [
    function("exec_command", cmd=TEXT, workdir=TEXT, yield_time_ms={"type": "number"}),
    function("write_stdin", chars=TEXT, session_id={"type": "number"}),
    function("update_plan", plan={"type": "array", "items": {"type": "object"}}),
    {
        "type": "custom",
        "name": "apply_patch",
        "description": "Edits files.",
        "format": {"type": "grammar", "syntax": "lark", "definition": 'start: "*** Begin Patch" /(.|\\n)+/'},
    },
    function("view_image", path=TEXT),
    {
        "type": "namespace",
        "name": "multi_agent_v1",
        "description": "Tools for sub-agents.",
        "tools": [function("spawn_agent", message=TEXT), function("wait", ids={"type": "array", "items": TEXT})],
    },
    {"type": "tool_search", "execution": "client", "description": "Searches.", "parameters": {"type": "object"}},
    {"type": "web_search", "external_web_access": True},
    {"type": "image_generation", "output_format": "png"},
]
PATCH = "*** Begin Patch\n*** Add File: hello.txt\n+Hello\n*** End Patch\n"


def message(role: str, text: str) -> dict[str, Any]:
    return {
        "type": "message",
        "id": "msg_c2506b79-3cde",
        "role": role,
        "content": [{"type": "input_text", "text": text}],
    }


async def turn(server: ScriptedServer, history: list[dict[str, Any]], *answer: str) -> list[dict[str, Any]]:
    """Send the history as Codex does, and add the items of the answer to it as Codex keeps them."""
    server.answers = [answer]
    events = await server.events(
        model="m",
        input=history,
        tools=TOOLS,
        tool_choice="auto",
        parallel_tool_calls=True,
        reasoning={"summary": "auto"},
        store=False,
        include=["reasoning.encrypted_content"],
        prompt_cache_key="01a22979-77df-77a0-bf00-2d26cdb5caa6",
        client_metadata={"x-codex-installation-id": "a651defa"},
    )
    assert (events[0]["type"], events[-1]["type"]) == ("response.created", "response.completed")
    items: list[dict[str, Any]] = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    for item in items:
        kept = {name: value for name, value in item.items() if name != "status"}
        if item["type"] == "reasoning":
            # Codex does not send back the text of reasoning, only what it may not read.
            del kept["content"]
        history.append(kept)
    return items


async def test_what_codex_sends_leads_a_task_to_its_end(tmp_path: Path) -> None:
    async with scripted_server(tmp_path) as server:
        history = [
            message("developer", "You are a coding agent."),
            message("developer", "<skills_instructions>None.</skills_instructions>"),
            message("user", "<environment_context><cwd>/work</cwd></environment_context>"),
            message("user", "Create hello.txt."),
        ]
        looks = [call("exec_command", cmd=command) for command in ("ls", "pwd")]
        thought, asked, _ = await turn(server, history, "<think>Look first.</think>", *looks)
        assert (thought["type"], asked["name"]) == ("reasoning", "exec_command")
        assert json.loads(asked["arguments"]) == {"cmd": "ls"}
        history += [
            {"type": "function_call_output", "call_id": item["call_id"], "output": "Output:\n"}
            for item in history
            if item["type"] == "function_call"
        ]
        (patch,) = await turn(server, history, call("apply_patch", input=PATCH))
        assert (patch["type"], patch["name"], patch["input"]) == ("custom_tool_call", "apply_patch", PATCH)
        history.append({"type": "custom_tool_call_output", "call_id": patch["call_id"], "output": "Success."})
        (spawned,) = await turn(server, history, call("multi_agent_v1__spawn_agent", message="Check it."))
        assert (spawned["namespace"], spawned["name"]) == ("multi_agent_v1", "spawn_agent")
        history.append({"type": "function_call_output", "call_id": spawned["call_id"], "output": "Fine."})
        history.append({"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search"}})
        (last,) = await turn(server, history, "Done.")
        assert last["content"][0]["text"] == "Done."
        turns = server.chat.messages
    assert [each["role"] for each in turns] == [
        *("system", "system", "user", "user", "assistant", "tool", "tool", "assistant", "tool", "assistant", "tool")
    ]
    assert turns[4]["reasoning_content"] == "Look first."
    assert [made["function"]["name"] for made in turns[4]["tool_calls"]] == ["exec_command", "exec_command"]
    assert turns[9]["tool_calls"][0]["function"]["name"] == "multi_agent_v1__spawn_agent"


@pytest.fixture(scope="module")
def codex() -> Path:
    """The program of the npm package."""
    machine = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine())
    assert machine is not None, f"Codex has no package for {platform.machine()}."
    name = f"@openai/codex-linux-{machine}"
    package = npm_package(name, VERSION, spelt=f"{name}@npm:@openai/codex@{VERSION}-linux-{machine}")
    (program,) = package.glob("vendor/*/bin/codex")
    return program


class GoodModel:
    """Writes a file with a command, and says so when it has seen that it is there."""

    def __init__(self) -> None:
        self.chats: list[Chat] = []

    def answer(self, submit: Submit) -> list[str]:
        assert isinstance(submit.prompt, Chat)
        self.chats.append(submit.prompt)
        results = [message["content"] for message in submit.prompt.messages if message["role"] == "tool"]
        if not results:
            return ["<think>A file is asked for.</think>", call("exec_command", cmd="echo Hello > hello.txt")]
        if len(results) == 1:
            return [call("exec_command", cmd="cat hello.txt")]
        return ["hello.txt is there."] if "Hello" in results[-1] else ["It is missing."]


@pytest.fixture
def model() -> GoodModel:
    return GoodModel()


@pytest.fixture
def url(model: GoodModel, tmp_path: Path) -> Iterator[str]:
    write(tmp_path / "tiny.gguf", tiny_model())
    config = validate_config({"models": [{"model_id": "./tiny.gguf", "alias": "m"}]}, source="test", base=tmp_path)
    engines = ScriptedEngines(answer=model.answer, output_format=HERMES)
    with serving(config, engines.make_handle) as server:
        yield server.url
    assert engines.end()


@pytest.mark.long
@pytest.mark.timeout(INSTALL_S + RUN_S)
def test_codex_runs_a_task_to_its_end(codex: Path, model: GoodModel, url: str, tmp_path: Path) -> None:
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    # A sandbox cannot be made in every container; the folder is a temporary one.
    settings = CLIENTS["codex"].launch(Target(url, "m")).arguments
    command = [codex, *settings, "exec", "--json", "--skip-git-repo-check", "--sandbox", "danger-full-access"]
    ran = subprocess.run(
        [*command, "Create hello.txt with the word Hello."],
        cwd=work,
        env={**os.environ, "CODEX_HOME": str(home), "HOME": str(home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_S,
    )
    events = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert (work / "hello.txt").read_text() == "Hello\n"
    said = [event["item"]["text"] for event in events if event.get("item", {}).get("type") == "agent_message"]
    assert said == ["hello.txt is there."]
    assert events[-1]["type"] == "turn.completed"
    # What it was told to think came back with the second request, and its search was left out.
    assert any("A file is asked for." in str(message.get("reasoning_content")) for message in model.chats[1].messages)
    assert "web_search" not in str(model.chats[0].tools)
