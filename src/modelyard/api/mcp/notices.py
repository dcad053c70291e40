"""Tells MCP clients which models have changed, at a bounded rate."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from mcp.server.subscriptions import InMemorySubscriptionBus
from mcp.shared.subscriptions import ResourcesListChanged, ResourceUpdated
from mcp_types import ResourceListChangedNotification

from modelyard.api.mcp.resources import uri_of
from modelyard.api.mcp.sessions import Session, Sessions
from modelyard.yard.stats.status_broadcaster import StatusChange

MIN_INTERVAL_S: Final = 1.0
"""Least time between two notifications of the same change to one client."""


class Notices:
    """Notifies sessions, and the streams of events on ``bus``, of changed models.

    A client that does not read gets one notification of each kind once it reads again; nothing waits for it.
    """

    def __init__(self, sessions: Sessions, bus: InMemorySubscriptionBus) -> None:
        self._sessions, self._bus = sessions, bus
        self._changed: set[str] = set()
        self._sending: asyncio.Task[None] | None = None
        # The clients that are being notified, and what they are notified of afterwards.
        self._notifying: dict[Session, asyncio.Task[None]] = {}
        self._missed: dict[Session, set[str]] = {}

    def on_change(self, change: StatusChange) -> None:
        """Take a change of a model. Progress of its load is not announced."""
        if change.progress is None:
            self._changed.add(uri_of(change.model))
            if self._sending is None or self._sending.done():
                self._sending = asyncio.create_task(self._send(), name="notify MCP clients")

    async def aclose(self) -> None:
        """End all notifications."""
        tasks = [*self._notifying.values(), *([self._sending] if self._sending else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self) -> None:
        while self._changed:
            changed, self._changed = self._changed, set()
            await self._bus.publish(ResourcesListChanged())
            for uri in changed:
                await self._bus.publish(ResourceUpdated(uri))
            for session in self._sessions:
                if session.peer is not None:
                    self._notify(session, changed)
            await asyncio.sleep(MIN_INTERVAL_S)

    def _notify(self, session: Session, changed: set[str]) -> None:
        self._missed.setdefault(session, set()).update(changed)
        if session not in self._notifying:
            self._notifying[session] = asyncio.create_task(self._notify_one(session, session.peer))

    async def _notify_one(self, session: Session, peer: Any) -> None:
        """Notify a client until it has missed nothing. What it is sent after the end of its session is dropped."""
        try:
            while changed := self._missed.pop(session, None):
                await peer.send_notification(ResourceListChangedNotification())
                for uri in sorted(changed & session.subscriptions):
                    await peer.send_resource_updated(uri)
        finally:
            # Here, and not when the task is found done: what changes in between would be missed.
            self._missed.pop(session, None)
            del self._notifying[session]
