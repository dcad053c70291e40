"""Counts requests of which each may arrive by several ways."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable


class TwoWays:
    """Calls ``act`` once for each request, although a request may arrive by one way or by several.

    The n-th arrivals of all ways are the same request. One Ctrl-C reaches a server from its terminal and from its
    supervisor, and is one request to stop; the second arrival by either way is the second request.
    """

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act
        self._arrived: Counter[Hashable] = Counter()

    def arrive(self, way: Hashable) -> None:
        """Count an arrival by ``way``, and act if it is a new request."""
        handled = max(self._arrived.values(), default=0)
        self._arrived[way] += 1
        if self._arrived[way] > handled:
            self._act()
