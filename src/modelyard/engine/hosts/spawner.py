"""Starts processes of engines through ``spawner_program``, and keeps their exit statuses."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

_PROGRAM: Final = "modelyard.engine.hosts.spawner_program"

# The imports take 0.7 s on an idle machine.
_START_S: Final = 60.0
_END_S: Final = 5.0


class SpawnFailed(Exception):
    """A process could not be started; the message is the reason."""


class EngineSpawner:
    """Starts processes. Every method may be called on any thread. The program that starts them runs from first use on.

    Args:
        table: the file of the table of engines.
    """

    def __init__(self, table: Path) -> None:
        self._table = table
        self._starting = threading.Lock()
        self._program: _Program | None = None

    def prepare(self) -> None:
        """Start the program that starts them, and return at once. If that fails, ``spawn`` raises the error."""
        with self._starting, suppress(SpawnFailed):
            self._running()

    def _running(self) -> _Program:
        """Return the program that starts them, started if need be. The caller holds the lock."""
        if self._program is None or not self._program.is_alive:
            try:
                self._program = _Program()
            except OSError as error:
                raise SpawnFailed(str(error.strerror or error)) from error
        return self._program

    def spawn(self, connection: socket.socket, errors: int) -> SpawnedProcess:
        """Start a process of engines.

        Args:
            connection: the process's end of its connection.
            errors: descriptor of its standard error.

        Raises:
            SpawnFailed: the system cannot start it.
        """
        setup = {"log_level": logging.getLogger().getEffectiveLevel(), "table": str(self._table)}
        with self._starting:
            program = self._running()
            try:
                pid = program.start(setup, [connection.fileno(), errors])
            except OSError as error:
                self._program = None
                program.close()
                raise SpawnFailed(str(error.strerror or error)) from error
        return SpawnedProcess(program, pid)

    def close(self) -> None:
        """End the program that starts processes. The processes end when their connections are closed."""
        with self._starting:
            program, self._program = self._program, None
        if program is not None:
            program.close()


class SpawnedProcess:
    """A process of engines that was started."""

    def __init__(self, program: _Program, pid: int) -> None:
        self._program = program
        self.pid = pid

    def wait(self, timeout_s: float) -> bool:
        """Wait for its end, and return whether it has ended."""
        return self._program.wait(self.pid, timeout_s)

    @property
    def status(self) -> int | None:
        """Exit status, a signal as a negative number; None while it runs, or if it is unknown."""
        return self._program.statuses.get(self.pid)

    def kill(self) -> None:
        """Kill it."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, 9)

    def discard_status(self) -> None:
        """Free the record of its exit status."""
        self._program.statuses.pop(self.pid, None)


class _Program:
    """The running ``spawner_program``."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._control = ours
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", _PROGRAM, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                # llama.cpp's own message is enough, and a debugger's trace takes seconds.
                env={**os.environ, "GGML_NO_BACKTRACE": "1"},
                pass_fds=[theirs.fileno()],
                # Ctrl-C at the terminal signals the server only.
                process_group=0,
            )
        self.statuses: dict[int, int] = {}
        self._started: list[int] = []
        self._is_over = False
        self._change = threading.Condition()
        threading.Thread(target=self._listen, name="processes of engines", daemon=True).start()

    @property
    def is_alive(self) -> bool:
        """Whether it can start processes."""
        return not self._is_over

    def start(self, setup: dict[str, Any], descriptors: list[int]) -> int:
        """Start a process and return its id.

        Raises:
            OSError: it cannot be started.
        """
        socket.send_fds(self._control, [json.dumps(setup).encode() + b"\n"], descriptors)
        with self._change:
            if not self._change.wait_for(lambda: self._started or self._is_over, _START_S):
                raise TimeoutError(None, f"it took longer than {_START_S:.0f} s")
            if not self._started:
                raise ChildProcessError(None, "the program that starts them has ended")
            return self._started.pop()

    def wait(self, pid: int, timeout_s: float) -> bool:
        """Wait for the end of a process, and return whether it has ended.

        If this program has ended, no exit status arrives, and the process is polled instead.
        """
        deadline = time.monotonic() + timeout_s
        with self._change:
            self._change.wait_for(lambda: pid in self.statuses or self._is_over, timeout_s)
            if pid in self.statuses:
                return True
        while (is_alive := _exists(pid)) and time.monotonic() < deadline:
            time.sleep(0.01)
        return not is_alive

    def close(self) -> None:
        """End the program."""
        with suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _listen(self) -> None:
        with self._control, self._control.makefile("rb") as lines, suppress(OSError):
            for line in lines:
                self._record(json.loads(line))
        with self._change:
            self._is_over = True
            self._change.notify_all()
        self._process.wait()

    def _record(self, report: dict[str, int]) -> None:
        with self._change:
            if "started" in report:
                self._started.append(report["started"])
            else:
                self.statuses[report["ended"]] = report["status"]
            self._change.notify_all()


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
