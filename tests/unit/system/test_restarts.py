"""What follows when a server has ended, for each way to end."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest

from modelyard.system.restarts import (
    ENDED_AT_ONCE,
    FAILED,
    MAX_DEATHS,
    RETRY_DELAY_S,
    WINDOW_S,
    End,
    Service,
    StartAgain,
    after_end,
    mark_serving,
)

SERVING = mark_serving(Service())
KILLED = -signal.SIGKILL


def deaths(service: Service, *times_s: float, status: int = KILLED, serves: bool = True) -> list[StartAgain | End]:
    """What follows each of several deaths; between them, the server gets as far as serving or does not."""
    decisions = []
    for now_s in times_s:
        service, decision = after_end(mark_serving(service) if serves else service, status, now_s)
        decisions.append(decision)
    return decisions


def test_a_server_that_dies_of_a_signal_is_started_again_at_once() -> None:
    _, decision = after_end(SERVING, -signal.SIGSEGV, 7.0)
    assert decision == StartAgain(0.0, "The server died of SIGSEGV (segmentation fault); starting it again")


def test_a_signal_without_a_name_is_named_by_its_number() -> None:
    _, decision = after_end(SERVING, -40, 7.0)
    assert isinstance(decision, StartAgain)
    assert "died of signal 40" in decision.message


def test_a_server_that_dies_while_it_loads_for_the_first_time_is_started_again() -> None:
    assert isinstance(after_end(Service(), -signal.SIGABRT, 7.0)[1], StartAgain)


def test_an_error_before_it_served_ends_with_its_status_and_nothing_to_add() -> None:
    assert after_end(Service(), 2, 7.0)[1] == End(2)


def test_an_error_after_it_served_starts_it_again() -> None:
    _, decision = after_end(SERVING, 1, 7.0)
    assert decision == StartAgain(0.0, "The server ended with exit status 1; starting it again")


def test_an_error_before_it_served_again_is_a_death_as_well() -> None:
    service, _ = after_end(SERVING, KILLED, 7.0)
    assert isinstance(after_end(service, 2, 8.0)[1], StartAgain)


@pytest.mark.parametrize("service", [Service(), SERVING, replace(SERVING, is_stop_asked=True)])
@pytest.mark.parametrize("status", [0, *(-number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))])
def test_an_end_that_somebody_wanted_ends_the_supervisor_in_the_same_way(service: Service, status: int) -> None:
    assert after_end(service, status, 7.0)[1] == End(status)


def test_answers_that_a_second_signal_has_ended_are_no_fault() -> None:
    assert after_end(replace(SERVING, is_stop_asked=True), ENDED_AT_ONCE, 7.0)[1] == End(ENDED_AT_ONCE)


def test_a_death_while_it_was_stopping_ends_with_its_status_and_says_so() -> None:
    _, decision = after_end(replace(SERVING, is_stop_asked=True), -signal.SIGSEGV, 7.0)
    said = "The server died of SIGSEGV (segmentation fault) while it was stopping."
    assert decision == End(-signal.SIGSEGV, said)


def test_later_deaths_within_a_minute_are_answered_after_a_delay() -> None:
    first, second, third = deaths(SERVING, 0.0, 10.0, 10.0 + WINDOW_S)
    assert [decision.delay_s for decision in (first, second, third) if isinstance(decision, StartAgain)] == [
        *(0.0, RETRY_DELAY_S, 0.0)
    ]


def test_five_deaths_within_a_minute_end_it_with_the_reason() -> None:
    *others, last = deaths(SERVING, 0.0, 1.0, 2.0, 3.0, WINDOW_S - 0.1)
    assert all(isinstance(decision, StartAgain) for decision in others)
    assert isinstance(last, End)
    assert last.status == FAILED
    assert last.message is not None
    assert last.message.startswith(
        "The server died 5 times within a minute; the last time it died of SIGKILL (killed)."
    )
    assert "Memory may have run out" in last.message


def test_what_to_do_depends_on_the_last_death() -> None:
    last = deaths(SERVING, *range(MAX_DEATHS), status=-signal.SIGABRT)[-1]
    assert isinstance(last, End)
    assert last.message is not None
    assert "modelyard doctor" in last.message
    assert "Memory" not in last.message


def test_deaths_that_are_more_than_a_minute_apart_never_end_it() -> None:
    times_s = [number * WINDOW_S for number in range(20)]
    assert all(isinstance(decision, StartAgain) for decision in deaths(SERVING, *times_s))


def test_a_server_that_never_gets_as_far_as_serving_is_not_started_for_ever() -> None:
    times_s = [number * WINDOW_S for number in range(MAX_DEATHS)]
    *others, last = deaths(Service(), *times_s, serves=False)
    assert all(isinstance(decision, StartAgain) for decision in others)
    assert isinstance(last, End)
    assert last.message is not None
    assert "died 5 times before it could serve" in last.message
