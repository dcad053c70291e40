"""Publishes changes to observers, which read them at their own pace, within bounds."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final, Generic, TypeVar

from modelyard.errors import TooManyConnections

MAX_OBSERVERS: Final = 64
"""Each observer holds a connection without a time limit."""

MAX_UNREAD: Final = 10_000
"""An observer with more unread changes is ended, to bound the memory that they take."""

_Change = TypeVar("_Change")


class Observer(Generic[_Change]):
    """A reader of changes. Iterating it ends when too many changes are unread."""

    def __init__(self) -> None:
        self._unread: deque[_Change] = deque()
        self._wake = asyncio.Event()
        self._is_over = False

    def put(self, change: _Change) -> None:
        """Add a change."""
        if len(self._unread) >= MAX_UNREAD:
            self._is_over = True
        if not self._is_over:
            self._unread.append(change)
        self._wake.set()

    async def __aiter__(self) -> AsyncIterator[_Change]:
        while True:
            while self._unread:
                yield self._unread.popleft()
            if self._is_over:
                return
            self._wake.clear()
            await self._wake.wait()


class Broadcaster(Generic[_Change]):
    """All observers of one kind of changes. Use it on the event loop."""

    def __init__(self) -> None:
        self._observers: set[Observer[_Change]] = set()

    @contextmanager
    def observer(self) -> Iterator[Observer[_Change]]:
        """Enter with an observer of all changes from now on.

        Raises:
            TooManyConnections: there are MAX_OBSERVERS already.
        """
        if len(self._observers) >= MAX_OBSERVERS:
            raise TooManyConnections(f"{MAX_OBSERVERS} clients follow the approvals of calls already.")
        observer = Observer[_Change]()
        self._observers.add(observer)
        try:
            yield observer
        finally:
            self._observers.discard(observer)

    def publish(self, change: _Change) -> None:
        """Publish a change."""
        for observer in self._observers:
            observer.put(change)
