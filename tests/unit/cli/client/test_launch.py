"""Programs that are started on a server: what they are told, and what is shown of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from modelyard.cli import app
from modelyard.cli.client import launch as launch_module
from modelyard.cli.client.choose import ChosenServer
from modelyard.cli.client.connection import ServerAddress
from modelyard.cli.client.launching import CLIENTS, Target

TARGET = Target("http://127.0.0.1:1234", "org/name:Q4", "sk-secret")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"models": [{"id": "first"}, {"id": "org/name:Q4", "default": True}]}
    chosen = ChosenServer(ServerAddress(TARGET.url, TARGET.key), state)
    monkeypatch.setattr(launch_module, "choose_server", lambda *_, **__: chosen)
    monkeypatch.setattr(launch_module, "choose_server_of", lambda *_: chosen)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["launch", *arguments])


@pytest.mark.parametrize("name", CLIENTS)
def test_every_program_is_told_the_server_the_model_and_the_key(name: str) -> None:
    how = CLIENTS[name].launch(TARGET)
    told = " ".join((*how.arguments, *how.environment.values()))
    assert TARGET.url in told
    assert TARGET.model in told
    assert TARGET.key in how.environment.values()


@pytest.mark.parametrize("name", CLIENTS)
def test_a_printed_command_is_one_of_a_shell_and_shows_no_key(name: str, server: None) -> None:
    printed = run(name, "--print", "--", "two words").stdout
    assert "sk-secret" not in printed
    assert printed.endswith(" 'two words'\n")
    # A shell reads it as the program would be started, with the key from its variable.
    shell = printed.replace(
        f" {name} ", f" {sys.executable} -c 'import os, json; print(json.dumps(dict(os.environ)))' "
    )
    ran = subprocess.run(
        ["sh", "-c", shell],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"], "MODELYARD_API_KEY": "sk-secret", "ANTHROPIC_API_KEY": "other"},
    )
    seen = json.loads(ran.stdout)
    how = CLIENTS[name].launch(TARGET)
    assert dict(how.environment).items() <= seen.items()
    assert seen.keys().isdisjoint(how.unset)


def test_codex_reads_its_provider_as_toml() -> None:
    first, second = CLIENTS["codex"].launch(TARGET).arguments[1:4:2]
    assert tomllib.loads(first)["model_providers"]["modelyard"] == {
        "name": "Modelyard",
        "base_url": "http://127.0.0.1:1234/v1",
        "wire_api": "responses",
        "env_key": "MODELYARD_API_KEY",
    }
    assert tomllib.loads(second) == {"model_provider": "modelyard"}


def test_the_default_model_is_used_where_none_is_named(server: None) -> None:
    assert "OPENAI_MODEL=org/name:Q4" in run("qwen", "--print").stdout
    assert "OPENAI_MODEL=first" in run("qwen", "--print", "--model", "first").stdout


def test_a_program_that_is_missing_is_named_with_what_installs_it(
    server: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    result = run("claude")
    assert "npm install -g @anthropic-ai/claude-code" in str(result.exception) + result.stderr
    assert "Known: claude, codex" in run("emacs").stderr


def test_the_program_takes_the_place_of_the_command(
    server: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = tmp_path / "claude"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("ANTHROPIC_API_KEY", "other")
    started: list[tuple[str, list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda *call: started.append(call))
    run("claude", "--", "--continue")
    ((path, command, environment),) = started
    assert (path, command[1:]) == (str(program), ["--continue"])
    assert environment["ANTHROPIC_BASE_URL"] == TARGET.url
    assert "ANTHROPIC_API_KEY" not in environment


@pytest.mark.parametrize(("length", "is_noted"), [(8192, True), (launch_module.MIN_CONTEXT, False), (None, False)])
def test_a_context_that_is_too_short_for_agents_is_noted(
    monkeypatch: pytest.MonkeyPatch, length: int | None, is_noted: bool
) -> None:
    state = {"models": [{"id": "small", **({} if length is None else {"context_length": length})}]}
    chosen = ChosenServer(ServerAddress(TARGET.url, None), state)
    monkeypatch.setattr(launch_module, "choose_server", lambda *_, **__: chosen)
    done = run("claude", "--print")
    assert done.exit_code == 0
    assert done.stdout.endswith(" claude\n")
    assert ("--ctx 32768" in done.stderr) is is_noted
