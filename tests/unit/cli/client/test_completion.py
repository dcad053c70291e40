"""What a shell completes where a command takes a model of a running server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from modelyard.cli import app
from support.odd_server import free_port, http_answer, odd_server

IDLE = {"running": 0, "waiting": 0}
MODELS: list[dict[str, Any]] = [
    {**IDLE, "id": "small", "aliases": ["s", "/m/s.gguf"], "source": "/m/s.gguf", "state": "loaded"},
    {**IDLE, "id": "large", "aliases": [], "source": "org/Large-GGUF", "state": "unloaded"},
]


@pytest.fixture(autouse=True)
def _no_server_of_this_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with _serving(MODELS) as url:
        monkeypatch.setenv("MODELYARD_HOST", url)
        yield url


@contextmanager
def _serving(models: list[dict[str, Any]]) -> Iterator[str]:
    state = json.dumps({"object": "server", "version": "1", "memory": None, "models": models})
    with odd_server(http_answer("200 OK", "application/json", state)) as url:
        yield url


def completed(line: str, shell: str = "bash") -> list[str]:
    """The words that ``shell`` offers at the end of ``line``, and that nothing else is printed."""
    words = line.split(" ")
    env = {
        "_MODELYARD_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    done = CliRunner().invoke(app, [], env=env)
    assert done.stderr == ""
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.stdout.split("\n")[:-1] if done.stdout.strip() else []


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("command", ["run", "load", "unload", "park", "show", "plan", "stop", "reload", "pull"])
def test_a_command_completes_the_ids_and_aliases_of_the_running_server(command: str) -> None:
    assert completed(f"modelyard {command} ") == ["small", "s", "large"]
    assert completed(f"modelyard {command} l") == ["large"]
    assert completed(f"modelyard {command} -m sm") == ["small"]


@pytest.mark.usefixtures("server")
def test_a_model_is_offered_once_and_a_question_is_not_completed() -> None:
    assert completed("modelyard load small ") == ["s", "large"]
    assert completed("modelyard run small ") == []
    assert completed("modelyard run models.toml ") == ["small", "s", "large"]
    assert completed("modelyard serve ") == []


@pytest.mark.usefixtures("server")
def test_a_shell_that_shows_help_shows_the_state_of_a_model() -> None:
    assert completed("modelyard load s", "fish") == ["small\tloaded", "s\tloaded"]


def test_the_server_of_the_option_completes() -> None:
    with _serving(MODELS[1:]) as url:
        assert completed(f"modelyard load --url {url} ") == ["large"]


def test_nothing_is_completed_and_nothing_is_printed_where_no_server_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with free_port() as port, odd_server(None) as hangs, odd_server(b"SSH-2.0\r\n") as other:
        for url in (f":{port}", hangs, other, "no such:host"):
            monkeypatch.setenv("MODELYARD_HOST", url)
            assert completed("modelyard load ") == []
    assert completed("modelyard load --key-file /nowhere ") == []


@pytest.mark.usefixtures("server")
def test_commands_and_options_complete_as_before() -> None:
    assert completed("modelyard unl") == ["unload"]
    assert completed("modelyard load --u") == ["--url"]


def test_bash_completes_commands_after_completion_was_installed(tmp_path: Path) -> None:
    modelyard = tmp_path / "bin" / "modelyard"
    modelyard.parent.mkdir()
    modelyard.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m modelyard "$@"\n')
    modelyard.chmod(0o755)
    environment = {**os.environ, "HOME": str(tmp_path), "PATH": f"{modelyard.parent}{os.pathsep}{os.environ['PATH']}"}

    def in_bash(script: str) -> str:
        done = subprocess.run(
            ["bash", "-c", script],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout

    # A second command keeps bash from becoming the first: the shell is found as the parent of the command.
    in_bash("modelyard --install-completion; true")
    asked = "COMP_WORDS=(modelyard sea); COMP_CWORD=1; _modelyard_completion modelyard; echo ${COMPREPLY[@]}"
    assert in_bash(f". ~/.bashrc; complete -p modelyard >/dev/null && {asked}") == "search\n"
