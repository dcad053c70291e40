"""A pool of processes that run the foreign code of models and requests; ``inside`` is the part that runs in them.

A request costs one write and one read. A process that is stopped or dies fails one request, and is replaced.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from modelyard.system.bounded.cancellation import Cancellation

MAX_PROCESSES: Final = 4
"""Default limit of concurrent requests."""

WAIT_S: Final = 20.0
"""How long a request waits for a free process."""

PATIENCE: Final = 4.0
"""Wall-clock limit of a request, as a multiple of its processor time: the machine may be busy."""

_GRACE_S: Final = 0.5

# A process starts in 0.3 s on an idle machine.
_START_S: Final = 20.0
_END_S: Final = 1.0

IDLE_S: Final = 30.0
"""Idle time after which processes end, except those that are kept."""

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


class ProcessPool:
    """Processes of one program. Thread-safe.

    The first request starts the first process. Processes end with ``close``, with this object, or with the interpreter.

    Args:
        program: a module whose ``main`` serves requests, see ``inside.serve``.
        arguments: arguments of its command line.
        limit_s: processor time that a request may take.
        idle_s: idle time after which a process ends.
        kept: number of idle processes that do not end.
        most: limit of concurrent processes.
        patience: wall-clock limit of a request, as a multiple of its processor time.
    """

    def __init__(
        self,
        program: str,
        arguments: Sequence[object],
        *,
        limit_s: float,
        idle_s: float = IDLE_S,
        kept: int = 1,
        most: int = MAX_PROCESSES,
        patience: float = PATIENCE,
    ) -> None:
        self._program, self._arguments = program, arguments
        self._limit_s, self._idle_s, self._kept, self._patience = limit_s, idle_s, kept, patience
        self._places = threading.BoundedSemaphore(most)
        # The most recently used process is last.
        self._idle: list[_Process] = []
        self._busy: set[_Process] = set()
        self._lock = threading.Lock()
        self._prune_timer: threading.Timer | None = None
        self._is_closed = False
        self._finalizer = weakref.finalize(self, _end_all, self._idle, os.getpid())

    @property
    def pids(self) -> list[int]:
        """Ids of all processes, the most recently used one last."""
        with self._lock:
            return [process.pid for process in (*self._busy, *self._idle)]

    def ask(
        self,
        *requests: bytes,
        limit_s: float | None = None,
        file: int | None = None,
        cancellation: Cancellation | None = None,
    ) -> dict[str, Any]:
        """Return the answer to the first of ``requests``, JSON objects, that the process does not call ``unknown``.

        If the process had to be stopped, or died, the answer has a ``fault`` that is ``stopped``, with ``why``, the
        exit ``status``, below 0 for a signal, and the process's standard error in ``log``.

        Args:
            limit_s: processor time of each request; None: the pool's.
            file: descriptor of a file that goes with each request, to a program that takes files.
            cancellation: kills the process while it works on these requests.

        Raises:
            ProcessUnavailable: no process can be started or became free, or the request was cancelled before it
                started.
        """
        enter(self._places, WAIT_S)
        try:
            if cancellation is not None and cancellation.is_cancelled:
                raise ProcessUnavailable("it was cancelled")
            process = self._take()
            answer: dict[str, Any] = {}
            try:
                with ExitStack() as asked:
                    if cancellation is not None and not asked.enter_context(cancellation.covers(process.kill)):
                        raise ProcessUnavailable("it was cancelled")
                    for request in requests:
                        answer = process.ask(request, self._limit_s if limit_s is None else limit_s, file)
                        if not answer.get("unknown"):
                            break
            except BaseException:
                # The process may still write an answer, which the next request would read as its own.
                with self._lock:
                    self._busy.discard(process)
                process.end()
                raise
            if answer.pop("ends", False):
                process.end()
                with self._lock:
                    self._busy.discard(process)
                # Start a replacement now, so that the next request need not wait. If that fails, the next request
                # reports why.
                with suppress(ProcessUnavailable):
                    process = self._start()
                    self._give_back(process)
            else:
                self._give_back(process)
            return answer
        finally:
            self._places.release()

    def close(self) -> None:
        """End all processes and their requests. ``ask`` must not be called afterwards."""
        with self._lock:
            self._is_closed = True
            for process in self._busy:
                process.kill()
            if self._prune_timer is not None:
                self._prune_timer.cancel()
        self._finalizer()

    def _take(self) -> _Process:
        while True:
            with self._lock:
                process = self._idle.pop() if self._idle else None
                if process is not None and process.is_alive and not self._is_closed:
                    self._busy.add(process)
                    return process
            if process is None:
                return self._start()
            process.end()

    def _start(self) -> _Process:
        """Start a process, which counts as busy."""
        process = _Process(self._program, self._arguments, self._patience)
        with self._lock:
            if not self._is_closed:
                self._busy.add(process)
                return process
        process.end()
        raise ProcessUnavailable("its server has closed")

    def _give_back(self, process: _Process) -> None:
        process.idle_since = time.monotonic()
        with self._lock:
            self._busy.discard(process)
            if not self._is_closed:
                self._idle.append(process)
                self._prune_later()
                return
        process.end()

    def _prune_later(self) -> None:
        """Start a timer that ends idle processes, if there are more than are kept. The caller holds the lock."""
        if self._prune_timer is None and len(self._idle) > self._kept:
            self._prune_timer = threading.Timer(self._idle_s, _prune, (weakref.ref(self),))
            self._prune_timer.daemon = True
            self._prune_timer.start()

    def _prune(self) -> None:
        """End processes that have been idle for long, except those that are kept."""
        with self._lock:
            self._prune_timer = None
            latest = time.monotonic() - self._idle_s
            ended = [process for process in self._idle[: len(self._idle) - self._kept] if process.idle_since <= latest]
            self._idle[:] = [process for process in self._idle if process not in ended]
            self._prune_later()
        for process in ended:
            process.end()


def _prune(pool: weakref.ref[ProcessPool]) -> None:
    if (alive := pool()) is not None:
        alive._prune()


def _end_all(idle: list[_Process], owner: int) -> None:
    # A fork inherits the list, but not the processes.
    while idle and os.getpid() == owner:
        idle.pop().end()


def enter(places: threading.BoundedSemaphore, wait_s: float) -> None:
    """Acquire ``places``, and wait for that if need be.

    Raises:
        ProcessUnavailable: none became free in time.
    """
    if not places.acquire(timeout=wait_s):
        raise ProcessUnavailable(f"others had all processes for {wait_s:.0f} s")


def _search_path() -> list[str]:
    """Return a ``sys.path`` that finds a program's imports, even if the installation finds them by a ``site`` hook."""
    specs = [find_spec(name) for name in ("modelyard", *_IMPORTED)]
    folders = [str(Path(spec.origin).parents[1]) for spec in specs if spec is not None and spec.origin is not None]
    return [*filter(None, sys.path), *folders]


class _Process:
    """One process, used by one thread at a time.

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


def _ended(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"


def _fault(why: str, status: int, log: str) -> dict[str, Any]:
    return {"fault": "stopped", "why": why, "status": status, "log": log, "ends": True}
