"""Which sessions of MCP clients there are, and which end to make room."""

from __future__ import annotations

from modelyard.api.mcp.sessions import MAX_IDLE_S, MAX_SESSIONS, Session, Sessions


def filled(owners: list[bytes | None]) -> Sessions:
    """As many sessions as there may be: owned by ``owners`` in turn, each used a second after the one before."""
    sessions = Sessions()
    for number in range(MAX_SESSIONS):
        has_place, victim = sessions.reserve()
        assert has_place
        assert victim is None
        sessions.release()
        sessions.add(Session(str(number), owners[number % len(owners)], float(number)))
    return sessions


def test_a_session_is_found_by_its_owner_alone() -> None:
    sessions = Sessions()
    sessions.add(Session("a", b"key", 0.0))
    assert sessions.find("a", b"key") is not None
    assert sessions.find("a", b"other") is None
    assert sessions.find("a", None) is None
    assert sessions.find("b", b"key") is None
    assert sessions.find(None, b"key") is None


def test_the_session_that_was_idle_for_longest_makes_room() -> None:
    sessions = filled([None])
    has_place, victim = sessions.reserve()
    assert has_place
    assert victim is not None
    assert victim.id == "0"
    assert sessions.find("0", None) is None
    assert len(sessions) == MAX_SESSIONS - 1


def test_an_owner_of_many_sessions_makes_room_for_others() -> None:
    sessions = filled([b"small", b"large", b"large"])
    for _ in range(100):
        has_place, victim = sessions.reserve()
        assert has_place
        assert victim is not None
        assert victim.owner == b"large"


def test_sessions_in_use_are_kept() -> None:
    sessions = filled([None])
    for session in sessions:
        session.in_flight = 1
    assert sessions.reserve() == (False, None)
    kept = sessions.find("7", None)
    assert kept is not None
    kept.in_flight = 0
    assert sessions.reserve() == (True, kept)


def test_places_that_were_reserved_count() -> None:
    sessions = Sessions()
    assert all(sessions.reserve() == (True, None) for _ in range(MAX_SESSIONS))
    assert sessions.reserve() == (False, None)
    sessions.release()
    assert sessions.reserve() == (True, None)


def test_idle_sessions_expire() -> None:
    sessions = Sessions()
    idle, busy, used = Session("idle", None, 0.0), Session("busy", None, 0.0, in_flight=1), Session("used", None, 1.0)
    for session in (idle, busy, used):
        sessions.add(session)
    assert sessions.take_expired(MAX_IDLE_S) == [idle]
    assert [session.id for session in sessions] == ["busy", "used"]
