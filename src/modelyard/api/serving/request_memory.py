"""Memory that bodies of requests, and what is parsed from them, take together."""

from __future__ import annotations

import asyncio
from collections import deque
from contextvars import ContextVar
from types import TracebackType
from typing import Final

from modelyard.errors import ServerOverloaded

MIN_BYTES: Final = 256 << 20
"""Memory for requests on the smallest of machines; the largest of bodies fits."""

MACHINE_SHARE: Final = 16
"""On larger machines they have this part of the memory, of the fifth that the models' budget leaves free."""

FREE_BYTES: Final = 1 << 20
"""What a request may take without being counted: those that are in flight have a bound of their own."""

MAX_WAIT_S: Final = 20.0
"""How long a request waits for memory."""


def request_memory_bytes(machine_bytes: int) -> int:
    """Memory for all requests, on a machine or in a control group with ``machine_bytes``."""
    return max(MIN_BYTES, machine_bytes // MACHINE_SHARE)


class RequestMemory:
    """Counts what requests take, and has them wait, first come first served, where it would be too much.

    A request that takes more than all of the memory goes on when no other holds any.

    Args:
        limit: bytes for all requests.
    """

    def __init__(self, limit: int, max_wait_s: float = MAX_WAIT_S) -> None:
        self.limit = limit
        self.used = 0
        self._max_wait_s = max_wait_s
        self._waiting: deque[tuple[RequestMemoryLease, int, asyncio.Future[None]]] = deque()

    def lease(self) -> RequestMemoryLease:
        """What one request takes: nothing yet. To be entered, and left when the request is over."""
        return RequestMemoryLease(self)

    async def grow(self, lease: RequestMemoryLease, size: int) -> None:
        """Let ``lease`` have ``size`` bytes in all.

        Raises:
            ServerOverloaded: the others did not leave so much for ``MAX_WAIT_S``.
        """
        if size <= max(lease.size, FREE_BYTES):
            return
        if not self._waiting and self._has_room(lease, size):
            self._give(lease, size)
            return
        is_given = asyncio.get_running_loop().create_future()
        entry = (lease, size, is_given)
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(self._max_wait_s):
                await is_given
        except TimeoutError:
            raise ServerOverloaded(self.limit) from None
        finally:
            if entry in self._waiting:
                self._waiting.remove(entry)
                self._admit()

    def shrink(self, lease: RequestMemoryLease, size: int) -> None:
        """Leave ``lease`` no more than ``size`` bytes."""
        self._give(lease, min(lease.size, size))
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._has_room(*self._waiting[0][:2]):
            lease, size, is_given = self._waiting.popleft()
            self._give(lease, size)
            if not is_given.done():
                is_given.set_result(None)

    def _has_room(self, lease: RequestMemoryLease, size: int) -> bool:
        others = self.used - lease.size
        return others == 0 or others + size <= self.limit

    def _give(self, lease: RequestMemoryLease, size: int) -> None:
        self.used += size - lease.size
        lease.size = size


class RequestMemoryLease:
    """What one request takes of ``RequestMemory``.

    Attributes:
        size: in bytes; 0 where it is too little to be counted.
    """

    def __init__(self, memory: RequestMemory) -> None:
        self.size = 0
        self._memory = memory

    async def grow(self, size: int) -> None:
        """As ``RequestMemory.grow``."""
        await self._memory.grow(self, size)

    async def add(self, size: int) -> None:
        """Have ``size`` bytes more, as ``RequestMemory.grow``."""
        await self.grow(self.size + size)

    def give_back(self, size: int) -> None:
        """Have ``size`` bytes less, or none where it has not so many."""
        self._memory.shrink(self, max(0, self.size - size))

    def hand_over(self) -> RequestMemoryLease:
        """All that this one has, for a lease that lasts longer than the request. It is to be entered, and left."""
        longer = RequestMemoryLease(self._memory)
        longer.size, self.size = self.size, 0
        return longer

    def __enter__(self) -> RequestMemoryLease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.size:
            self._memory.shrink(self, 0)


LEASE: ContextVar[RequestMemoryLease | None] = ContextVar("request_memory", default=None)
"""Of the request that this task answers; None: a program that calls the yard itself."""
