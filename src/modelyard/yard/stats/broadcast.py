"""Publishes changes to observers, which read them at their own pace, within bounds."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Generic, TypeVar

from modelyard.errors import TooManyConnections

MAX_UNREAD: Final = 10_000
"""An observer with more unread changes is ended, to bound the memory that they take."""

MAX_OBSERVERS: Final = 64
"""Each observer holds a connection without a time limit."""

_Change = TypeVar("_Change")


class Observer(Generic[_Change]):
    """A reader of changes. Iterating it ends when it is ended, or when too many changes are unread.

    Args:
        supersedes: whether a change, the second, makes the one before it needless.
    """

    def __init__(self, supersedes: Callable[[_Change, _Change], bool]) -> None:
        self._supersedes = supersedes
        self._unread: deque[_Change] = deque()
        self._wake = asyncio.Event()
        self._is_over = False

    def put(self, change: _Change) -> None:
        """Add a change. The last one that was not read yet is dropped where this one supersedes it."""
        if self._is_over:
            # Changes after a gap would not make sense to the reader.
            return
        if self._unread and self._supersedes(self._unread[-1], change):
            self._unread.pop()
        if len(self._unread) >= MAX_UNREAD:
            self.end()
        else:
            self._unread.append(change)
            self._wake.set()

    def end(self) -> None:
        """End the iteration once all unread changes are read."""
        self._is_over = True
        self._wake.set()

    def __aiter__(self) -> Observer[_Change]:
        return self

    async def __anext__(self) -> _Change:
        while not self._unread:
            if self._is_over:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        return self._unread.popleft()


def _never(_before: object, _change: object) -> bool:
    return False


class Broadcaster(Generic[_Change]):
    """All observers of one kind of changes. Use it on the event loop.

    Args:
        what: what the observers follow, for the error that refuses one.
        supersedes: see ``Observer``; omitted: no change supersedes another.
    """

    def __init__(self, what: str, supersedes: Callable[[_Change, _Change], bool] = _never) -> None:
        self._what, self._supersedes = what, supersedes
        self._observers: set[Observer[_Change]] = set()
        self._others: set[Callable[[], object]] = set()
        self._is_closed = False

    @contextmanager
    def observer(self) -> Iterator[Observer[_Change]]:
        """Enter with an observer of all changes from now on.

        Raises:
            TooManyConnections: there are MAX_OBSERVERS already.
        """
        if len(self._observers) >= MAX_OBSERVERS:
            raise TooManyConnections(f"{MAX_OBSERVERS} clients follow {self._what} already.")
        observer = Observer(self._supersedes)
        if self._is_closed:
            observer.end()
        self._observers.add(observer)
        try:
            yield observer
        finally:
            self._observers.discard(observer)

    @contextmanager
    def ending(self, end: Callable[[], object]) -> Iterator[None]:
        """Call ``end`` when the observers are ended, while the context lasts: it ends another reader beside them."""
        if self._is_closed:
            end()
        self._others.add(end)
        try:
            yield
        finally:
            self._others.discard(end)

    def publish(self, change: _Change) -> None:
        """Publish a change."""
        for observer in self._observers:
            observer.put(change)

    def close(self) -> int:
        """End all observers, and those that come later at once; return how many were there."""
        self._is_closed = True
        return self.dismiss()

    def dismiss(self) -> int:
        """End all present observers; return their number."""
        ends = [*(observer.end for observer in self._observers), *self._others]
        for end in ends:
            end()
        return len(ends)
