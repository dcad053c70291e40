"""A server under its supervisor, as a user starts it: what clients see of its death, and how both are stopped."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from integration.test_command_line import COMMAND, WAIT_S

# Makes a terminal the controlling one, keeps the output elsewhere, and becomes the command.
IN_TERMINAL = """
import os, sys
os.login_tty(int(sys.argv[1]))
for number in (1, 2):
    os.dup2(int(sys.argv[2]), number)
os.execv(sys.argv[3], sys.argv[3:])
"""
WITH_A_THREAD = """
import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
from modelyard.__main__ import main
main()
"""
_ADDRESS = re.compile(r"serves \d+ models? at (http://[\d.:]+)/v1")


class Supervised:
    """A supervisor, its server, and what both of them write."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log
        self.url = ""

    def said(self) -> str:
        return self._log.read_text("utf-8", "replace")

    def wait_for(self, words: str, times: int = 1) -> None:
        self.until(lambda: self.said().count(words) >= times)

    def until(self, happens: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not happens():
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)

    def server(self) -> int:
        """The server's process id, once it is there."""
        supervisor = self.process.pid
        children = Path(f"/proc/{supervisor}/task/{supervisor}/children")
        self.until(lambda: bool(children.read_text().split()))
        return int(children.read_text().split()[0])

    def get(self, path: str = "/health") -> httpx.Response:
        return httpx.get(self.url + path, timeout=WAIT_S)

    def stream(self) -> socket.socket:
        """A connection on which an answer without end has begun."""
        host, port = self.url.removeprefix("http://").split(":")
        connection = socket.create_connection((host, int(port)), WAIT_S)
        body = b'{"prompt": "A story:", "max_tokens": 100000, "ignore_eos": true, "stream": true}'
        head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        connection.sendall(head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert b" 200 " in connection.recv(4096)
        return connection


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@contextmanager
def supervised(
    folder: Path, *arguments: str, command: Sequence[str] = COMMAND, terminal: int | None = None
) -> Iterator[Supervised]:
    """A server that has said that it serves. With a terminal, it is the terminal's foreground job."""
    log = folder / "server.log"
    with log.open("wb") as output:
        inherited = () if terminal is None else (terminal, output.fileno())
        in_terminal = [sys.executable, "-c", IN_TERMINAL, *map(str, inherited)] if inherited else []
        process = subprocess.Popen(
            [*in_terminal, *command, *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=inherited,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    running = Supervised(process, log)
    try:
        running.until(lambda: "Ctrl-C stops it" in running.said() or process.poll() is not None)
        found = _ADDRESS.search(running.said())
        assert found, running.said()
        running.url = found[1]
        yield running
    finally:
        # Its server notices, and ends.
        process.kill()
        process.wait(WAIT_S)


@pytest.fixture
def smol(weights: dict[str, Path]) -> tuple[str, ...]:
    return ("serve", "-m", str(weights["smollm2"]), "--port", "0")


class Visitors:
    """Asks a server again and again, each time on a connection of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._visit)
        self.answers = 0
        self.failures: list[str] = []

    def __enter__(self) -> Visitors:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(WAIT_S)

    def _visit(self) -> None:
        while not self._is_over.is_set():
            try:
                httpx.get(f"{self._url}/health", timeout=WAIT_S).raise_for_status()
                self.answers += 1
            except httpx.ConnectError as error:
                self.failures.append(str(error))
            except httpx.TransportError:
                # It was connected when the server died: that connection is lost.
                continue


def test_a_killed_server_is_there_again_and_no_client_is_refused(smol: tuple[str, ...], tmp_path: Path) -> None:
    with supervised(tmp_path, *smol) as running, Visitors(running.url) as visitors:
        first = running.server()
        running.until(lambda: visitors.answers > 0)
        os.kill(first, signal.SIGKILL)
        running.wait_for("The server died of SIGKILL (killed); starting it again")
        answers = visitors.answers
        running.until(lambda: visitors.answers > answers)
        assert running.server() != first
        assert running.get("/v1/models").json()["data"][0]["status"] == "loaded"
        # What it serves is said again, and it is at the same address.
        running.wait_for(f"serves 1 model at {running.url}/v1", times=2)
    assert visitors.failures == []


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGTERM])
def test_a_signal_to_the_supervisor_ends_both_with_0(
    smol: tuple[str, ...], tmp_path: Path, number: signal.Signals
) -> None:
    with supervised(tmp_path, *smol) as running:
        server = running.server()
        running.process.send_signal(number)
        assert running.process.wait(WAIT_S) == 0
        assert not exists(server)
        assert "ERROR" not in running.said()


@pytest.mark.long
def test_a_signal_to_both_does_not_insist_and_a_second_one_to_either_does(
    smol: tuple[str, ...], tmp_path: Path
) -> None:
    with supervised(tmp_path, *smol) as running, running.stream() as stream:
        # As systemd stops a service.
        for pid in (running.process.pid, running.server()):
            os.kill(pid, signal.SIGTERM)
        running.until(lambda: is_refused(running))
        assert_goes_on(stream)
        running.process.send_signal(signal.SIGTERM)
        assert b"shutting_down" in rest_of(stream)
        assert running.process.wait(WAIT_S) == 0


def test_one_ctrl_c_lets_answers_end_and_the_second_ends_them(smol: tuple[str, ...], tmp_path: Path) -> None:
    keyboard, terminal = pty.openpty()
    try:
        with supervised(tmp_path, *smol, terminal=terminal) as running, running.stream() as stream:
            server = running.server()
            os.write(keyboard, b"\x03")
            running.until(lambda: is_refused(running))
            assert_goes_on(stream)
            os.write(keyboard, b"\x03")
            assert b"shutting_down" in rest_of(stream)
            assert running.process.wait(WAIT_S) == 130
            assert not exists(server)
            assert running.said().count("the server is shutting down") == 1
            assert "Traceback" not in running.said()
    finally:
        os.close(keyboard)
        os.close(terminal)


def is_refused(running: Supervised) -> bool:
    try:
        running.get()
    except httpx.ConnectError:
        return True
    except httpx.TransportError:
        return False
    return False


def assert_goes_on(stream: socket.socket) -> None:
    """More text comes than was on its way already."""
    for _ in range(20):
        assert b"data: {" in stream.recv(65536)


def rest_of(stream: socket.socket) -> bytes:
    return b"".join(iter(lambda: stream.recv(65536), b""))


def test_a_server_whose_supervisor_is_killed_ends_as_if_it_was_asked_to(smol: tuple[str, ...], tmp_path: Path) -> None:
    with supervised(tmp_path, *smol) as running:
        server = running.server()
        running.process.kill()
        running.until(lambda: not exists(server))
        assert "the server is shutting down" in running.said()
        assert is_refused(running)


@pytest.mark.long
def test_five_deaths_within_a_minute_end_it_with_the_reason(smol: tuple[str, ...], tmp_path: Path) -> None:
    with supervised(tmp_path, *smol) as running:
        for _ in range(5):
            server = running.server()
            os.kill(server, signal.SIGSEGV)
            running.until(lambda pid=server: not exists(pid))
        assert running.process.wait(WAIT_S) == 1
        assert running.said().count("The server died of SIGSEGV (segmentation fault); starting it again") == 4
        assert "error: The server died 5 times within a minute" in running.said()
        assert is_refused(running)


@pytest.mark.long
def test_a_stop_while_the_server_is_started_again_ends_it_with_0(smol: tuple[str, ...], tmp_path: Path) -> None:
    with supervised(tmp_path, *smol) as running:
        first = running.server()
        os.kill(first, signal.SIGKILL)
        running.wait_for("starting it again")
        second = running.server()
        assert second != first
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(WAIT_S) == 0
        assert not exists(second)
        assert running.said().count("Ctrl-C stops it") == 1
        assert "Traceback" not in running.said()


@pytest.mark.long
def test_a_hang_up_of_both_reloads_once_also_after_a_death(weights: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    file.write_text(f"[server]\nport = 0\n[[models]]\nmodel_id = '{weights['smollm2']}'\nload = 'on-demand'\n")
    with supervised(tmp_path, "from-config", "-f", str(file)) as running:
        first = running.server()
        # As a terminal that closes.
        for pid in (running.process.pid, first):
            os.kill(pid, signal.SIGHUP)
        running.wait_for("The configuration was reloaded")
        os.kill(first, signal.SIGKILL)
        running.wait_for("Ctrl-C stops it", times=2)
        running.process.send_signal(signal.SIGHUP)
        running.wait_for("The configuration was reloaded", times=2)
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(WAIT_S) == 0
        assert running.said().count("The configuration was reloaded") == 2


@pytest.mark.long
def test_a_configuration_that_is_wrong_when_it_is_started_again_counts_as_a_death(
    weights: dict[str, Path], tmp_path: Path
) -> None:
    file = tmp_path / "models.toml"
    right = f"[server]\nport = 0\n[[models]]\nmodel_id = '{weights['smollm2']}'\nload = 'on-demand'\n"
    file.write_text(right)
    with supervised(tmp_path, "from-config", "-f", str(file)) as running:
        file.write_text("colour = 1\n")
        os.kill(running.server(), signal.SIGKILL)
        running.wait_for("The server ended with exit status 2; starting it again")
        assert "colour" in running.said()
        file.write_text(right)
        assert running.get().status_code == 200


@pytest.mark.long
def test_a_process_with_threads_of_others_is_supervised_as_well(smol: tuple[str, ...], tmp_path: Path) -> None:
    # A fork would not have them. Tools such as opentelemetry-instrument start some.
    command = [sys.executable, "-c", WITH_A_THREAD]
    with supervised(tmp_path, *smol, command=command) as running:
        assert running.get().status_code == 200
        assert running.server()
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(WAIT_S) == 0


@pytest.mark.long
def test_the_supervisor_is_small(smol: tuple[str, ...], tmp_path: Path) -> None:
    with supervised(tmp_path, *smol) as running:
        rollup = Path(f"/proc/{running.process.pid}/smaps_rollup").read_text()
        (kilobytes,) = re.findall(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
        assert int(kilobytes) < 16_000
