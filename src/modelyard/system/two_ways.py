"""Counts requests that may arrive by two ways at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable


class TwoWays:
    """Calls ``act`` once for each request, although a request may arrive by one way or by several.

    The n-th arrival of each way is the same request. One Ctrl-C reaches a server from its terminal and from its
    supervisor, and is one request to stop; a second one that arrives by either way is the second request.
    """

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act
        self._arrived: Counter[Hashable] = Counter()

    def arrive(self, way: Hashable) -> None:
        """Take one arrival."""
        acted = max(self._arrived.values(), default=0)
        self._arrived[way] += 1
        if self._arrived[way] > acted:
            self._act()
