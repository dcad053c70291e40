"""The memory of all request bodies and the values parsed from them."""

from __future__ import annotations

import asyncio
from collections import deque
from contextvars import ContextVar
from types import TracebackType
from typing import Final

from modelyard.errors import ServerOverloaded

MIN_BYTES: Final = 256 << 20
"""Memory for requests on the smallest machines; the largest body fits."""

MACHINE_SHARE: Final = 16
"""Larger machines use 1/16 of their memory, out of the fifth that the models' budget leaves free."""

FREE_BYTES: Final = 1 << 20
"""Memory that a request may take without being counted; the number of requests in flight is bounded elsewhere."""

OBJECT_BYTES: Final = 1200
"""Memory of a JSON object that becomes an instance of a pydantic model; 1.1 KB were measured."""

MAX_OBJECTS_HELD: Final = 100_000
"""JSON objects of all requests together. The garbage collector visits them in one pass, during which no other thread
runs: 35 ms for this many."""

MAX_WAIT_S: Final = 20.0
"""How long a request waits for memory."""


def request_memory_bytes(machine_bytes: int) -> int:
    """Return the memory for all requests on a machine, or in a control group, with ``machine_bytes``."""
    return max(MIN_BYTES, machine_bytes // MACHINE_SHARE)


_Waiting = tuple["RequestMemoryLease", int, asyncio.Future[None]]
"""A lease, the bytes in all that it shall have, and what is set when it has them."""


class RequestMemory:
    """Counts the memory of requests; a request that would exceed the limit waits in a first-in-first-out queue.

    A request that needs more than the limit proceeds when no other request holds memory. Where all that hold memory
    wait for more, one of them that fits goes first, and else the last of them is refused: nobody else would give any
    back.

    Args:
        limit: bytes for all requests.
        max_wait_s: how long a request waits.

    Attributes:
        object_bytes: what a JSON object counts for: its memory, or more, where ``limit`` would otherwise let requests
            have more than ``MAX_OBJECTS_HELD`` together.
    """

    def __init__(self, limit: int, max_wait_s: float = MAX_WAIT_S) -> None:
        self.limit = limit
        self.object_bytes = max(OBJECT_BYTES, limit // MAX_OBJECTS_HELD)
        self.used = 0
        self._max_wait_s = max_wait_s
        self._queue: deque[_Waiting] = deque()

    def lease(self) -> RequestMemoryLease:
        """Return an empty lease for one request; its context must be left when the request ends."""
        return RequestMemoryLease(self)

    async def grow(self, lease: RequestMemoryLease, size: int) -> None:
        """Grow ``lease`` to ``size`` bytes in all.

        Raises:
            ServerOverloaded: the memory did not become free within ``max_wait_s``, or all that hold memory wait for
                more.
        """
        if size <= max(lease.size, FREE_BYTES):
            return
        if not self._queue and self._has_room(lease, size):
            self._resize(lease, size)
            return
        granted = asyncio.get_running_loop().create_future()
        entry = (lease, size, granted)
        self._queue.append(entry)
        self._end_deadlock()
        try:
            async with asyncio.timeout(self._max_wait_s):
                await granted
        except TimeoutError:
            raise ServerOverloaded(self.limit) from None
        finally:
            if entry in self._queue:
                self._queue.remove(entry)
                self._admit()

    def shrink(self, lease: RequestMemoryLease, size: int) -> None:
        """Shrink ``lease`` to at most ``size`` bytes."""
        self._resize(lease, min(lease.size, size))
        self._admit()

    def _admit(self) -> None:
        while self._queue and self._has_room(*self._queue[0][:2]):
            self._grant(self._queue[0])
        self._end_deadlock()

    def _grant(self, entry: _Waiting) -> None:
        lease, size, granted = entry
        self._queue.remove(entry)
        self._resize(lease, size)
        if not granted.done():
            granted.set_result(None)

    def _end_deadlock(self) -> None:
        """Serve or refuse one of those that wait, where nobody else holds memory."""
        holders = [entry for entry in self._queue if entry[0].size]
        if not holders or sum(lease.size for lease, _, _ in holders) < self.used:
            return
        for entry in holders:
            if self._has_room(*entry[:2]):
                self._grant(entry)
                return
        last = holders[-1]
        self._queue.remove(last)
        if not last[2].done():
            last[2].set_exception(ServerOverloaded(self.limit))

    def _has_room(self, lease: RequestMemoryLease, size: int) -> bool:
        others = self.used - lease.size
        return others == 0 or others + size <= self.limit

    def _resize(self, lease: RequestMemoryLease, size: int) -> None:
        self.used += size - lease.size
        lease.size = size


class RequestMemoryLease:
    """The memory of one request.

    Attributes:
        size: bytes; 0 if there are too few to be counted.
    """

    def __init__(self, memory: RequestMemory) -> None:
        self.size = 0
        self._memory = memory

    @property
    def object_bytes(self) -> int:
        """What a JSON object counts for; see ``RequestMemory``."""
        return self._memory.object_bytes

    async def grow(self, size: int) -> None:
        """Grow to ``size`` bytes in all; see ``RequestMemory.grow``."""
        await self._memory.grow(self, size)

    async def add(self, size: int) -> None:
        """Grow by ``size`` bytes; see ``RequestMemory.grow``."""
        await self.grow(self.size + size)

    def give_back(self, size: int) -> None:
        """Shrink by ``size`` bytes, but not below 0."""
        self._memory.shrink(self, max(0, self.size - size))

    def hand_over(self) -> RequestMemoryLease:
        """Move the memory to a new lease that may outlive the request; its context must be left, too."""
        lease = RequestMemoryLease(self._memory)
        lease.size, self.size = self.size, 0
        return lease

    def __enter__(self) -> RequestMemoryLease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.size:
            self._memory.shrink(self, 0)


LEASE: ContextVar[RequestMemoryLease | None] = ContextVar("request_memory", default=None)
"""The lease of the request that this task answers; None: there is no HTTP request."""
