"""Publishes which calls wait for an approval, and which no longer do, to observers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from modelyard.errors import TooManyConnections

if TYPE_CHECKING:
    from modelyard.agent.approvals import PendingApproval

MAX_OBSERVERS: Final = 64
"""Each observer holds a connection without a time limit."""

MAX_UNREAD: Final = 10_000
"""An observer with more unread changes is ended, to bound the memory that they take."""

ApprovalState = Literal["waiting", "approved", "denied", "over"]
"""Where a call stands; "over": nobody decided in time, or its answer has ended."""


@dataclass(frozen=True, slots=True)
class ApprovalChange:
    """A call waits for its approval, or does so no longer."""

    pending: PendingApproval
    state: ApprovalState


class ApprovalObserver:
    """A reader of changes. Iterating it ends when too many changes are unread."""

    def __init__(self) -> None:
        self._unread: deque[ApprovalChange] = deque()
        self._wake = asyncio.Event()
        self._is_over = False

    def put(self, change: ApprovalChange) -> None:
        """Add a change."""
        if len(self._unread) >= MAX_UNREAD:
            self._is_over = True
        if not self._is_over:
            self._unread.append(change)
        self._wake.set()

    async def __aiter__(self) -> AsyncIterator[ApprovalChange]:
        while True:
            while self._unread:
                yield self._unread.popleft()
            if self._is_over:
                return
            self._wake.clear()
            await self._wake.wait()


class ApprovalBroadcaster:
    """All observers of one application. Use it on the event loop."""

    def __init__(self) -> None:
        self._observers: set[ApprovalObserver] = set()

    @contextmanager
    def observer(self) -> Iterator[ApprovalObserver]:
        """Enter with an observer of all changes from now on.

        Raises:
            TooManyConnections: there are MAX_OBSERVERS already.
        """
        if len(self._observers) >= MAX_OBSERVERS:
            raise TooManyConnections(f"{MAX_OBSERVERS} clients follow the approvals of calls already.")
        observer = ApprovalObserver()
        self._observers.add(observer)
        try:
            yield observer
        finally:
            self._observers.discard(observer)

    def publish(self, pending: PendingApproval, state: ApprovalState) -> None:
        """Publish a change."""
        for observer in self._observers:
            observer.put(ApprovalChange(pending, state))
