"""Requests that were computed when an engine died: who is computed alone, who is blamed, and what is refused then."""

from __future__ import annotations

import math

from modelyard.errors import (
    EngineError,
    HarmfulRequest,
    QueueFull,
)
from modelyard.yard.residency.deaths import (
    MAX_DEATHS_SURVIVED,
    POISON_S,
)
from modelyard.yard.residency.effects import Grant, StartLoad
from modelyard.yard.residency.events import (
    EngineDied,
    EngineDying,
    EngineFreed,
    EngineLoaded,
    RequestArrived,
    RequestCleared,
    RequestEnded,
    RequestSuspended,
)
from modelyard.yard.residency.failures import MAX_BACKOFF_S
from support.simulation.deaths import blames, dies, dies_and_is_back, dying, serving
from support.simulation.script import frees, refusals

# Suspects and blame


def test_requests_that_were_computed_when_an_engine_died_are_computed_alone_and_no_others():
    script = serving(1, 2, 3)
    effects = dies_and_is_back(script, 1, 3)
    assert effects == [
        StartLoad("a"),
        Grant("a", 1, alone=True),
        Grant("a", 2),
        Grant("a", 3, alone=True),
    ]


def test_a_suspect_that_is_computed_when_the_next_engine_dies_is_blamed_and_all_others_go_on():
    script = serving(1, 2, 3)
    dies_and_is_back(script, 1, 2)
    effects = dies_and_is_back(script, 2)
    assert blames(effects) == [(2, HarmfulRequest)]
    assert effects[-2:] == [Grant("a", 1, alone=True), Grant("a", 3)]
    assert script.model("a").leases.keys() == {1, 3}


def test_beside_a_blamed_request_no_other_becomes_a_suspect():
    script = serving(1, 2)
    dies_and_is_back(script, 1)
    effects = dies_and_is_back(script, 1, 2)
    assert blames(effects) == [(1, HarmfulRequest)]
    assert effects[-1] == Grant("a", 2)


def test_several_suspects_that_are_computed_when_an_engine_dies_are_all_blamed():
    script = serving(1, 2)
    dies_and_is_back(script, 1, 2)
    assert blames(dying(script, 2, 1)) == [(1, HarmfulRequest), (2, HarmfulRequest)]
    assert script.model("a").leases == {}


def test_a_suspect_that_has_a_token_is_an_ordinary_request_again():
    script = serving(1)
    dies_and_is_back(script, 1)
    assert script(RequestCleared("a", 1)) == []
    assert blames(dies(script, 1)) == []
    # It is a suspect anew: it was computed when this engine died.
    assert script(EngineLoaded("a")) == [Grant("a", 1, alone=True)]


def test_a_suspect_stays_one_while_it_makes_room_and_comes_back():
    script = serving(1, names=("a", "b"))
    dies_and_is_back(script, 1)
    script(RequestArrived("b", 2))
    assert frees(script.wait(13.0)) == [("a", True)]
    assert script.suspended("a") == [StartLoad("b")]
    script(EngineLoaded("b"))
    script(RequestEnded("b", 2))
    script(EngineFreed("b"))
    assert script(EngineLoaded("a")) == [Grant("a", 1, alone=True)]


def test_a_request_that_is_unknown_or_over_is_neither_suspected_nor_cleared():
    script = serving(1)
    dies_and_is_back(script, 77)
    before = script.state
    assert script(RequestCleared("a", 77)) == []
    assert script.state == before
    assert script.model("a").suspects == frozenset()


def test_a_suspect_that_ends_is_forgotten():
    script = serving(1, 2)
    dies_and_is_back(script, 1)
    script(RequestEnded("a", 1))
    assert (script.model("a").suspects, script.model("a").deaths_survived) == (frozenset(), {2: 1})


def test_the_error_of_a_request_that_is_blamed_says_why_and_for_how_long_it_is_refused():
    script = serving(1)
    dies_and_is_back(script, 1)
    (blame,) = dying(script, 1)
    assert str(blame.error).startswith("This request has ended the engine of 'a' twice: segfault. It is refused for")
    assert "for the next 10 minutes;" in str(blame.error)
    script(RequestSuspended("a", 1, 0))
    script.wait(POISON_S - 30.0)
    (refused,) = script(RequestArrived("a", 2, content="content 1"))
    assert "for the next minute;" in str(refused.error)


def test_a_request_that_went_through_too_many_deaths_ends_though_it_was_never_computed_in_one():
    script = serving(1)
    for _ in range(MAX_DEATHS_SURVIVED - 1):
        # No row: each engine served for long.
        script.wait(MAX_BACKOFF_S)
        assert dies_and_is_back(script)[-1] == Grant("a", 1)
    script.wait(MAX_BACKOFF_S)
    dying(script)
    (refused,) = script(RequestSuspended("a", 1, 0))
    assert (refused.request, type(refused.error)) == (1, EngineError)
    assert "5 times" in str(refused.error)
    assert not script.model("a").queue


# Contents that are refused


def poisoned():
    """A model a that serves, and of which the content of request 1 is refused."""
    script = serving(1)
    dies_and_is_back(script, 1)
    assert blames(dies(script, 1)) == [(1, HarmfulRequest)]
    return script


def test_the_content_of_a_request_that_was_blamed_is_refused_for_a_while_and_no_other():
    script = poisoned()
    assert refusals(script(RequestArrived("a", 2, content="content 1"))) == [(2, HarmfulRequest)]
    assert script(RequestArrived("a", 3, content="content 3")) == [StartLoad("a")]
    assert script(RequestArrived("a", 4)) == []
    script.wait(POISON_S - 0.1)
    assert refusals(script(RequestArrived("a", 5, content="content 1"))) == [(5, HarmfulRequest)]
    script.wait(0.2)
    assert refusals(script(RequestArrived("a", 6, content="content 1"))) == []


def test_what_is_refused_is_forgotten_by_time_alone():
    script = poisoned()
    assert script.state.due_at == POISON_S
    script.wait(POISON_S + 0.1)
    assert script.state.poison == {}
    assert script.state.due_at == math.inf


def test_a_content_that_is_refused_is_refused_before_the_queue_is_looked_at():
    script = poisoned()
    for request in range(10, 18):
        script(RequestArrived("a", request))
    assert refusals(script(RequestArrived("a", 20))) == [(20, QueueFull)]
    assert refusals(script(RequestArrived("a", 21, content="content 1"))) == [(21, HarmfulRequest)]


def test_a_blamed_request_whose_content_is_not_known_refuses_nobody():
    script = serving(1)
    for _ in range(2):
        script(EngineDying("a", "segfault", ((1, ""),)))
        script(RequestSuspended("a", 1, 0))
        script(EngineDied("a", "segfault"))
        script(EngineLoaded("a"))
    assert script.state.poison == {}
    assert refusals(script(RequestArrived("a", 2))) == []
