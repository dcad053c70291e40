"""The processes in which chat templates are rendered, from outside; see ``template_program`` for the inside.

A render costs one write and one read. A process that is stopped, or dies, takes one render down with it, and another is
started in its place.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

MOST_PROCESSES: Final = 4
"""Renders at the same time."""

# Templates that a limit has stopped before do not take all of them.
_MOST_OF_THE_STOPPED: Final = 2

RENDER_S: Final = 2.0
"""Time of one render, compilation included."""

RENDER_BYTES: Final = 64 << 20
"""Memory of one render, beyond that of an idle process."""

LONGEST_TEXT: Final = 16 << 20
"""Characters that one render may write."""

# A process that does not end a render by itself computes in C. It is given so much longer to come back.
_GRACE_S: Final = 0.25

# An idle machine starts one in 0.3 s.
_START_S: Final = 20.0
_WAIT_S: Final = 10.0
_END_S: Final = 1.0

IDLE_S: Final = 30.0
"""One process is kept for the next render. Others, for renders at the same time, end after being idle for so long."""

# A frame of our own; one that claims to be longer is not.
_LONGEST_ANSWER: Final = 1 << 30
_HEADER_BYTES: Final = 8
_FIRST_READ_BYTES: Final = 1 << 16
_ENCODING: Final = ("utf-8", "surrogatepass")

# Nothing else of the environment concerns a template, and much of it is secret. glibc gives memory back as it is freed,
# so that one large render does not leave a large process.
_PASSED_ON: Final = ("TZ", "TZDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
_MALLOC: Final = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}

_PROGRAM: Final = "import sys; sys.path[:] = {path!r}; from modelyard.engine.chat.template_program import main; main()"
_TEMPLATE_LINE: Final = re.compile(r'File "<template>", line (\d+)')


class TemplatesUnavailable(Exception):
    """A template could not be rendered for a reason that is neither its own nor the conversation's."""


class TemplateProcesses:
    """Where the chat templates of one owner are rendered. Every method may be called on any thread.

    No process is started before the first render. They end with ``close``, with this object, or with the interpreter.

    Args:
        limit_s: time of a render.
        idle_s: after how long an idle process ends that is not the only one.
    """

    def __init__(self, limit_s: float = RENDER_S, idle_s: float = IDLE_S) -> None:
        self._limit_s, self._idle_s = limit_s, idle_s
        self._places = threading.BoundedSemaphore(MOST_PROCESSES)
        self._places_of_the_stopped = threading.BoundedSemaphore(_MOST_OF_THE_STOPPED)
        self._stopped: set[str] = set()
        # The one that was used last is at the end.
        self._idle: list[_Process] = []
        self._busy: set[_Process] = set()
        self._lock = threading.Lock()
        self._looks_after: threading.Timer | None = None
        self._is_closed = False
        self._finalizer = weakref.finalize(self, _end_all, self._idle, os.getpid())

    def ask(self, digest: str, source: str, names: bytes | None = None) -> dict[str, Any]:
        """The answer of ``template_program.Program``; where its process died, a ``fault`` with the line of code as
        ``code_line``.

        Args:
            digest: of ``source``.
            source: the template.
            names: what it is rendered with, an object as JSON; None: it is looked at.

        Raises:
            TemplatesUnavailable: no process can be started, or none became free.
        """
        head = f'{{"digest": {json.dumps(digest)}'.encode()
        tail = (b"" if names is None else b', "names": ' + names) + b"}"
        full = b"%b, %b%b" % (head, b'"source": ' + json.dumps(source, ensure_ascii=False).encode(*_ENCODING), tail)
        if digest not in self._stopped:
            return self._ask(digest, full, None if names is None else head + tail)
        _enter(self._places_of_the_stopped)
        try:
            return self._ask(digest, full, None if names is None else head + tail)
        finally:
            self._places_of_the_stopped.release()

    @property
    def pids(self) -> list[int]:
        """Of all processes, the one that was used last at the end."""
        with self._lock:
            return [process.pid for process in (*self._busy, *self._idle)]

    def close(self) -> None:
        """End all processes, and what they render. Nothing is to be rendered afterwards."""
        with self._lock:
            self._is_closed = True
            for process in self._busy:
                process.kill()
            if self._looks_after is not None:
                self._looks_after.cancel()
        self._finalizer()

    def _ask(self, digest: str, full: bytes, short: bytes | None) -> dict[str, Any]:
        """short is the request without the source, for a process that has compiled it already."""
        _enter(self._places)
        try:
            process = self._take()
            try:
                answer = {"unknown": True} if short is None else process.ask(short, self._limit_s)
                if answer.get("unknown"):
                    answer = process.ask(full, self._limit_s)
            except BaseException:
                # It may still write an answer, which would be taken for that of the next request.
                with self._lock:
                    self._busy.discard(process)
                process.end()
                raise
            if answer.get("fault") == "stopped":
                self._stopped.add(digest)
            if answer.pop("ends", False):
                process.end()
                with self._lock:
                    self._busy.discard(process)
                # So that the next render does not wait for it. Should that fail, the next render says why.
                with suppress(TemplatesUnavailable):
                    process = self._start()
                    self._give_back(process)
            else:
                self._give_back(process)
            return answer
        finally:
            self._places.release()

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
        """A new process, which counts as busy."""
        process = _Process(self._limit_s)
        with self._lock:
            if not self._is_closed:
                self._busy.add(process)
                return process
        process.end()
        raise TemplatesUnavailable("its server has closed")

    def _give_back(self, process: _Process) -> None:
        process.idle_since = time.monotonic()
        with self._lock:
            self._busy.discard(process)
            if not self._is_closed:
                self._idle.append(process)
                self._look_later()
                return
        process.end()

    def _look_later(self) -> None:
        """Have idle processes ended, of more than one, unless that is going to be done. The caller holds the lock."""
        if self._looks_after is None and len(self._idle) > 1:
            self._looks_after = threading.Timer(self._idle_s, _prune, (weakref.ref(self),))
            self._looks_after.daemon = True
            self._looks_after.start()

    def _prune(self) -> None:
        """End what has long been idle, but for one."""
        with self._lock:
            self._looks_after = None
            latest = time.monotonic() - self._idle_s
            ended = [process for process in self._idle[:-1] if process.idle_since <= latest]
            self._idle[:] = [process for process in self._idle if process not in ended]
            self._look_later()
        for process in ended:
            process.end()


def _prune(processes: weakref.ref[TemplateProcesses]) -> None:
    if (alive := processes()) is not None:
        alive._prune()


def _end_all(idle: list[_Process], owner: int) -> None:
    # They are not those of a fork.
    while idle and os.getpid() == owner:
        idle.pop().end()


def _enter(places: threading.BoundedSemaphore) -> None:
    if not places.acquire(timeout=_WAIT_S):
        raise TemplatesUnavailable(f"others were rendered for more than {_WAIT_S:.0f} s")


def _search_path() -> list[str]:
    """Where a process finds what it imports, also where an installation leaves that to a hook of ``site``."""
    found = [find_spec(name) for name in ("modelyard", "jinja2", "markupsafe")]
    homes = [str(Path(spec.origin).parents[1]) for spec in found if spec is not None and spec.origin is not None]
    return [*filter(None, sys.path), *homes]


class _Process:
    """One process. One thread at a time uses it.

    Attributes:
        idle_since: when it was given back, on the monotonic clock.
    """

    def __init__(self, limit_s: float) -> None:
        self.idle_since = 0.0
        self._has_started = False
        self._socket, theirs = socket.socketpair()
        program = _PROGRAM.format(path=_search_path())
        limits = map(str, (limit_s, RENDER_BYTES, LONGEST_TEXT))
        try:
            self._process = subprocess.Popen(
                # Isolated: neither the working directory nor the environment has a say in what is imported.
                [sys.executable, "-I", "-S", "-W", "ignore", "-c", program, *limits],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={**{name: os.environ[name] for name in _PASSED_ON if name in os.environ}, **_MALLOC},
                # Ctrl-C at the terminal is ours to handle.
                process_group=0,
            )
        except OSError as error:
            self._socket.close()
            raise TemplatesUnavailable(f"no process can be started for it: {error}") from error
        finally:
            theirs.close()

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its id."""
        return self._process.pid

    def kill(self) -> None:
        """Have it end, while another thread uses it, which learns of that."""
        self._process.kill()

    def ask(self, request: bytes, limit_s: float) -> dict[str, Any]:
        """Send a request; its answer, or the fault that its end is."""
        if not self._has_started:
            try:
                self._receive(_START_S)
            except OSError:
                how, log = self._stop(signal.SIGKILL)
                raise TemplatesUnavailable(f"its process did not start: {how}: {log}") from None
            self._has_started = True
        try:
            self._socket.settimeout(limit_s + _GRACE_S)
            self._socket.sendall(len(request).to_bytes(_HEADER_BYTES) + request)
            return self._receive(limit_s + _GRACE_S)
        except TimeoutError:
            _, log = self._stop(signal.SIGUSR1)
            return _fault(f"did not end within {limit_s:g} s", log)
        except OSError:
            how, log = self._stop(None)
            return _fault(f"ended its process ({how})", log)

    def end(self) -> None:
        """End it, whatever it does."""
        self._stop(signal.SIGKILL)

    def _receive(self, within_s: float) -> dict[str, Any]:
        """The next message.

        Raises:
            TimeoutError: it was not there in time.
            OSError: there will be none.
        """
        deadline = time.monotonic() + within_s
        message = bytearray()
        while len(message) < _HEADER_BYTES or len(message) < _HEADER_BYTES + int.from_bytes(message[:_HEADER_BYTES]):
            self._socket.settimeout(max(deadline - time.monotonic(), 1e-3))
            piece = self._socket.recv(_FIRST_READ_BYTES)
            if not piece or len(message) > _LONGEST_ANSWER:
                raise ConnectionError
            message += piece
        answer: dict[str, Any] = json.loads(message[_HEADER_BYTES:].decode(*_ENCODING))
        return answer

    def _stop(self, first: signal.Signals | None) -> tuple[str, str]:
        """End it: how it ended, and what it wrote to its standard error.

        Args:
            first: the signal that is to end it; None: it ends by itself.
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
        return (f"signal {-status}" if status < 0 else f"exit status {status}"), log


def _fault(why: str, log: str) -> dict[str, Any]:
    found = _TEMPLATE_LINE.search(log)
    return {"fault": "stopped", "why": why, "code_line": int(found[1]) if found else None, "ends": True}
