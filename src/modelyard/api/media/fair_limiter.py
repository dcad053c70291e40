"""Limits work that takes memory or waits for other servers: a number of places, shared fairly by owners."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from typing import TypeVar

from modelyard.system.owner_shares import may_take

_T = TypeVar("_T")


class FairLimiter:
    """A number of places, for use on one event loop.

    An owner gets a place as long as it holds fewer than are free; see ``may_take``. Otherwise it waits, and owners who
    hold fewer places go first. The owner None gets any free place.

    Args:
        limit: the number of places.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: Counter[Hashable] = Counter()
        self._waiting: deque[tuple[Hashable, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def place(self, owner: Hashable) -> AsyncIterator[None]:
        """Hold a place while the context is entered."""
        await self._take(owner)
        try:
            yield
        finally:
            self._leave(owner)

    async def run(self, owner: Hashable, work: Callable[[], _T], cancel: Callable[[], None]) -> _T:
        """Run ``work`` on a thread, and hold a place until it ends, even if the caller is cancelled before.

        Args:
            owner: the owner of the place.
            work: the function to run.
            cancel: called if the caller is cancelled; makes ``work`` end early.
        """
        await self._take(owner)
        try:
            running = asyncio.get_running_loop().run_in_executor(None, work)
        except BaseException:
            self._leave(owner)
            raise

        def end(done: asyncio.Future[_T]) -> None:
            self._leave(owner)
            if not done.cancelled():
                # Marks the exception as retrieved: a cancelled caller does not retrieve it, and asyncio would log it.
                done.exception()

        running.add_done_callback(end)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            cancel()
            raise

    async def _take(self, owner: Hashable) -> None:
        if self._may_take(owner):
            self._held[owner] += 1
            return
        granted = asyncio.get_running_loop().create_future()
        entry = (owner, granted)
        self._waiting.append(entry)
        try:
            await granted
        except asyncio.CancelledError:
            if granted.cancelled():
                self._waiting.remove(entry)
            else:
                # The place was granted before the cancellation arrived.
                self._leave(owner)
            raise

    def _leave(self, owner: Hashable) -> None:
        self._held[owner] -= 1
        if not self._held[owner]:
            del self._held[owner]
        for entry in list(self._waiting):
            waiter, granted = entry
            if not granted.done() and self._may_take(waiter):
                self._waiting.remove(entry)
                self._held[waiter] += 1
                granted.set_result(None)

    def _may_take(self, owner: Hashable) -> bool:
        total = self._held.total()
        if owner is None:
            return total < self._limit
        return may_take(self._held[owner], total, self._limit)
