"""Slows a server down that sends more messages than any has reason to."""

from __future__ import annotations

import asyncio
from typing import Final

MAX_MESSAGES_PER_S: Final = 2000
"""Messages of one server in a second. Each takes time of the event loop, which answers other requests, too."""


class Throttle:
    """Counts the messages of a connection."""

    def __init__(self, limit: int = MAX_MESSAGES_PER_S) -> None:
        self._limit, self._count, self._since = limit, 0, 0.0

    async def count(self) -> None:
        """Count a message; wait for the end of the second if it has had enough."""
        now = asyncio.get_running_loop().time()
        if now - self._since >= 1:
            self._since, self._count = now, 0
        self._count += 1
        if self._count > self._limit:
            await asyncio.sleep(self._since + 1 - now)
