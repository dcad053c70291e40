"""Counts connections that were refused or given up, for one line of the log at a time. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Final

from modelyard.inprocess.http_server.places import Loss

# The first of them is a line at once, and what follows within this time is another.
MIN_PAUSE_S: Final = 10.0

# What ends in the ordinary course.
_EXPECTED: Final = frozenset({Loss.IDLE, Loss.LINGERED})
# So many addresses are told apart between two lines.
MAX_ADDRESSES: Final = 1000


class Losses:
    """Connections that were refused or given up since the last line.

    Attributes:
        total: since the server began.
    """

    def __init__(self) -> None:
        self.total: Counter[Loss] = Counter()
        self._new: Counter[Loss] = Counter()
        self._addresses: Counter[str] = Counter()
        self._said_s = -MIN_PAUSE_S

    def note(self, loss: Loss, address: str | None) -> None:
        """Count one."""
        self.total[loss] += 1
        if loss in _EXPECTED:
            return
        self._new[loss] += 1
        if address is not None and (address in self._addresses or len(self._addresses) < MAX_ADDRESSES):
            self._addresses[address] += 1

    def line(self, now_s: float, held: int, limit: int) -> str | None:
        """What the log is to say now, if anything.

        Args:
            held, limit: connections that there are, and that there may be.
        """
        if not self._new or now_s - self._said_s < MIN_PAUSE_S:
            return None
        self._said_s = now_s
        reasons = ", ".join(f"{count} {loss}" for loss, count in self._new.most_common())
        most = "".join(f"; most from {address} ({count})" for address, count in self._addresses.most_common(1))
        self._new.clear()
        self._addresses.clear()
        return f"Connections were refused or given up: {reasons}{most}. {held} of {limit} places are in use"
