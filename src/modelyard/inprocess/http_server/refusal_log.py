"""Counts connections that were refused or given up, and sums them up in log lines. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Final

from modelyard.inprocess.http_server.places import Loss

# Between two log lines. The first loss is logged at once.
MIN_PAUSE_S: Final = 10.0

# Losses in normal operation, which are not logged.
_EXPECTED: Final = frozenset({Loss.IDLE, Loss.LINGERED})
# Addresses that are counted between two lines.
MAX_ADDRESSES: Final = 1000


class Losses:
    """Connections that were refused or given up since the last log line.

    Attributes:
        total: counts since the start of the server.
    """

    def __init__(self) -> None:
        self.total: Counter[Loss] = Counter()
        self._new: Counter[Loss] = Counter()
        self._addresses: Counter[str] = Counter()
        self._logged_s = -MIN_PAUSE_S

    def note(self, loss: Loss, address: str | None) -> None:
        """Count one connection."""
        self.total[loss] += 1
        if loss in _EXPECTED:
            return
        self._new[loss] += 1
        if address is not None and (address in self._addresses or len(self._addresses) < MAX_ADDRESSES):
            self._addresses[address] += 1

    def line(self, now_s: float, held: int, limit: int) -> str | None:
        """Return the line that is due; None if none is.

        Args:
            now_s: the time.
            held: open connections.
            limit: connections that may be open.
        """
        if not self._new or now_s - self._logged_s < MIN_PAUSE_S:
            return None
        self._logged_s = now_s
        reasons = ", ".join(f"{count} {loss}" for loss, count in self._new.most_common())
        origin = "".join(f"; most from {address} ({count})" for address, count in self._addresses.most_common(1))
        self._new.clear()
        self._addresses.clear()
        return f"Connections were refused or given up: {reasons}{origin}. {held} of {limit} places are in use"
