"""Output whose writers never wait for its reader.

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
"""Text that waits for readers; what comes while there is more is dropped."""


class QueuedOutput:
    """Writes the text of its streams from a thread of its own, in the order in which it came.

    What is dropped, because a reader does not keep up, is counted in a line that takes its place.
    """

    def __init__(self) -> None:
        # Its lock is reentrant: a finalizer that logs may run while a write holds it.
        self._changed = threading.Condition()
        self._waiting: deque[tuple[TextIO, str]] = deque()
        self._chars = self._dropped = 0
        self._is_writing = False
        self._writer: threading.Thread | None = None

    def stream(self, target: TextIO) -> QueuedStream:
        """Return a stream whose text goes to ``target``."""
        return QueuedStream(self, target)

    def put(self, target: TextIO, text: str) -> None:
        """Queue ``text`` for ``target``. Never waits for a reader."""
        with self._changed:
            if self._chars + len(text) > MAX_WAITING_CHARS:
                self._dropped += 1
                return
            if self._dropped:
                note = f"\n({self._dropped} writes were dropped: nothing was read here for a while.)\n"
                self._dropped = 0
                self._append(target, note)
            self._append(target, text)
            if self._writer is None:
                self._writer = threading.Thread(target=self._write_all, name="queued output", daemon=True)
                self._writer.start()
            self._changed.notify_all()

    def drain(self, timeout_s: float) -> bool:
        """Wait until all that was queued is written; return whether it was, within ``timeout_s`` seconds."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while self._waiting or self._is_writing:
                if (left := deadline - time.monotonic()) <= 0:
                    return False
                self._changed.wait(left)
        return True

    def _append(self, target: TextIO, text: str) -> None:
        self._waiting.append((target, text))
        self._chars += len(text)

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()
                while not self._waiting:
                    self._changed.wait()
                target, text = self._waiting.popleft()
                self._is_writing = True
            try:
                target.write(text)
                target.flush()
            except (OSError, ValueError):
                # The reader is gone, or the stream is closed: a server goes on without its output.
                pass
            with self._changed:
                self._chars -= len(text)


class QueuedStream(io.TextIOBase):
    """A text stream to ``target`` through ``output``."""

    def __init__(self, output: QueuedOutput, target: TextIO) -> None:
        super().__init__()
        self._output, self._target = output, target

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
        """Queue ``text``."""
        self._output.put(self._target, text)
        return len(text)

    def flush(self) -> None:
        """Do nothing: each piece is flushed once it is written. See ``QueuedOutput.drain``."""
