"""Coding agents with their defaults, each from its package, against a model whose answers are those of a good one.

Claude Code speaks Anthropic's dialect, the others OpenAI's chats. Codex is in test_codex.py.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from modelyard.cli.client.launching import CLIENTS, Launch, Target
from modelyard.config import validate_config
from modelyard.protocol.prompts import Chat
from modelyard.protocol.requests import Submit
from support.client_environments import INSTALL_S, npm_package, python_environment
from support.gguf_writer import tiny_model, write
from support.scripted_engines import ScriptedEngines
from support.scripted_server import HERMES, call
from support.server import serving

pytestmark = [pytest.mark.long, pytest.mark.timeout(INSTALL_S + 150)]

TASK = "Create hello.txt with the word Hello."
SHELLS = ("Bash", "bash", "run_shell_command")
RUN_S = 120
MACHINE = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


class GoodModel:
    """Writes the file with a command, looks at it, and says that it is there; without tools, names the whole file."""

    def __init__(self) -> None:
        self.chats: list[Chat] = []

    def answer(self, submit: Submit) -> list[str]:
        assert isinstance(submit.prompt, Chat)
        names = [tool["function"]["name"] for tool in submit.prompt.tools]
        shell = next((name for name in names if name in SHELLS), None)
        if shell is None:
            # Aider asks for the edit as text; others ask for a title of the conversation.
            return ["hello.txt\n```\nHello\n```\n"]
        self.chats.append(submit.prompt)
        commands = ("echo Hello > hello.txt", "cat hello.txt")
        done = sum(message["role"] == "tool" for message in submit.prompt.messages)
        if done == len(commands):
            return ["hello.txt is there."]
        thought = "" if done else "<think>A file is asked for.</think>"
        return [thought, call(shell, command=commands[done], description="Work on the file")]


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


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """The folder that an agent works in."""
    (tmp_path / "home").mkdir()
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def run(command: Sequence[str | Path], work: Path, **environment: str) -> str:
    """Run an agent until it has done its task, and return what it printed."""
    ran = subprocess.run(
        command,
        cwd=work,
        env={"PATH": os.environ["PATH"], "HOME": str(work.parent / "home"), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_S,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert (work / "hello.txt").read_text() == "Hello\n", ran.stdout + ran.stderr
    return ran.stdout


def launched(client: str, url: str) -> Launch:
    """How ``modelyard launch`` starts a program."""
    return CLIENTS[client].launch(Target(url, "m"))


def test_claude_code_runs_a_task_to_its_end(model: GoodModel, url: str, work: Path) -> None:
    package = npm_package(f"@anthropic-ai/claude-code-linux-{MACHINE}", "2.1.332")
    printed = run(
        [package / "claude", "--print", TASK, "--allowedTools", "Bash", "--output-format", "json"],
        work,
        **launched("claude", url).environment,
    )
    result = json.loads(printed)
    assert (result["subtype"], result["result"]) == ("success", "hello.txt is there.")
    # The signed thinking came back unchanged with the result of the first command.
    assert any("A file is asked for." in str(message.get("reasoning_content")) for message in model.chats[1].messages)
    first, later = (str(chat.messages[0]["content"]) for chat in model.chats[:2])
    assert first == later, "the beginning of the prompt must not change from turn to turn"


def test_opencode_runs_a_task_to_its_end(model: GoodModel, url: str, work: Path) -> None:
    package = npm_package(f"opencode-linux-{MACHINE}", "1.18.33")
    (work / "opencode.json").write_text(json.dumps({"autoupdate": False}))
    printed = run(
        [package / "bin" / "opencode", "run", "--format", "json", TASK],
        work,
        OPENCODE_DISABLE_MODELS_FETCH="1",
        **launched("opencode", url).environment,
    )
    events = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    said = [event["part"]["text"] for event in events if event["type"] == "text"]
    assert said == ["hello.txt is there."]
    assert len(model.chats) == 3


def test_qwen_code_runs_a_task_to_its_end(model: GoodModel, url: str, work: Path) -> None:
    package = npm_package("@qwen-code/qwen-code", "0.24.4")
    how = launched("qwen", url)
    command = ["node", package / "cli.js", *how.arguments, "--yolo", "--prompt", TASK]
    printed = run(command, work, **how.environment)
    assert "hello.txt is there." in printed
    assert len(model.chats) == 3


def test_aider_applies_an_edit(url: str, work: Path) -> None:
    python = python_environment("aider", Path(__file__).parent / "pypi" / "aider.lock")
    how = launched("aider", url)
    options = [*how.arguments, "--no-check-update", "--yes-always", "--no-git"]
    printed = run(
        [python.parent / "aider", *options, "--analytics-disable", "--message", TASK, "hello.txt"],
        work,
        **how.environment,
        LITELLM_LOCAL_MODEL_COST_MAP="True",
    )
    assert "Applied edit to hello.txt" in printed
