"""A supervisor with servers that do as they are told: they are small programs, and there is no model.

Each server accepts one connection after the other and does what the client's word says.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from modelyard.system.restarts import MAX_DEATHS

WAIT_S = 30.0
SRC = Path(__file__).resolve().parents[3] / "src"
START = f"""
import signal, sys
# As a shell starts it, also where the tests themselves do not hear a hang-up.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
sys.path.insert(0, {str(SRC)!r})
from modelyard.system.supervisor import main
main(sys.argv[1:])
"""

SERVER = f"""
import os, selectors, signal, socket, subprocess, sys
sys.path.insert(0, {str(SRC)!r})
from modelyard.system.supervision import SERVING, SOCKETS_VARIABLE, STOPPING
listener, channel = (socket.socket(fileno=int(number)) for number in os.environ[SOCKETS_VARIABLE].split(","))
for one in (listener, channel):
    os.set_inheritable(one.fileno(), False)
if len(sys.argv) > 1:
    sys.exit(int(sys.argv[1]))
listener.listen(16)
channel.send(SERVING)
heard = b""
while True:
    with selectors.DefaultSelector() as ready:
        ready.register(listener, selectors.EVENT_READ)
        ready.register(channel, selectors.EVENT_READ)
        keys = [key.fileobj for key, _ in ready.select()]
    if channel in keys:
        messages = channel.recv(16)
        heard += messages
        if not messages:
            sys.exit(3)
    if listener not in keys:
        continue
    client, _ = listener.accept()
    with client, client.makefile("rw") as words:
        word, *values = words.readline().split()
        if word == "pid":
            words.write(f"{{os.getpid()}}\\n")
        elif word == "heard":
            words.write(heard.decode() + "\\n")
        elif word == "blocked":
            words.write(" ".join(sorted(s.name for s in signal.pthread_sigmask(signal.SIG_BLOCK, []))) + "\\n")
        elif word == "grandchild":
            child = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
            words.write(f"{{child.pid}}\\n")
        elif word == "exit":
            sys.exit(int(values[0]))
        elif word == "die":
            os.kill(os.getpid(), int(values[0]))
        elif word == "stopping":
            listener.close()
            channel.send(STOPPING)
            signal.pause()
"""


class Supervised:
    """A supervisor that runs, and its servers' address."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port

    def tell(self, words: str) -> str:
        """Send a server these words; what it answers, which is "" where it ends of them."""
        with socket.create_connection(("127.0.0.1", self.port), WAIT_S) as connection:
            connection.sendall(f"{words}\n".encode())
            with suppress(ConnectionResetError):
                return connection.makefile().readline().strip()
        return ""

    def end(self) -> tuple[int, str]:
        """Its exit status and what it wrote to standard error, once it has ended."""
        _, said = self.process.communicate(timeout=WAIT_S)
        return self.process.returncode, said


@contextmanager
def supervised(
    server: Path,
    *arguments: str,
    prelude: str = "",
    reloads: bool = True,
    terminal: int | None = None,
    hears_hang_ups: bool = True,
) -> Iterator[Supervised]:
    """A supervisor of ``server``, which it starts; with a ``terminal`` as its controlling one."""
    start = START if hears_hang_ups else START.replace("SIG_DFL", "SIG_IGN")
    if terminal is not None:
        prelude += "import fcntl, termios\nfcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        # Here and not in the server alone, so that the first client waits, too.
        listener.listen(16)
        port = listener.getsockname()[1]
        unused, other = socket.socketpair()
        with unused, other:
            inherited = (listener.fileno(), unused.fileno())
            command = [sys.executable, "-S", str(server), *arguments]
            passed_on = [*map(str, inherited), "-1", "reloads" if reloads else ""]
            process = subprocess.Popen(
                [sys.executable, "-S", "-c", prelude + start, *passed_on, *command],
                pass_fds=inherited,
                stdin=terminal,
                stderr=subprocess.PIPE,
                text=True,
                # As a shell with job control starts a command.
                process_group=0 if terminal is None else None,
                start_new_session=terminal is not None,
            )
    try:
        yield Supervised(process, port)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def server(tmp_path: Path) -> Path:
    path = tmp_path / "server.py"
    path.write_text(SERVER)
    return path


def until(happens: Callable[[], bool]) -> None:
    """Wait for something that is to happen soon."""
    deadline = time.monotonic() + WAIT_S
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def state(pid: int) -> str:
    """R, S, T and so on; "" when the process is gone. Source: proc_pid_stat(5)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def test_clients_wait_while_the_server_is_started_again_and_none_is_refused(server: Path) -> None:
    with supervised(server) as running:
        first = running.tell("pid")
        running.tell(f"die {signal.SIGKILL}")
        # At once: the listening socket is there all the time.
        second = running.tell("pid")
        running.tell("exit 1")
        third = running.tell("pid")
        assert len({first, second, third}) == 3
        running.tell("exit 0")
        status, said = running.end()
    assert status == 0
    killed, ended = said.splitlines()
    # As logging's "%(asctime)s %(levelname)s %(message)s" writes it.
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ERROR "
    assert re.fullmatch(stamp + r"The server died of SIGKILL \(killed\); starting it again", killed)
    assert re.fullmatch(stamp + r"The server ended with exit status 1; starting it again", ended)


def test_five_deaths_end_it_with_the_reason(server: Path) -> None:
    with supervised(server) as running:
        for _ in range(MAX_DEATHS):
            running.tell(f"die {signal.SIGSEGV}")
        status, said = running.end()
    assert status == 1
    *deaths, reason = said.splitlines()
    assert len(deaths) == MAX_DEATHS - 1
    assert reason.startswith("error: The server died 5 times within a minute")
    assert "SIGSEGV" in reason


@pytest.mark.parametrize("status", [0, 1, 2])
def test_a_server_that_ends_before_it_serves_ends_it_with_the_same_status_and_no_word(
    server: Path, status: int
) -> None:
    with supervised(server, str(status)) as running:
        assert running.end() == (status, "")


def test_a_command_that_cannot_be_started_is_an_error(server: Path) -> None:
    with supervised(server, prelude="import sys; sys.argv[5] = '/no/such/python'") as running:
        status, said = running.end()
    assert status == 1
    assert "The server cannot be started: /no/such/python: No such file or directory" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_each_signal_to_stop_is_one_message_to_the_server_and_its_status_is_the_end(
    server: Path, number: signal.Signals
) -> None:
    with supervised(server) as running:
        pid = int(running.tell("pid"))
        running.process.send_signal(number)
        until(lambda: running.tell("heard") != "")
        running.process.send_signal(signal.SIGHUP)
        until(lambda: running.tell("heard").endswith("r"))
        assert running.tell("heard") == "sr"
        os.kill(pid, signal.SIGKILL)
        status, said = running.end()
    assert status == -signal.SIGKILL
    assert said == "error: The server died of SIGKILL (killed) while it was stopping.\n"


def test_a_hang_up_is_a_message_where_the_server_reloads(server: Path) -> None:
    with supervised(server) as running:
        running.tell("pid")
        running.process.send_signal(signal.SIGHUP)
        until(lambda: running.tell("heard") == "r")


def test_a_hang_up_stops_a_server_that_does_not_reload_and_counts_once(server: Path) -> None:
    with supervised(server, reloads=False) as running:
        running.tell("pid")
        for _ in range(2):
            running.process.send_signal(signal.SIGHUP)
            until(lambda: running.tell("heard") == "s")
        running.process.send_signal(signal.SIGTERM)
        until(lambda: running.tell("heard") == "ss")


@contextmanager
def pseudo_terminal() -> Iterator[tuple[int, Callable[[], None]]]:
    """A terminal, and what closes its window."""
    window, terminal = os.openpty()
    is_open = True

    def close() -> None:
        nonlocal is_open
        if is_open:
            is_open = False
            os.close(window)

    try:
        yield terminal, close
    finally:
        close()
        os.close(terminal)


def test_a_terminal_that_is_closed_stops_the_server_once_and_a_signal_before_that_reloads(server: Path) -> None:
    with pseudo_terminal() as (terminal, close), supervised(server, terminal=terminal) as running:
        running.tell("pid")
        running.process.send_signal(signal.SIGHUP)
        until(lambda: running.tell("heard") == "r")
        close()
        until(lambda: running.tell("heard") == "rs")
        # As a shell passes it on.
        running.process.send_signal(signal.SIGHUP)
        running.process.send_signal(signal.SIGTERM)
        until(lambda: running.tell("heard") == "rss")


def test_a_server_that_nohup_started_outlives_its_terminal(server: Path) -> None:
    for reloads, heard in ((True, "rs"), (False, "s")):
        with (
            pseudo_terminal() as (terminal, close),
            supervised(server, terminal=terminal, hears_hang_ups=False, reloads=reloads) as running,
        ):
            running.tell("pid")
            close()
            until(lambda: running.tell("heard") == heard[:-1])  # noqa: B023
            running.process.send_signal(signal.SIGTERM)
            until(lambda: running.tell("heard") == heard)  # noqa: B023


def test_signals_are_blocked_in_a_new_server_until_it_lets_them_in(server: Path) -> None:
    for reloads in (True, False):
        with supervised(server, reloads=reloads) as running:
            assert running.tell("blocked") == "SIGHUP SIGINT SIGTERM"


def test_a_server_that_stops_of_its_own_accord_is_not_started_again_and_new_clients_are_refused(server: Path) -> None:
    with supervised(server) as running:
        pid = int(running.tell("pid"))
        stopping = socket.create_connection(("127.0.0.1", running.port), WAIT_S)
        with stopping:
            stopping.sendall(b"stopping\n")
            until(lambda: _is_refused(running.port))
            os.kill(pid, signal.SIGSEGV)
            status, said = running.end()
    assert status == -signal.SIGSEGV
    assert "while it was stopping" in said


def _is_refused(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), WAIT_S):
            return False
    except OSError:
        return True


def test_the_server_notices_when_its_supervisor_is_killed(server: Path) -> None:
    with supervised(server) as running:
        pid = int(running.tell("pid"))
        running.process.kill()
        running.end()
        until(lambda: state(pid) == "")
        assert _is_refused(running.port)


def test_ctrl_z_stops_both_and_fg_continues_both(server: Path) -> None:
    with supervised(server) as running:
        pid = int(running.tell("pid"))
        running.process.send_signal(signal.SIGTSTP)
        until(lambda: state(running.process.pid) == state(pid) == "T")
        running.process.send_signal(signal.SIGCONT)
        assert running.tell("pid") == str(pid)
        # A second time as well.
        os.killpg(running.process.pid, signal.SIGTSTP)
        until(lambda: state(running.process.pid) == state(pid) == "T")
        os.killpg(running.process.pid, signal.SIGCONT)
        assert running.tell("pid") == str(pid)


def test_it_collects_processes_that_the_server_has_left_behind(server: Path) -> None:
    # As the first process of a container does, it inherits orphans. Source: PR_SET_CHILD_SUBREAPER, prctl(2).
    adopts = "import ctypes; ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)"
    with supervised(server, prelude=adopts) as running:
        orphan = int(running.tell("grandchild"))
        running.tell(f"die {signal.SIGKILL}")
        assert running.tell("pid")
        until(lambda: state(orphan) == "")
