"""Places for work that takes memory or waits for others: so many at the same time, shared by owners."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from typing import TypeVar

from modelyard.engine.kv.owner_shares import may_take

_T = TypeVar("_T")


class Places:
    """At most ``most`` at the same time.

    An owner has another one as long as it has fewer than are left, and waits otherwise, with those who came after it
    going first where they have less. For the owner None a place that is free is enough. Used on one event loop.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: Counter[Hashable] = Counter()
        self._waiting: deque[tuple[Hashable, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def place(self, owner: Hashable) -> AsyncIterator[None]:
        """Have a place while the context is entered."""
        await self._take(owner)
        try:
            yield
        finally:
            self._leave(owner)

    async def run(self, owner: Hashable, work: Callable[[], _T], cancel: Callable[[], None]) -> _T:
        """Do ``work`` on a thread. Its place is taken until it is done, also where nobody waits for it any more.

        cancel has it end early then.
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
                # Whoever has left does not look at its failure, which asyncio would complain of.
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
                # It was granted in the same moment.
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
            return total < self._most
        return may_take(self._held[owner], total, self._most)
