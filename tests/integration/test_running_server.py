"""Commands against a server that runs in a process of its own, under a supervisor, as its user starts it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from modelyard.cli import app
from modelyard.system.announcements import Announcement, announcements

WAIT_S = 60.0


def run(*args: str) -> Result:
    return CliRunner().invoke(app, list(args))


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A user of whom no other server runs."""
    found = {"XDG_RUNTIME_DIR": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    return found


@pytest.fixture
def server(weights: dict[str, Path], environ: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "modelyard", "serve", str(weights["smollm2"]), "--port", "0", "--ctx", "2048"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + WAIT_S
            while not any(each.is_serving for each in announcements(environ)):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield process
        finally:
            process.kill()


def announced(environ: dict[str, str]) -> Announcement:
    (found,) = announcements(environ)
    return found


def test_a_server_is_found_by_itself_and_stopped(
    server: subprocess.Popen[bytes], environ: dict[str, str], weights: dict[str, Path]
) -> None:
    assert announced(environ).pid == server.pid
    models = json.loads(run("ps", "--json").stdout)["models"]
    assert [(model["state"], model["source"]) for model in models] == [("loaded", str(weights["smollm2"]))]
    assert "Loaded smollm2" in run("logs").stdout

    body = {"prompt": "A story:", "max_tokens": 2000, "ignore_eos": True, "stream": True}
    with httpx.stream("POST", f"{announced(environ).url}/v1/completions", json=body, timeout=WAIT_S) as answer:
        lines = answer.iter_lines()
        next(lines)
        assert json.loads(run("ps", "--json").stdout)["models"][0]["running"] == 1
        done = run("stop", "--now")
        assert "shutting_down" in [line for line in lines if line][-1]
    assert (done.exit_code, done.stdout.endswith("has stopped.\n")) == (0, True), done.output
    # The second of them where a signal has cut the answer off.
    assert server.wait(WAIT_S) in (0, 130)
    assert announcements(environ) == []
