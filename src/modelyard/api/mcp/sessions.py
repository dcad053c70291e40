"""The sessions of MCP clients: whose they are, and which of them end to make room for another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from modelyard.errors import TooManyConnections

MAX_SESSIONS: Final = 512
"""Sessions at the same time. One takes about 45 KB: its tasks and streams."""

MAX_IDLE_S: Final = 1800.0
"""How long a session without a request is kept; its client then begins another one, as the protocol says."""

MAX_MESSAGE_BYTES: Final = 4 << 20
"""Bytes of one message. The SDK parses it on the event loop, a megabyte in a few milliseconds."""

MAX_SUBSCRIPTIONS: Final = 256
"""Resources that one session, or one stream of events, may subscribe to."""


@dataclass(eq=False, slots=True)
class Session:
    """A session.

    Attributes:
        id: as the client sends it.
        owner: the key that opened it; None: keys are not needed.
        used_at: when its last request ended, in monotonic seconds.
        in_flight: its requests that are being answered, among them its stream of events.
        peer: sends notifications to the client; None until it has said that it is initialized, or where its key may
            not read.
        subscriptions: the addresses of the resources that it wants to hear of.
    """

    id: str
    owner: bytes | None
    used_at: float
    in_flight: int = 0
    peer: Any = field(default=None, repr=False)
    subscriptions: set[str] = field(default_factory=set)


class Sessions:
    """All sessions of one application."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        # Places of sessions that are about to be opened.
        self._reserved = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._sessions.values()))

    def find(self, id_: str | None, owner: bytes | None) -> Session | None:
        """Return the session ``id_``; None: there is none, or it is another owner's."""
        session = self._sessions.get(id_ or "")
        return None if session is None or session.owner != owner else session

    def reserve(self) -> Session | None:
        """Take a place for a session that is about to be opened; ``add`` uses it, ``release`` gives it back.

        Returns:
            The session that was removed for it and must be closed: the one that was idle for longest, of the owner with
            most sessions. None: there was a place.

        Raises:
            TooManyConnections: all sessions are in use.
        """
        victim = None
        if len(self._sessions) + self._reserved >= MAX_SESSIONS:
            idle = [each for each in self if not each.in_flight]
            if not idle:
                raise TooManyConnections(f"{MAX_SESSIONS} MCP sessions are open, and all of them are in use.")
            owned = Counter(each.owner for each in self)
            victim = min(idle, key=lambda each: (-owned[each.owner], each.used_at))
            self.remove(victim)
        self._reserved += 1
        return victim

    def release(self) -> None:
        """Give back a place that was reserved."""
        self._reserved -= 1

    def add(self, session: Session) -> None:
        """Add a session that was opened, in a place that was reserved."""
        self._sessions[session.id] = session
        self._reserved -= 1

    def remove(self, session: Session) -> None:
        """Remove a session that has ended. Idempotent."""
        self._sessions.pop(session.id, None)

    def take_expired(self, now: float) -> list[Session]:
        """Remove and return the sessions that were idle for too long."""
        expired = [each for each in self if not each.in_flight and now - each.used_at >= MAX_IDLE_S]
        for session in expired:
            self.remove(session)
        return expired
