"""A pool of processes that run the foreign code of models and requests; ``inside`` is the part that runs in them.

A request costs one write and one read. A process that is stopped or dies fails one request, and is replaced. See
``process`` for a single process.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any, Final

from modelyard.system.bounded.cancellation import Cancellation
from modelyard.system.bounded.process import BoundedProcess, ProcessUnavailable

__all__ = ["IDLE_S", "MAX_PROCESSES", "PATIENCE", "WAIT_S", "ProcessPool", "ProcessUnavailable", "enter"]

MAX_PROCESSES: Final = 4
"""Default limit of concurrent requests."""

WAIT_S: Final = 20.0
"""How long a request waits for a free process."""

PATIENCE: Final = 4.0
"""Wall-clock limit of a request, as a multiple of its processor time: the machine may be busy."""

IDLE_S: Final = 30.0
"""Idle time after which processes end, except those that are kept."""


class ProcessPool:
    """Processes of one program. Thread-safe.

    The first request starts the first process. Processes end with ``close``, with this object, or with the interpreter.

    Args:
        program: a module whose ``main`` serves requests, see ``inside.serve``.
        arguments: arguments of its command line.
        limit_s: processor time that a request may take.
        idle_s: idle time after which a process ends.
        kept: number of idle processes that do not end.
        max_processes: limit of concurrent processes.
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
        max_processes: int = MAX_PROCESSES,
        patience: float = PATIENCE,
    ) -> None:
        self._program, self._arguments = program, arguments
        self._limit_s, self._idle_s, self._kept, self._patience = limit_s, idle_s, kept, patience
        self._places = threading.BoundedSemaphore(max_processes)
        # The most recently used process is last.
        self._idle: list[BoundedProcess] = []
        self._busy: set[BoundedProcess] = set()
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
            try:
                answer = _ask(process, requests, self._limit_s if limit_s is None else limit_s, file, cancellation)
            except BaseException:
                # The process may still write an answer, which the next request would read as its own.
                with self._lock:
                    self._busy.discard(process)
                process.end()
                raise
            if answer.pop("ends", False):
                self._replace(process)
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

    def _take(self) -> BoundedProcess:
        while True:
            with self._lock:
                process = self._idle.pop() if self._idle else None
                if process is not None and process.is_alive and not self._is_closed:
                    self._busy.add(process)
                    return process
            if process is None:
                return self._start()
            process.end()

    def _start(self) -> BoundedProcess:
        """Start a process, which counts as busy."""
        process = BoundedProcess(self._program, self._arguments, self._patience)
        with self._lock:
            if not self._is_closed:
                self._busy.add(process)
                return process
        process.end()
        raise ProcessUnavailable("its server has closed")

    def _replace(self, process: BoundedProcess) -> None:
        """End a process and start another, so that the next request need not wait."""
        process.end()
        with self._lock:
            self._busy.discard(process)
        # If the start fails, the next request reports why.
        with suppress(ProcessUnavailable):
            self._give_back(self._start())

    def _give_back(self, process: BoundedProcess) -> None:
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


def _ask(
    process: BoundedProcess,
    requests: Sequence[bytes],
    limit_s: float,
    file: int | None,
    cancellation: Cancellation | None,
) -> dict[str, Any]:
    answer: dict[str, Any] = {}
    with ExitStack() as stack:
        if cancellation is not None and not stack.enter_context(cancellation.covers(process.kill)):
            raise ProcessUnavailable("it was cancelled")
        for request in requests:
            answer = process.ask(request, limit_s, file)
            if not answer.get("unknown"):
                break
    return answer


def _prune(reference: weakref.ref[ProcessPool]) -> None:
    if (pool := reference()) is not None:
        pool._prune()


def _end_all(idle: list[BoundedProcess], owner: int) -> None:
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
