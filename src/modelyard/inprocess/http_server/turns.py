"""Spreads work that comes for many connections at once over turns of the event loop, so that others are not kept."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final

logger = logging.getLogger(__name__)

MAX_AT_ONCE: Final = 32
"""To give a connection up, or to let one go, takes 0.1 ms: so many take 3 ms."""


class Turns:
    """Calls functions in order: ``MAX_AT_ONCE`` at once, and all others in the next turns of the event loop."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self._called = 0

    def call(self, function: Callable[[], None]) -> None:
        """Call ``function``: now, or where this turn has had its share, in one of the next."""
        if not self._called:
            asyncio.get_running_loop().call_soon(self._begin)
        if self._called >= MAX_AT_ONCE or self._waiting:
            self._waiting.append(function)
        else:
            self._called += 1
            function()

    def _begin(self) -> None:
        """Begin the next turn."""
        self._called = 0
        if not self._waiting:
            return
        asyncio.get_running_loop().call_soon(self._begin)
        while self._waiting and self._called < MAX_AT_ONCE:
            self._called += 1
            try:
                self._waiting.popleft()()
            except Exception:
                # What is wrong with one connection is not to keep others from being let go.
                logger.exception("A connection was not let go")
