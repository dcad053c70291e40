"""Cancels a request to a process from another thread than the one that waits for its answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Cancellation:
    """Cancels one request to a ``ProcessPool``, before or while a process works on it. Thread-safe.

    Attributes:
        is_cancelled: whether ``cancel`` was called.
    """

    def __init__(self) -> None:
        self.is_cancelled = False
        self._lock = threading.Lock()
        self._kill: Callable[[], None] | None = None

    def cancel(self) -> None:
        """Kill the process that works on the request; a request without a process never starts."""
        with self._lock:
            self.is_cancelled = True
            if self._kill is not None:
                self._kill()

    @contextmanager
    def covers(self, kill: Callable[[], None]) -> Iterator[bool]:
        """Let ``cancel`` call ``kill`` while the context is entered; yield whether the request may start."""
        with self._lock:
            self._kill = kill
            may_start = not self.is_cancelled
        try:
            yield may_start
        finally:
            # The process works on another request next.
            with self._lock:
                self._kill = None
