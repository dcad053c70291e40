"""One process that runs the foreign code of models and requests; ``inside`` is the part that runs in it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

# Added to the wall-clock limit of every request.
_GRACE_S: Final = 0.5

# A process starts in 0.3 s on an idle machine; on one where twenty others compute, it has taken 20 s.
_START_S: Final = 60.0
_END_S: Final = 1.0

# A longer answer is not one of ``inside``.
_MAX_ANSWER_LENGTH: Final = 1 << 30
_HEADER_BYTES: Final = 8
_FIRST_READ_BYTES: Final = 1 << 16
_ENCODING: Final = ("utf-8", "surrogatepass")

# The only environment variables that a process inherits: others may be secret, and none concerns it.
_PASSED_ON: Final = ("TZ", "TZDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
# glibc returns freed memory at once, so that a process does not stay large after one large request.
_MALLOC: Final = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
# A debugger's trace would take seconds when llama.cpp aborts, and numpy's threads would take address space.
_ENVIRONMENT: Final = {**_MALLOC, "GGML_NO_BACKTRACE": "1", "OPENBLAS_NUM_THREADS": "1"}

_IMPORTED: Final = ("jinja2", "markupsafe", "llguidance", "llama_cpp", "numpy", "PIL", "soundfile", "soxr")
_START: Final = "import sys; sys.path[:] = {path!r}; from {program} import main; main()"


class ProcessUnavailable(Exception):
    """A request could not be run, for a reason that lies outside it."""


class BoundedProcess:
    """One process, used by one thread at a time.

    Args:
        program: a module whose ``main`` serves requests, see ``inside.serve``.
        arguments: arguments of its command line.
        patience: wall-clock limit of a request, as a multiple of its processor time.

    Attributes:
        idle_since: when it became idle, on the monotonic clock.
    """

    def __init__(self, program: str, arguments: Sequence[object], patience: float) -> None:
        self._patience = patience
        self.idle_since = 0.0
        self._has_started = False
        self._socket, theirs = socket.socketpair()
        start = _START.format(path=_search_path(), program=program)
        try:
            self._process = subprocess.Popen(
                # Isolated: neither the working directory nor the environment affects the imports.
                [sys.executable, "-I", "-S", "-W", "ignore", "-c", start, *map(str, arguments)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={**{name: os.environ[name] for name in _PASSED_ON if name in os.environ}, **_ENVIRONMENT},
                # Ctrl-C at the terminal signals the parent only.
                process_group=0,
            )
        except OSError as error:
            self._socket.close()
            raise ProcessUnavailable(f"no process can be started for it: {error}") from error
        finally:
            theirs.close()

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def kill(self) -> None:
        """Kill it while another thread uses it; that thread's request fails."""
        self._process.kill()

    def ask(self, request: bytes, limit_s: float, file: int | None = None) -> dict[str, Any]:
        """Send a request and return its answer, or a fault if the process ended."""
        if not self._has_started:
            try:
                self._receive(_START_S)
            except OSError:
                status, log = self._stop(signal.SIGKILL)
                raise ProcessUnavailable(f"its process did not start: {_ended(status)}: {log}") from None
            self._has_started = True
        try:
            wait_s = self._patience * limit_s + _GRACE_S
            self._socket.settimeout(wait_s)
            message = len(request).to_bytes(_HEADER_BYTES) + request
            if file is not None:
                message = message[socket.send_fds(self._socket, [message[:_HEADER_BYTES]], [file]) :]
            self._socket.sendall(message)
            return self._receive(wait_s)
        except TimeoutError:
            status, log = self._stop(signal.SIGUSR1)
            return _fault(f"did not end within {limit_s:g} s", status, log)
        except OSError:
            status, log = self._stop(None)
            if status == -signal.SIGXCPU:
                return _fault(f"did not end within {limit_s:g} s", status, log)
            return _fault(f"ended its process ({_ended(status)})", status, log)

    def end(self) -> None:
        """Kill it."""
        self._stop(signal.SIGKILL)

    def _receive(self, within_s: float) -> dict[str, Any]:
        """Read the next message.

        Raises:
            TimeoutError: it did not arrive in time.
            OSError: the process closed the connection, or its message is too long.
        """
        deadline = time.monotonic() + within_s
        message = bytearray()
        while len(message) < _HEADER_BYTES or len(message) < _HEADER_BYTES + int.from_bytes(message[:_HEADER_BYTES]):
            self._socket.settimeout(max(deadline - time.monotonic(), 1e-3))
            piece = self._socket.recv(_FIRST_READ_BYTES)
            if not piece or len(message) > _MAX_ANSWER_LENGTH:
                raise ConnectionError
            message += piece
        answer: dict[str, Any] = json.loads(message[_HEADER_BYTES:].decode(*_ENCODING))
        return answer

    def _stop(self, first: signal.Signals | None) -> tuple[int, str]:
        """End the process; return its exit status, below 0 for a signal, and its standard error.

        Args:
            first: the signal to send before SIGKILL; None: the process ends by itself.
        """
        self._socket.close()
        if first is not None:
            self._process.send_signal(first)
        try:
            status = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        assert self._process.stderr is not None
        log = ""
        if not self._process.stderr.closed:
            with self._process.stderr as stderr, suppress(OSError):
                log = stderr.read().decode("utf-8", "replace")
        return status, log


def _search_path() -> list[str]:
    """Return a ``sys.path`` that finds a program's imports, even if the installation finds them by a ``site`` hook."""
    specs = [find_spec(name) for name in ("modelyard", *_IMPORTED)]
    folders = [str(Path(spec.origin).parents[1]) for spec in specs if spec is not None and spec.origin is not None]
    return [*filter(None, sys.path), *folders]


def _ended(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"


def _fault(why: str, status: int, log: str) -> dict[str, Any]:
    return {"fault": "stopped", "why": why, "status": status, "log": log, "ends": True}
