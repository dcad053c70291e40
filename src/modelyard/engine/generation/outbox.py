"""The events of an engine that are published together: each call of ``publish`` wakes readers."""

from __future__ import annotations

from collections.abc import Iterable

from modelyard.protocol.events import Event, Publish


class Outbox:
    """Collects the events of one engine until they are published. It belongs to the engine's thread."""

    def __init__(self, publish: Publish) -> None:
        self._publish = publish
        self._events: list[Event] = []

    def add(self, event: Event) -> None:
        """Add an event."""
        self._events.append(event)

    def extend(self, events: Iterable[Event]) -> None:
        """Add several events."""
        self._events.extend(events)

    def flush(self) -> None:
        """Publish what was added, in this order."""
        if self._events:
            self._publish(self._events)
            self._events = []
