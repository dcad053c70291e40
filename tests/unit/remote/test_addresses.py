"""Which of several servers a request goes to."""

from __future__ import annotations

from collections import Counter

from modelyard.remote.addresses import (
    FIRST_BACKOFF_S,
    MAX_BACKOFF_S,
    MAX_BUSY_S,
    MORE_REQUESTS,
    Address,
    backoff_s,
    choose,
    retry_after_s,
)

NOW = 100.0


def addresses(*running: int) -> list[Address]:
    return [Address(f"http://{number}/v1", count) for number, count in enumerate(running)]


def test_the_least_busy_server_gets_a_request_of_no_conversation() -> None:
    assert choose(addresses(3, 1, 2), "", NOW) == Address("http://1/v1", 1)


def test_a_conversation_stays_with_its_server_while_others_come_and_go() -> None:
    some = addresses(0, 0, 0, 0)
    chosen = choose(some, "talk", NOW)
    assert chosen is not None
    others = [each for each in some if each is not chosen]
    for gone in others:
        gone.fail("gone", NOW)
        assert choose(some, "talk", NOW) is chosen
        gone.answer()
        assert choose(some, "talk", NOW) is chosen


def test_conversations_are_spread_over_the_servers() -> None:
    some = addresses(0, 0, 0, 0)
    counts = Counter(chosen.url for n in range(400) if (chosen := choose(some, f"talk {n}", NOW)) is not None)
    assert len(counts) == 4
    assert min(counts.values()) > 50


def test_a_conversation_leaves_a_server_that_has_clearly_more_to_do() -> None:
    some = addresses(0, 0)
    chosen = choose(some, "talk", NOW)
    assert chosen is not None
    chosen.running = MORE_REQUESTS
    assert choose(some, "talk", NOW) is chosen
    chosen.running += 1
    assert choose(some, "talk", NOW) is not chosen


def test_servers_that_do_not_answer_and_those_that_were_tried_get_nothing() -> None:
    some = addresses(0, 5, 9)
    some[0].fail("refused", NOW)
    assert choose(some, "", NOW) is some[1]
    assert choose(some, "", NOW, {some[1].url}) is some[2]
    assert choose(some, "", NOW, {some[1].url, some[2].url}) is None


def test_a_busy_server_comes_after_the_others_for_as_long_as_it_asks() -> None:
    some = addresses(0, 5)
    some[0].be_busy(10, NOW)
    assert choose(some, "", NOW + 9) is some[1]
    assert choose(some, "", NOW + 10) is some[0]
    # Alone it is asked all the same.
    assert choose(some[:1], "", NOW) is some[0]
    some[0].be_busy(1e9, NOW)
    assert some[0].busy_until == NOW + MAX_BUSY_S


def test_the_time_between_probes_doubles_up_to_a_bound() -> None:
    assert [backoff_s(n) for n in (1, 2, 3)] == [FIRST_BACKOFF_S, 2 * FIRST_BACKOFF_S, 4 * FIRST_BACKOFF_S]
    assert backoff_s(10_000) == MAX_BACKOFF_S


def test_clients_are_told_when_the_first_server_is_tried_again() -> None:
    some = addresses(0, 0)
    for _ in range(5):
        some[0].fail("refused", NOW)
    some[1].fail("refused", NOW)
    assert retry_after_s(some, NOW) == 1
    some[1].probe_at = NOW + 60
    assert retry_after_s(some, NOW) == 8
