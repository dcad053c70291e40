"""The line of a model: who stands where. Pure.

Requests stand in order of priority, those of one priority in order of arrival. Suspended requests stand before all of
them: they have begun. An unload that waits (to drain, or to park) is a barrier that later requests do not pass; one
that does not wait goes to the front.
"""

from __future__ import annotations

from modelyard.yard.residency.state import RequestId, Want, Wish

Line = tuple[Wish, ...]


def entered(line: Line, wish: Wish) -> Line:
    """The line with ``wish`` in its place."""
    if wish.want is Want.UNLOAD:
        return (*line, wish) if wish.mode.waits else (wish, *line)
    at = len(line)
    while at and line[at - 1].want in (Want.LEASE, Want.LOAD) and line[at - 1].priority < wish.priority:
        at -= 1
    return (*line[:at], wish, *line[at:])


def resumed(line: Line, wish: Wish) -> Line:
    """The line with a suspended request in its place: at the front, behind those suspended before it.

    And behind unloads that do not wait, which may have been asked for while it was being suspended.
    """
    at = 0
    while at < len(line) and (
        (line[at].want is Want.RESUME and line[at].priority >= wish.priority)
        or (line[at].want is Want.UNLOAD and not line[at].mode.waits)
    ):
        at += 1
    return (*line[:at], wish, *line[at:])


def cut(line: Line, request: RequestId) -> Line:
    """The line without ``request``."""
    return tuple(wish for wish in line if wish.request != request) if line else line
