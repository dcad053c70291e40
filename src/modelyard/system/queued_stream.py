"""A text stream whose writers never wait for its reader.

A terminal that reads nothing, because of Ctrl-S or a connection that stalls, makes each write to it wait. Where an
event loop writes, all that it serves would wait as well.
"""

from __future__ import annotations

import io
import threading
import time
from collections import deque
from typing import Final, TextIO

MAX_WAITING_CHARS: Final = 1 << 20
"""Text that waits for the reader; what comes while there is more is dropped."""


class QueuedStream(io.TextIOBase):
    """Passes text on to ``target`` from a thread of its own.

    What is dropped, because the reader does not keep up, is counted in a line that takes its place.
    """

    def __init__(self, target: TextIO) -> None:
        super().__init__()
        self._target = target
        # Its lock is reentrant: a finalizer that logs may run while a write holds it.
        self._changed = threading.Condition()
        self._waiting: deque[str] = deque()
        self._chars = self._dropped = 0
        self._is_writing = False
        self._writer: threading.Thread | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Encoding of the target."""
        return self._target.encoding

    def isatty(self) -> bool:
        """Whether the target is a terminal."""
        return self._target.isatty()

    def fileno(self) -> int:
        """Return the descriptor of the target."""
        return self._target.fileno()

    def writable(self) -> bool:
        """Text can be written, always."""
        return True

    def write(self, text: str) -> int:
        """Queue ``text``. Never waits for the reader."""
        with self._changed:
            if self._chars + len(text) > MAX_WAITING_CHARS:
                self._dropped += 1
                return len(text)
            if self._dropped:
                note = f"\n({self._dropped} writes were dropped: nothing was read here for a while.)\n"
                self._dropped = 0
                self._put(note)
            self._put(text)
            if self._writer is None:
                self._writer = threading.Thread(target=self._write_all, name="queued output", daemon=True)
                self._writer.start()
            self._changed.notify_all()
        return len(text)

    def flush(self) -> None:
        """Do nothing: the thread flushes after each piece. See ``drain``."""

    def drain(self, timeout_s: float) -> bool:
        """Wait until all that was written is passed on; return whether it was, within ``timeout_s`` seconds."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while self._waiting or self._is_writing:
                if not self._changed.wait(max(0.0, deadline - time.monotonic())) and time.monotonic() >= deadline:
                    return False
        return True

    def _put(self, text: str) -> None:
        self._waiting.append(text)
        self._chars += len(text)

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()
                while not self._waiting:
                    self._changed.wait()
                text = "".join(self._waiting)
                self._waiting.clear()
                self._is_writing = True
            try:
                self._target.write(text)
                self._target.flush()
            except (OSError, ValueError):
                # The reader is gone, or the stream is closed: a server goes on without its output.
                pass
            with self._changed:
                self._chars -= len(text)
