"""Answers of several requests: between two of them their model stays in use."""

from __future__ import annotations

import pytest

from modelyard.errors import ModelUnloaded, QueueFull, ShuttingDown
from modelyard.yard.residency.effects import Complete, Grant, Remove, StartLoad
from modelyard.yard.residency.events import (
    CloseAsked,
    EngineFreed,
    EngineLoaded,
    HoldReleased,
    ModelRetired,
    RequestArrived,
    RequestEnded,
    UnloadAsked,
)
from modelyard.yard.residency.waiting import UnloadMode
from support.simulation.script import Script, frees, refusals

RESIDENCY_S = 10.0
"""How long a model stays whose load took no time."""


def held(*names: str, **traits: object) -> Script:
    """A machine with room for one model, the first of which request 1 has left a hold on."""
    script = Script(*names, **traits)
    script.load(names[0], 1)
    script(RequestEnded(names[0], 1, leaves_hold=True))
    return script


def test_a_model_that_is_held_does_not_make_room_before_its_time_as_one_that_is_busy():
    script = held("a", "b")
    assert script(RequestArrived("b", 2)) == []
    assert script(RequestArrived("a", 3, continues=1)) == [Grant("a", 3)]
    script(RequestEnded("a", 3, leaves_hold=True))
    assert frees(script.wait(RESIDENCY_S)) == [("a", True)]


def test_it_makes_room_at_once_when_its_time_is_over_and_the_answer_goes_on_later():
    script = held("a", "b")
    script.wait(RESIDENCY_S)
    assert frees(script(RequestArrived("b", 2))) == [("a", True)]
    assert script(EngineFreed("a")) == [StartLoad("b")]
    script(EngineLoaded("b"))
    assert script(RequestArrived("a", 3, continues=1)) == []
    script(RequestEnded("b", 2))
    script.wait(RESIDENCY_S)
    assert script(EngineFreed("b")) == [StartLoad("a")]
    assert script(EngineLoaded("a")) == [Grant("a", 3)]


def test_it_is_not_unloaded_for_being_idle_until_the_hold_is_released():
    script = held("a", a={"idle_unload_s": 5.0})
    assert script.wait(100.0) == []
    script(HoldReleased("a", 1))
    assert frees(script.wait(4.9)) == []
    assert frees(script.wait(0.2)) == [("a", False)]


def test_the_next_request_goes_before_those_that_have_not_begun():
    script = held("a", "b")
    script.wait(RESIDENCY_S)
    script(RequestArrived("b", 2))
    script(EngineFreed("a"))
    script(RequestArrived("a", 3))
    script(RequestArrived("a", 4, continues=1))
    assert [waiter.request for waiter in script.state.models["a"].queue] == [4, 3]


def test_those_that_have_begun_keep_their_order_and_later_ones_do_not_pass_them():
    script = held("a", "b")
    script(RequestArrived("a", 2))
    script(RequestEnded("a", 2, leaves_hold=True))
    script.wait(RESIDENCY_S)
    script(RequestArrived("b", 3))
    script(EngineFreed("a"))
    for event in (
        RequestArrived("a", 4, continues=1),
        RequestArrived("a", 5, continues=2),
        RequestArrived("a", 6, priority=9),
    ):
        script(event)
    assert [waiter.request for waiter in script.state.models["a"].queue] == [4, 5, 6]


def test_a_hold_takes_a_place_which_its_next_request_has():
    script = held("a", max_requests=2)
    assert script(RequestArrived("a", 2)) == [Grant("a", 2)]
    assert refusals(script(RequestArrived("a", 3))) == [(3, QueueFull)]
    assert script(RequestArrived("a", 4, continues=1)) == [Grant("a", 4)]


@pytest.mark.parametrize("mode", [UnloadMode.DRAIN, UnloadMode.PARK])
def test_an_unload_that_waits_also_waits_for_answers_that_go_on(mode: UnloadMode):
    script = held("a")
    assert script(UnloadAsked("a", 2, mode)) == []
    assert script(RequestArrived("a", 3, continues=1)) == [Grant("a", 3)]
    script(RequestEnded("a", 3, leaves_hold=True))
    assert frees(script(HoldReleased("a", 3))) == [("a", False)]


def test_an_unload_by_force_ends_them():
    script = held("a")
    script(UnloadAsked("a", 2, UnloadMode.FORCE))
    assert refusals(script(RequestArrived("a", 3, continues=1))) == [(3, ModelUnloaded)]
    assert script(EngineFreed("a")) == [Complete("a", 2)]


def test_after_an_unload_by_force_they_do_not_go_on():
    script = held("a")
    script(UnloadAsked("a", 2, UnloadMode.FORCE))
    script(EngineFreed("a"))
    assert refusals(script(RequestArrived("a", 3, continues=1))) == [(3, ModelUnloaded)]


def test_after_a_suspending_unload_they_wait_for_others_to_load_the_model():
    script = held("a")
    script(UnloadAsked("a", 2, UnloadMode.SUSPEND))
    script(EngineFreed("a"))
    assert script(RequestArrived("a", 3, continues=1)) == []
    assert script(RequestArrived("a", 4)) == [StartLoad("a")]
    assert script(EngineLoaded("a")) == [Grant("a", 3), Grant("a", 4)]


def test_a_second_suspending_unload_does_not_let_them_load_the_model():
    script = held("a")
    script(UnloadAsked("a", 2, UnloadMode.SUSPEND))
    script(EngineFreed("a"))
    script(RequestArrived("a", 3, continues=1))
    assert script(UnloadAsked("a", 4, UnloadMode.SUSPEND)) == [Complete("a", 4)]


def test_an_unload_by_force_ends_one_that_waits_for_the_model_again():
    script = held("a")
    script(UnloadAsked("a", 2, UnloadMode.SUSPEND))
    script(EngineFreed("a"))
    script(RequestArrived("a", 3, continues=1))
    effects = script(UnloadAsked("a", 4, UnloadMode.FORCE))
    assert refusals(effects) == [(3, ModelUnloaded)]
    assert effects[0] == Complete("a", 4)


def test_a_retired_model_stays_until_the_answer_is_over():
    script = held("a")
    assert script(ModelRetired("a")) == []
    assert script(RequestArrived("a", 2, continues=1)) == [Grant("a", 2)]
    script(RequestEnded("a", 2, leaves_hold=True))
    assert frees(script(HoldReleased("a", 2))) == [("a", False)]
    assert script(EngineFreed("a")) == [Remove("a")]


def test_a_close_ends_holds():
    script = held("a")
    script(CloseAsked())
    assert refusals(script(RequestArrived("a", 2, continues=1))) == [(2, ShuttingDown)]
    script(EngineFreed("a"))
    assert script.state.models["a"].is_at_rest


def test_releasing_a_hold_that_is_gone_changes_nothing():
    script = held("a")
    script(RequestArrived("a", 2, continues=1))
    before = script.state
    assert script(HoldReleased("a", 1)) == []
    assert script.state.models == before.models
