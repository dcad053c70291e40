"""One request that arrives by two ways counts once."""

from __future__ import annotations

import pytest

from modelyard.system.two_ways import TwoWays


@pytest.mark.parametrize(
    ("arrivals", "acted"),
    [
        ("", 0),
        ("a", 1),
        ("ab", 1),
        ("ba", 1),
        ("aa", 2),
        ("abab", 2),
        ("aabb", 2),
        ("abb", 2),
        ("aab", 2),
        ("abbaab", 3),
    ],
)
def test_the_nth_arrival_of_each_way_is_the_nth_request(arrivals: str, acted: int) -> None:
    calls: list[None] = []
    ways = TwoWays(lambda: calls.append(None))
    for way in arrivals:
        ways.arrive(way)
    assert len(calls) == acted


def test_a_request_is_acted_on_when_it_first_arrives() -> None:
    order: list[str] = []
    ways = TwoWays(lambda: order.append("act"))
    for way in ("terminal", "supervisor"):
        ways.arrive(way)
        order.append(way)
    assert order == ["act", "terminal", "supervisor"]
