"""Commands against a server that runs in a process of its own, under a supervisor, as its user starts it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
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


def test_two_stops_at_once_are_one_and_the_running_answer_is_whole(
    server: subprocess.Popen[bytes], environ: dict[str, str]
) -> None:
    body = {"prompt": "A story:", "max_tokens": 200, "ignore_eos": True, "stream": True}
    with httpx.stream("POST", f"{announced(environ).url}/v1/completions", json=body, timeout=WAIT_S) as answer:
        lines = answer.iter_lines()
        next(lines)
        command = [sys.executable, "-m", "modelyard", "stop"]
        stops = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        assert [line for line in lines if line][-1] == "data: [DONE]"
    said = [stop.communicate(timeout=WAIT_S) for stop in stops]
    assert [stop.returncode for stop in stops] == [0, 0]
    assert all(out.endswith("has stopped.\n") for out, _ in said)
    assert "is stopping already" in "".join(err for _, err in said)
    assert server.wait(WAIT_S) == 0


# Becomes the leader of its session, whose terminal its standard input is, and then the program of its arguments.
IN_TERMINAL = """
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGHUP, signal.SIG_DFL)
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.mark.parametrize("option", [(), ("--no-supervisor",)])
def test_a_server_whose_terminal_is_closed_stops_and_one_that_is_sent_the_signal_reloads(
    option: tuple[str, ...], weights: dict[str, Path], environ: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "models.toml"
    file.write_text(f"[server]\nport = 0\n[[models]]\nmodel_id = '{weights['smollm2']}'\nload = 'on-demand'\n")
    window, terminal = os.openpty()
    log = tmp_path / "log"
    with log.open("wb") as output:
        command = ["-m", "modelyard", "serve", str(file), *option]
        process = subprocess.Popen(
            [sys.executable, "-c", IN_TERMINAL, *command],
            stdin=terminal,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    os.close(terminal)
    try:
        until(lambda: any(each.is_serving for each in announcements(environ)))
        process.send_signal(signal.SIGHUP)
        until(lambda: "The configuration was reloaded" in log.read_text())
        os.close(window)
        assert process.wait(WAIT_S) == 0
    finally:
        process.kill()
    assert "Stopping" in log.read_text()
    assert announcements(environ) == []


def until(happens: Callable[[], bool]) -> None:
    """Wait for something that is to happen soon."""
    deadline = time.monotonic() + WAIT_S
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.05)
