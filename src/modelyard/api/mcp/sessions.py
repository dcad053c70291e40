"""The sessions of MCP clients: whose they are, and which of them end to make room for another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

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
        self._opening = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._sessions.values()))

    def find(self, id_: str | None, owner: bytes | None) -> Session | None:
        """Return the session ``id_``; None: there is none, or it is another owner's."""
        session = self._sessions.get(id_ or "")
        return None if session is None or session.owner != owner else session

    def reserve(self) -> tuple[bool, Session | None]:
        """Take a place for a session that is about to be opened.

        Returns:
            Whether there is one, and the session that must be closed for it: the one that was idle for longest, of the
            owner with most sessions.
        """
        if len(self._sessions) + self._opening < MAX_SESSIONS:
            self._opening += 1
            return True, None
        counts = Counter(session.owner for session in self._sessions.values() if not session.in_flight)
        if not counts:
            return False, None
        owned = Counter(session.owner for session in self._sessions.values())
        owner = max(counts, key=lambda each: owned[each])
        idle = [each for each in self._sessions.values() if each.owner == owner and not each.in_flight]
        victim = min(idle, key=lambda each: each.used_at)
        del self._sessions[victim.id]
        self._opening += 1
        return True, victim

    def release(self) -> None:
        """Give back a place that was reserved."""
        self._opening -= 1

    def add(self, session: Session) -> None:
        """Add a session that was opened."""
        self._sessions[session.id] = session

    def remove(self, session: Session) -> None:
        """Remove a session that has ended. Idempotent."""
        self._sessions.pop(session.id, None)

    def take_expired(self, now: float) -> list[Session]:
        """Remove and return the sessions that were idle for too long."""
        expired = [each for each in self if not each.in_flight and now - each.used_at >= MAX_IDLE_S]
        for session in expired:
            self.remove(session)
        return expired
