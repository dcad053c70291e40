"""Maps the memory that llama.cpp copies tensors to, on another core, just before it gets there.

llama.cpp copies on one thread, which would spend half of its time with the system clearing new pages for it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

from modelyard.system.anonymous_memory import added_ranges, anonymous_ranges, map_for_writing
from modelyard.system.cores import usable_cores
from modelyard.system.file_mappings import MappedRange

# No buffer of weights is smaller that is worth a thread.
MIN_BYTES: Final = 64 << 20

STEP_BYTES: Final = 8 << 20

# How far it may be ahead. While a load pauses for models that compute, this pauses, too.
AHEAD_BYTES: Final = 128 << 20


class CopyMemory:
    """The memory for the copies of one load, from before the load until ``end``, on the thread that loads."""

    def __init__(self) -> None:
        self._before = anonymous_ranges() if usable_cores() > 1 else None
        self._change = threading.Condition()
        self._reached_bytes = 0.0
        self._is_over = False
        self._thread: threading.Thread | None = None

    def on_progress(self, fraction: float, copied_bytes: int) -> None:
        """Follow the load: to be called by llama.cpp's progress callback, first when all buffers are allocated.

        Args:
            fraction: part of the tensors that was read.
            copied_bytes: size of all tensors that are copied.
        """
        if self._before is not None and copied_bytes >= MIN_BYTES:
            added = [each for each in added_ranges(self._before, anonymous_ranges()) if each.size >= MIN_BYTES]
            self._thread = threading.Thread(target=self._run, args=(added,), name="memory of weights", daemon=True)
            self._thread.start()
        self._before = None
        if self._thread is not None:
            with self._change:
                self._reached_bytes = fraction * copied_bytes
                self._change.notify()

    def end(self) -> None:
        """End it, when llama.cpp has returned."""
        if self._thread is not None:
            with self._change:
                self._is_over = True
                self._change.notify()
            self._thread.join()

    def _run(self, ranges: Sequence[MappedRange]) -> None:
        mapped = 0
        for each in ranges:
            for begin in range(each.begin, each.end, STEP_BYTES):
                step = MappedRange(begin, min(begin + STEP_BYTES, each.end))
                if not (self._await_need(mapped) and map_for_writing(step)):
                    return
                mapped += step.size

    def _await_need(self, mapped: int) -> bool:
        """Wait until more than ``mapped`` bytes are needed; whether they are."""
        with self._change:
            self._change.wait_for(lambda: self._is_over or mapped < self._reached_bytes + AHEAD_BYTES)
            return not self._is_over
