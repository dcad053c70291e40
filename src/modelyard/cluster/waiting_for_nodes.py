"""The requests of a front that wait because no node is connected: the cluster has scaled to zero, or lost them all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from modelyard.protocol.values import SequenceId


class WaitingForNodes:
    """Keeps who waits, in order of arrival, each with a bound. Use it on one event loop.

    Args:
        on_change: called with whether anybody waits, when that changes.
    """

    def __init__(self, on_change: Callable[[bool], None]) -> None:
        self._on_change = on_change
        self._expiries: dict[SequenceId, asyncio.TimerHandle] = {}
        self._since = 0.0

    def __len__(self) -> int:
        return len(self._expiries)

    def __contains__(self, sequence: SequenceId) -> bool:
        return sequence in self._expiries

    def add(self, sequence: SequenceId, seconds: float, on_expiry: Callable[[], None]) -> None:
        """Have a request wait; ``on_expiry`` is called where it still does after so many seconds."""
        if not self._expiries:
            self._since = time.monotonic()
        self._expiries[sequence] = asyncio.get_running_loop().call_later(seconds, on_expiry)
        if len(self._expiries) == 1:
            self._on_change(True)

    def remove(self, sequence: SequenceId) -> None:
        """End the wait of a request. Those that do not wait are ignored."""
        if (expiry := self._expiries.pop(sequence, None)) is None:
            return
        expiry.cancel()
        if not self._expiries:
            self._on_change(False)

    def take_all(self) -> list[SequenceId]:
        """End all waits, and return who has waited, in order of arrival."""
        taken = list(self._expiries)
        for sequence in taken:
            self.remove(sequence)
        return taken

    def status(self, now: float) -> str:
        """Return what those who wait are waiting for, and since when."""
        count = f"{len(self)} request{'s wait' if len(self) > 1 else ' waits'} for it"
        return f"a node of the cluster is starting, for {now - self._since:.0f} s so far; {count}"
