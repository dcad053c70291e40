"""The bounds of calls: of one server, and of all together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CallLimits:
    """The bounds of the calls of one server.

    Attributes:
        timeout_s: of a call, with the wait for its place.
        max_result: bytes of the text of a result.
        places: of the calls of all servers together.
        own_places: of the calls of this server; None: it has no bound of its own.
    """

    timeout_s: float
    max_result: int
    places: asyncio.Semaphore
    own_places: asyncio.Semaphore | None = None

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Enter when a call may run: first within its server, so that calls that wait there take no common place."""
        async with self.own_places or nullcontext(), self.places:
            yield
