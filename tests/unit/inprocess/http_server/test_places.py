"""Who gets a place, who gives way, and whose time is up."""

from __future__ import annotations

import pytest

from modelyard.inprocess.http_server.limits import (
    BODY_GRACE_S,
    MAX_ARRIVING_BYTES,
    MAX_BODY_PAUSE_S,
    MAX_HEAD_S,
    MAX_IDLE_S,
    MAX_LINGER_S,
    MIN_BODY_BYTES_PER_S,
    SPARE_CONNECTIONS,
)
from modelyard.inprocess.http_server.places import Loss, Phase, Place, Places, share_of


def filled(places: Places, phase: Phase, *addresses: str) -> list[Place]:
    """Connections of those addresses, all in one phase."""
    entered = []
    for address in addresses:
        place, victim = places.admit(address)
        assert place is not None
        assert victim is None
        assert not place.is_spare
        places.move(place, phase)
        entered.append(place)
    return entered


def test_the_oldest_without_a_complete_request_gives_way() -> None:
    places = Places(3, 3)
    busy, first, second = filled(places, Phase.HEAD, "a", "b", "c")
    places.move(busy, Phase.ANSWER)
    place, victim = places.admit("d")
    assert victim is first
    assert place is not None
    assert not place.is_spare
    assert places.admit("e")[1] is second
    assert len(places) == 3


def test_what_is_missed_least_gives_way_first() -> None:
    places = Places(4, 4)
    body, idle, head, closing = filled(places, Phase.BODY, "a", "a", "a", "a")
    for place, phase in ((idle, Phase.IDLE), (head, Phase.HEAD), (closing, Phase.CLOSING)):
        places.move(place, phase)
    # Newcomers are in a head, too, but younger: they are at work.
    gave_way = []
    for _ in range(4):
        place, victim = places.admit("b")
        assert place is not None
        places.move(place, Phase.ANSWER)
        gave_way.append(victim)
    assert gave_way == [closing, head, idle, body]


def test_an_address_makes_room_among_its_own() -> None:
    places = Places(10, 3)
    other = filled(places, Phase.HEAD, "other")[0]
    first, _, _ = filled(places, Phase.HEAD, "a", "a", "a")
    assert places.admit("a")[1] is first
    assert not other.is_left


def test_an_address_leaves_places_for_others_even_when_all_of_its_own_answer() -> None:
    places = Places(4, 3)
    filled(places, Phase.ANSWER, "a", "a", "a")
    more, victim = places.admit("a")
    assert more is not None
    assert more.is_spare
    assert victim is None
    assert not filled(places, Phase.ANSWER, "b")[0].is_spare


def test_what_answers_never_gives_way_and_spare_places_are_few() -> None:
    places = Places(2, 2)
    filled(places, Phase.ANSWER, "a", "b")
    spares = []
    for _ in range(SPARE_CONNECTIONS):
        place, victim = places.admit("c")
        assert place is not None
        assert place.is_spare
        assert victim is None
        spares.append(place)
    assert places.admit("c")[1] is spares[0]
    for place in spares[1:]:
        places.move(place, Phase.ANSWER)
    newest, _ = places.admit("c")
    assert newest is not None
    places.move(newest, Phase.ANSWER)
    for _ in range(2):
        place, _ = places.admit("c")
        if place is not None:
            places.move(place, Phase.ANSWER)
    assert places.admit("c") == (None, None)
    assert len(places) == 2


def test_a_place_is_left_once() -> None:
    places = Places(2, 1)
    (place,) = filled(places, Phase.IDLE, "a")
    places.leave(place)
    places.leave(place)
    places.move(place, Phase.ANSWER)
    assert len(places) == 0
    assert not places.has_share("a")
    assert [places.count(phase) for phase in Phase] == [0] * len(Phase)


def test_a_proxys_connection_counts_for_the_client_that_uses_it() -> None:
    places = Places(10, 2)
    one, two, three = (places.admit(None)[0] for _ in range(3))
    assert one is not None
    assert two is not None
    assert three is not None
    assert places.count_for(one, "client")
    assert places.count_for(two, "client")
    assert not places.count_for(three, "client")
    assert places.count_for(three, "another")
    assert places.count_for(one, None)
    assert places.count_for(three, "client")


def test_bodies_that_arrive_are_bounded_together() -> None:
    places = Places(10, 10)
    first, second = filled(places, Phase.BODY, "a", "b")
    assert places.receive(first, MAX_ARRIVING_BYTES // 2) is None
    assert places.receive(second, MAX_ARRIVING_BYTES // 2) is None
    assert places.receive(second, 1) is first
    # What has arrived is the application's.
    places.move(second, Phase.ANSWER)
    (third,) = filled(places, Phase.BODY, "c")
    assert places.receive(third, MAX_ARRIVING_BYTES) is None


def test_what_came_with_a_head_is_a_part_of_its_body() -> None:
    places = Places(10, 10)
    (place,) = filled(places, Phase.HEAD, "a")
    assert places.receive(place, 100) is None
    places.move(place, Phase.BODY)
    assert place.received == 100
    assert places.receive(place, MAX_ARRIVING_BYTES - 99) is place


@pytest.mark.parametrize(
    ("phase", "limit_s", "loss"),
    [
        (Phase.CLOSING, MAX_LINGER_S, Loss.LINGERED),
        (Phase.HEAD, MAX_HEAD_S, Loss.HEAD_LATE),
        (Phase.IDLE, MAX_IDLE_S, Loss.IDLE),
        (Phase.BODY, MAX_BODY_PAUSE_S, Loss.BODY_LATE),
    ],
)
def test_each_phase_but_the_answer_has_a_deadline(phase: Phase, limit_s: float, loss: Loss) -> None:
    places = Places(10, 10)
    late, busy = filled(places, phase, "a", "a")
    places.move(busy, Phase.ANSWER)
    places.now_s += limit_s
    assert places.overdue() == []
    (young,) = filled(places, phase, "a")
    places.now_s += 0.5
    assert places.overdue() == [late]
    assert (places.lateness(late), places.lateness(young)) == (loss, None)
    assert not young.is_left


def test_a_slow_body_is_waited_for_and_a_drip_is_not() -> None:
    places = Places(10, 10)
    honest, drip = filled(places, Phase.BODY, "a", "b")
    for _ in range(40):
        places.now_s += 10
        for place, rate in ((honest, 2 * MIN_BODY_BYTES_PER_S), (drip, 1)):
            places.receive(place, 10 * rate)
            place.fed_s = places.now_s
        late = places.overdue()
        assert late == ([drip] if places.now_s > BODY_GRACE_S + 1 else [])


@pytest.mark.parametrize(
    ("host", "share"),
    [
        ("10.0.0.7", "10.0.0.7"),
        ("::ffff:10.0.0.7", "10.0.0.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::1"),
        ("", ""),
    ],
)
def test_a_share_is_of_an_address_or_of_a_network_of_one_site(host: str, share: str) -> None:
    assert share_of(host) == share


def test_a_connection_that_went_on_is_not_late_any_more() -> None:
    places = Places(10, 10)
    (place,) = filled(places, Phase.HEAD, "a")
    places.now_s += MAX_HEAD_S + 1
    assert places.lateness(place) is Loss.HEAD_LATE
    places.move(place, Phase.BODY)
    place.fed_s = places.now_s
    assert places.lateness(place) is None
    places.leave(place)
    places.now_s += MAX_BODY_PAUSE_S + 1
    assert places.lateness(place) is None
