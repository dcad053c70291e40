"""Memory of a server with all of its processes, as the system counts it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

INTERVAL_S = 0.5


def tree_bytes(pid: int) -> int:
    """Memory of a process and its descendants; what several of them use counts in parts (Pss)."""
    return sum(_share_bytes(each) for each in _tree(pid))


def _tree(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _tree(int(child))


def _share_bytes(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return 1024 * int(line.split()[1])
    return 0


class MemoryWatch:
    """Looks at the memory of a server now and then.

    Attributes:
        most_bytes: the most that was seen.
    """

    def __init__(self, pid: int) -> None:
        self.most_bytes = 0
        self._pid, self._is_over = pid, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._is_over.wait(INTERVAL_S):
            self.most_bytes = max(self.most_bytes, tree_bytes(self._pid))
