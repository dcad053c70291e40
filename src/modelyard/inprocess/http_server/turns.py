"""Spreads work that comes for many connections at once over iterations of the event loop."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final

logger = logging.getLogger(__name__)

MAX_AT_ONCE: Final = 32
"""Default of calls in one iteration of the event loop: giving up or closing a connection takes 0.1 ms, and this many
take 3 ms."""


class Turns:
    """Calls functions in order.

    Args:
        max_at_once: calls in one iteration of the event loop.
    """

    def __init__(self, max_at_once: int = MAX_AT_ONCE) -> None:
        self._max_at_once = max_at_once
        self._waiting: deque[Callable[[], None]] = deque()
        self._called = 0

    def call(self, function: Callable[[], None]) -> None:
        """Call ``function`` now, or in a later iteration if this one has had its calls."""
        if not self._called:
            asyncio.get_running_loop().call_soon(self._next_turn)
        if self._called >= self._max_at_once or self._waiting:
            self._waiting.append(function)
        else:
            self._called += 1
            function()

    def _next_turn(self) -> None:
        """Reset the count and call waiting functions."""
        self._called = 0
        if not self._waiting:
            return
        asyncio.get_running_loop().call_soon(self._next_turn)
        while self._waiting and self._called < self._max_at_once:
            self._called += 1
            try:
                self._waiting.popleft()()
            except Exception:
                # A failure of one connection must not stop the calls for others.
                logger.exception("A connection was not let go")
