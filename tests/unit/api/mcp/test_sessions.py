"""Which sessions of MCP clients there are, and which end to make room."""

from __future__ import annotations

import pytest

from modelyard.api.mcp.sessions import MAX_IDLE_S, MAX_SESSIONS, Session, Sessions
from modelyard.errors import TooManyConnections


def filled(owners: list[bytes | None]) -> Sessions:
    """As many sessions as there may be: owned by ``owners`` in turn, each used a second after the one before."""
    sessions = Sessions()
    for number in range(MAX_SESSIONS):
        added(sessions, Session(str(number), owners[number % len(owners)], float(number)))
    return sessions


def added(sessions: Sessions, session: Session) -> None:
    assert sessions.reserve() is None
    sessions.add(session)


def test_a_session_is_found_by_its_owner_alone() -> None:
    sessions = Sessions()
    added(sessions, Session("a", b"key", 0.0))
    assert sessions.find("a", b"key") is not None
    assert sessions.find("a", b"other") is None
    assert sessions.find("a", None) is None
    assert sessions.find("b", b"key") is None
    assert sessions.find(None, b"key") is None


def test_the_session_that_was_idle_for_longest_makes_room() -> None:
    sessions = filled([None])
    victim = sessions.reserve()
    assert victim is not None
    assert victim.id == "0"
    assert sessions.find("0", None) is None
    assert len(sessions) == MAX_SESSIONS - 1


def test_an_owner_of_many_sessions_makes_room_for_others() -> None:
    sessions = filled([b"small", b"large", b"large"])
    for _ in range(100):
        victim = sessions.reserve()
        assert victim is not None
        assert victim.owner == b"large"


def test_sessions_in_use_are_kept() -> None:
    sessions = filled([None])
    for session in sessions:
        session.in_flight = 1
    with pytest.raises(TooManyConnections, match="all of them are in use"):
        sessions.reserve()
    kept = sessions.find("7", None)
    assert kept is not None
    kept.in_flight = 0
    assert sessions.reserve() is kept


def test_places_that_were_reserved_count() -> None:
    sessions = Sessions()
    assert all(sessions.reserve() is None for _ in range(MAX_SESSIONS))
    with pytest.raises(TooManyConnections):
        sessions.reserve()
    sessions.release()
    assert sessions.reserve() is None


def test_idle_sessions_expire() -> None:
    sessions = Sessions()
    idle, busy, used = Session("idle", None, 0.0), Session("busy", None, 0.0, in_flight=1), Session("used", None, 1.0)
    for session in (idle, busy, used):
        added(sessions, session)
    assert sessions.take_expired(MAX_IDLE_S) == [idle]
    assert [session.id for session in sessions] == ["busy", "used"]
