"""The races that other servers shipped, by name: what is asked while something else is under way."""

from __future__ import annotations

import math

import pytest

from modelyard.errors import ModelBusy, ModelLoadFailed, ModelLoading, ModelUnloaded, ShuttingDown
from modelyard.yard.residency.effects import Complete, DiscardKept, Grant, Reject, Remove, StartLoad
from modelyard.yard.residency.events import (
    CloseAsked,
    EngineDied,
    EngineDying,
    EngineFreed,
    EngineLoaded,
    EngineLoadFailed,
    ModelAdded,
    ModelRetired,
    ReloadAsked,
    RequestArrived,
    RequestEnded,
    RequestSuspended,
    Sized,
    Tick,
    UnloadAsked,
)
from modelyard.yard.residency.failures import FIRST_BACKOFF_S, MAX_BACKOFF_S
from modelyard.yard.residency.policy import ModelPolicy
from modelyard.yard.residency.state import LoadState
from modelyard.yard.residency.waiting import UnloadMode
from support.simulation.script import Script, frees, refusals

SUSPEND, FORCE = UnloadMode.SUSPEND, UnloadMode.FORCE


# Loads that fail, engines that die


def test_a_failed_load_is_heard_by_all_who_waited_and_by_nobody_else():
    script = Script("a", "b", fit=2)
    script.load("b", 1)
    script(RequestArrived("a", 2))
    script(RequestArrived("a", 3))
    script(UnloadAsked("a", 4))
    effects = script(EngineLoadFailed("a", "bad magic"))
    assert refusals(effects) == [(2, ModelLoadFailed), (3, ModelLoadFailed)]
    assert Complete("a", 4) in effects
    assert script.load_state("b") is LoadState.LOADED
    assert script(RequestArrived("b", 5)) == [Grant("b", 5)]


def test_an_engine_that_dies_is_restarted_by_the_next_request():
    script = Script("a")
    script.load("a", 1)
    script(RequestEnded("a", 1))
    script(EngineDied("a", "segfault"))
    assert (script.load_state("a"), script.model("a").failure) == (LoadState.FAILED, "segfault")
    script.load("a", 2)


def test_an_engine_that_dies_with_an_unload_waiting_has_done_what_it_wanted():
    script = Script("a")
    script.load("a", 1)
    script(UnloadAsked("a", 2))
    script(RequestArrived("a", 3))
    script(RequestEnded("a", 1))
    assert script(EngineDied("a", "segfault")) == [Complete("a", 2), StartLoad("a")]


def test_a_dying_engine_serves_nobody_from_its_first_failure_and_holds_its_memory_until_it_is_dead():
    script = Script("a", "b")
    script.load("a", 1)
    assert script(EngineDying("a", "segfault")) == []
    assert (script.load_state("a"), script.model("a").failure) == (LoadState.FREEING, "segfault")
    assert script(RequestEnded("a", 1)) == []
    assert script(RequestArrived("a", 2)) == []
    assert script(RequestArrived("b", 3)) == []
    assert script.state.used_bytes == 100
    # It waits for the next load, as everybody who came after the failure.
    assert script(EngineDied("a", "segfault")) == [StartLoad("a")]
    assert script.model("a").failure is None


def test_the_memory_of_a_dying_engine_is_waited_for_and_no_idle_model_goes_in_its_place():
    script = Script("a", "b", "c", fit=2)
    script.idle("b")
    script.load("a", 1)
    script(EngineDying("a", "segfault"))
    assert script(RequestArrived("c", 2)) == []
    script(RequestEnded("a", 1))
    assert script(EngineDied("a", "segfault")) == [StartLoad("c")]
    assert script.load_state("b") is LoadState.LOADED


def test_a_drain_of_a_dying_engine_is_done_when_it_is_dead_and_nothing_is_freed_twice():
    script = Script("a")
    script.load("a", 1)
    script(UnloadAsked("a", 2))
    script(EngineDying("a", "segfault"))
    assert script(RequestEnded("a", 1)) == []
    script(UnloadAsked("a", 3, FORCE))
    assert script(EngineDied("a", "segfault")) == [Complete("a", 3), Complete("a", 2)]
    assert script.load_state("a") is LoadState.UNLOADED


def test_an_engine_that_dies_while_it_is_stopped_says_so_at_once():
    script = Script("a")
    script.load("a", 1)
    assert frees(script(UnloadAsked("a", 2, FORCE))) == [("a", False)]
    assert script.model("a").failure is None
    script(EngineDying("a", "segfault"))
    assert script.model("a").failure == "segfault"
    script(RequestEnded("a", 1))
    assert script(EngineDied("a", "segfault")) == [Complete("a", 2)]


def test_a_failure_of_an_earlier_load_is_not_that_of_a_model_that_is_freed():
    script = Script("a")
    script(RequestArrived("a", 1))
    script(EngineLoadFailed("a", "bad magic"))
    script.wait(FIRST_BACKOFF_S)
    script(RequestArrived("a", 2))
    script(Sized("a", script.footprints["a"]))
    assert script.load_state("a") is LoadState.LOADING
    script(CloseAsked())
    assert (script.load_state("a"), script.model("a").failure) == (LoadState.FREEING, None)


def test_an_engine_that_is_dying_before_it_served_is_started_again_when_it_is_dead():
    script = Script("a")
    script(RequestArrived("a", 1))
    assert script(EngineDying("a", "segfault")) == []
    assert script.load_state("a") is LoadState.LOADING
    assert script(EngineDied("a", "segfault")) == [StartLoad("a")]


def test_closing_waits_for_a_dying_engine_and_does_not_free_it_again():
    script = Script("a")
    script.load("a", 1)
    script(EngineDying("a", "segfault"))
    script(RequestArrived("a", 2))
    effects = script(CloseAsked())
    assert (refusals(effects), frees(effects)) == ([(2, ShuttingDown)], [])
    script(RequestEnded("a", 1))
    assert script(EngineDied("a", "segfault")) == []
    assert script.state.used_bytes == 0


def test_a_load_that_hangs_keeps_nobody_for_longer_than_the_longest_wait():
    script = Script("a")
    script(RequestArrived("a", 1))
    script(UnloadAsked("a", 2))
    assert refusals(script.wait(101.0)) == [(1, ModelLoading), (2, ModelBusy)]


def test_an_engine_that_served_for_long_has_its_next_failure_counted_as_the_first():
    script = Script("a")
    script(RequestArrived("a", 1))
    script(EngineLoadFailed("a", "bad"))
    script.wait(FIRST_BACKOFF_S)
    script(RequestArrived("a", 2))
    script(Sized("a", script.footprints["a"]))
    script(EngineLoaded("a"))
    script.wait(MAX_BACKOFF_S)
    script(RequestEnded("a", 2))
    script(UnloadAsked("a", 3))
    script(EngineFreed("a"))
    script(RequestArrived("a", 4))
    (refused,) = script(EngineLoadFailed("a", "bad"))
    assert refused.error.retry_after_s == math.ceil(FIRST_BACKOFF_S)


def test_the_failure_of_a_load_lets_another_have_its_memory_and_touches_none_that_serves():
    script = Script("a", "b", "c", fit=2)
    script.load("a", 1)
    script(RequestArrived("b", 2))
    assert script(RequestArrived("c", 3)) == []
    effects = script(EngineLoadFailed("b", "bad"))
    assert refusals(effects) == [(2, ModelLoadFailed)]
    assert effects[-1] == StartLoad("c")
    assert script.model("a").leases == {1: 0}


# Unload and reload


def test_an_unload_waits_for_the_last_lease_and_who_comes_behind_it_reloads_the_model():
    script = Script("a")
    script.load("a", 1)
    assert script(UnloadAsked("a", 2)) == []
    assert script(RequestArrived("a", 3)) == []
    assert frees(script(RequestEnded("a", 1))) == [("a", False)]
    assert script(EngineFreed("a")) == [Complete("a", 2), StartLoad("a")]
    assert script(EngineLoaded("a")) == [Grant("a", 3)]


def test_an_unload_during_a_load_waits_for_the_load_and_a_load_behind_an_unload_for_the_unload():
    script = Script("a")
    script(ReloadAsked("a", 1))
    script(UnloadAsked("a", 2))
    script(ReloadAsked("a", 3))
    effects = script(EngineLoaded("a"))
    assert (effects[0], frees(effects)) == (Complete("a", 1), [("a", False)])
    assert script(EngineFreed("a")) == [Complete("a", 2), StartLoad("a")]
    assert script(EngineLoaded("a")) == [Complete("a", 3)]


def test_a_reload_of_a_loaded_model_is_done_at_once_and_poisons_nothing():
    script = Script("a")
    script.load("a", 1)
    assert script(ReloadAsked("a", 2)) == [Complete("a", 2)]
    assert script(RequestArrived("a", 3)) == [Grant("a", 3)]


@pytest.mark.parametrize(
    "event", [ReloadAsked("zombie", 1), UnloadAsked("zombie", 1), RequestArrived("zombie", 1), EngineFreed("zombie")]
)
def test_what_concerns_a_model_that_is_not_known_has_no_effect(event):
    script = Script("a")
    assert script(event) == []
    assert list(script.state.models) == ["a"]


def test_an_unload_that_suspends_parks_its_requests_until_something_else_loads_the_model():
    script = Script("a")
    script.load("a", 1)
    script(RequestArrived("a", 2))
    assert frees(script(UnloadAsked("a", 3, SUSPEND))) == [("a", True)]
    script(RequestSuspended("a", 1, 10))
    script(RequestSuspended("a", 2, 0))
    assert script(EngineFreed("a", 5)) == [Complete("a", 3)]
    assert script.state.used_bytes == 15
    assert script.wait(50.0) == []
    assert script(UnloadAsked("a", 4)) == [Complete("a", 4)]
    assert script(ReloadAsked("a", 5)) == [DiscardKept("a"), StartLoad("a")]
    assert script(EngineLoaded("a")) == [Grant("a", 1), Grant("a", 2), Complete("a", 5)]


def test_an_unload_that_suspends_parks_also_what_was_suspended_before():
    script = Script("a", "b")
    script.load("a", 1)
    script(RequestArrived("b", 2))
    assert frees(script.wait(12.5)) == [("a", True)]
    assert script.suspended("a") == [StartLoad("b")]
    script(EngineLoaded("b"))
    assert script(UnloadAsked("a", 3, SUSPEND)) == [Complete("a", 3)]
    assert script(RequestEnded("b", 2)) == []
    assert script.wait(50.0) == []


def test_a_parked_request_is_refused_when_the_longest_wait_is_over():
    script = Script("a")
    script.load("a", 1)
    script(UnloadAsked("a", 2, SUSPEND))
    script(RequestSuspended("a", 1, 0))
    script(EngineFreed("a"))
    assert refusals(script.wait(101.0)) == [(1, ModelLoading)]


def test_an_unload_by_force_goes_before_those_who_wait_and_ends_what_is_suspended():
    script = Script("a")
    script.load("a", 1)
    script(UnloadAsked("a", 2, SUSPEND))
    script(RequestSuspended("a", 1, 0))
    script(EngineFreed("a"))
    effects = script(UnloadAsked("a", 3, FORCE))
    assert effects[0] == Complete("a", 3)
    assert refusals(effects) == [(1, ModelUnloaded)]
    script.load("a", 4)
    script(UnloadAsked("a", 5))
    assert frees(script(UnloadAsked("a", 6, FORCE))) == [("a", False)]


def test_a_request_that_ends_while_it_is_being_suspended_is_over():
    script = Script("a")
    script.load("a", 1)
    script(UnloadAsked("a", 2, SUSPEND))
    assert script(RequestEnded("a", 1)) == []
    assert script(RequestSuspended("a", 1, 10)) == []
    assert script(EngineFreed("a")) == [Complete("a", 2)]
    assert script.state.used_bytes == 0


def test_a_drain_is_a_barrier_that_no_priority_passes():
    script = Script("a")
    script.load("a", 1)
    script(UnloadAsked("a", 2))
    script(RequestArrived("a", 3, priority=100))
    script(RequestEnded("a", 1))
    assert script(EngineFreed("a")) == [Complete("a", 2), StartLoad("a")]


def test_an_unload_by_force_while_the_model_makes_room_ends_what_is_suspended_meanwhile():
    script = Script("a", "b")
    script.load("a", 1)
    script(RequestArrived("b", 2))
    assert frees(script.wait(12.5)) == [("a", True)]
    assert script(UnloadAsked("a", 3, FORCE)) == []
    script(RequestEnded("b", 2))
    effects = script.suspended("a")
    assert effects[0] == Complete("a", 3)
    assert refusals(effects) == [(1, ModelUnloaded)]


def test_a_drain_that_lasts_keeps_nobody_from_the_memory_of_an_idle_model():
    script = Script("a", "b", "c", fit=2)
    script.load("a", 1)
    script.idle("b", 2)
    script(UnloadAsked("a", 3))
    assert frees(script(RequestArrived("c", 4))) == [("b", False)]


def test_a_drain_that_lasts_makes_room_like_any_busy_model_and_ends_when_its_answers_do():
    script = Script("a", "b")
    script.load("a", 1)
    script(UnloadAsked("a", 2))
    # It stands behind the drain: older than the one that claims the memory, and yet not to be served first.
    script(RequestArrived("a", 3))
    script(RequestArrived("b", 4))
    assert frees(script.wait(12.5)) == [("a", True)]
    assert script.suspended("a") == [StartLoad("b")]
    script(EngineLoaded("b"))
    script(RequestEnded("b", 4))
    assert script(EngineFreed("b")) == [StartLoad("a")]
    assert script(EngineLoaded("a")) == [Grant("a", 1)]
    assert frees(script(RequestEnded("a", 1))) == [("a", False)]
    assert script(EngineFreed("a")) == [Complete("a", 2), StartLoad("a")]
    assert script(EngineLoaded("a")) == [Grant("a", 3)]


@pytest.mark.parametrize("event", [ReloadAsked("a", 9), UnloadAsked("a", 9), RequestArrived("a", 9)])
def test_what_concerns_a_model_that_was_retired_and_is_forgotten_has_no_effect(event):
    script = Script("a", "b")
    assert script(ModelRetired("a")) == [Remove("a")]
    assert script(event) == []
    assert list(script.state.models) == ["b"]


@pytest.mark.parametrize("request_id", [1, 777])
def test_an_end_that_is_not_known_changes_nothing(request_id):
    script = Script("a", a={"idle_unload_s": 5.0})
    script.idle("a", 1)
    script.wait(4.0)
    before = script.state
    assert script(RequestEnded("a", request_id)) == []
    assert script.state == before._replace(event_at=4.0)


# Who does not wait


def test_who_does_not_wait_hears_at_once_that_the_model_loads_and_it_is_loaded_once():
    script = Script("a")
    effects = script(RequestArrived("a", 1, wait_s=0.0))
    assert [effect for effect in effects if isinstance(effect, StartLoad)] == [StartLoad("a")]
    assert refusals(effects) == [(1, ModelLoading)]
    assert refusals(script(RequestArrived("a", 2, wait_s=0.0))) == [(2, ModelLoading)]
    # The outcome has no reader: it is the load for a client that tries again.
    assert script(EngineLoaded("a")) == [Complete("a", 1)]
    assert script(RequestArrived("a", 3, wait_s=0.0)) == [Grant("a", 3)]


def test_a_refusal_says_whether_the_model_is_loaded_and_about_to_be_unloaded():
    script = Script("a", "b")
    script.load("a", 1)
    (reject,) = [effect for effect in script(RequestArrived("b", 2, wait_s=0.0)) if isinstance(effect, Reject)]
    assert "'b' is not loaded. Try again" in str(reject.error)
    script(UnloadAsked("a", 3))
    (reject,) = [effect for effect in script(RequestArrived("a", 4, wait_s=0.0)) if isinstance(effect, Reject)]
    assert "'a' takes no further requests until it was unloaded and loaded again. Try again" in str(reject.error)


def test_who_does_not_wait_still_makes_room_for_the_next_try():
    script = Script("a", "b")
    script.load("a", 1)
    assert refusals(script(RequestArrived("b", 2, wait_s=0.0))) == [(2, ModelLoading)]
    assert frees(script.wait(13.0)) == [("a", True)]
    script(RequestSuspended("a", 1, 0))
    assert StartLoad("b") in script(EngineFreed("a"))


def test_who_does_not_wait_has_the_model_loaded_also_where_requests_are_parked():
    script = Script("a", "b")
    script.load("a", 1)
    script(UnloadAsked("a", 2, SUSPEND))
    script.suspended("a")
    script.load("b", 3)
    assert refusals(script(RequestArrived("a", 4, wait_s=0.0))) == [(4, ModelLoading)]
    assert frees(script.wait(12.5)) == [("b", True)]
    assert script.suspended("b") == [StartLoad("a")]


def test_who_does_not_wait_finds_the_model_there_though_it_wants_it_gone_afterwards():
    script = Script("a")
    script(RequestArrived("a", 1, wait_s=0.0, keep_alive_s=0.0))
    assert script(EngineLoaded("a")) == [Complete("a", 1)]
    assert script(RequestArrived("a", 2, wait_s=0.0, keep_alive_s=0.0)) == [Grant("a", 2)]
    assert frees(script(RequestEnded("a", 2))) == [("a", False)]


# Priorities


def test_the_model_of_the_most_urgent_request_is_loaded_first():
    script = Script("a", "b", "c")
    script.load("a", 1)
    script(RequestArrived("b", 2))
    script(RequestArrived("c", 3, priority=5))
    script(RequestEnded("a", 1))
    assert script(EngineFreed("a")) == [StartLoad("c")]


def test_a_less_urgent_request_does_not_drive_out_a_more_urgent_one_before_its_patience_is_over():
    script = Script("a", "b")
    script(RequestArrived("a", 1, priority=5))
    script(EngineLoaded("a"))
    script(RequestArrived("b", 2))
    assert script.wait(29.0) == []
    assert frees(script.wait(4.0)) == [("a", True)]
    script(RequestSuspended("a", 1, 0))
    script(EngineFreed("a"))
    script(EngineLoaded("b"))
    # And the urgent one does not drive it out in its turn before that has had its time.
    assert script.wait(9.9) == []
    assert frees(script.wait(3.0)) == [("b", True)]


def test_parked_requests_do_not_make_their_model_urgent():
    script = Script("a", "b", "c")
    script(RequestArrived("a", 1, priority=5))
    script(EngineLoaded("a"))
    script(UnloadAsked("a", 2, SUSPEND))
    script.suspended("a")
    script.load("c", 3)
    script(RequestArrived("a", 4))
    script(RequestArrived("b", 5, priority=1))
    script(RequestEnded("c", 3))
    assert script(EngineFreed("c")) == [StartLoad("b")]


def test_urgent_requests_keep_their_model_and_the_others_patience_is_bounded():
    script = Script("a", "b")
    script(RequestArrived("a", 1, priority=5))
    script(EngineLoaded("a"))
    script(RequestArrived("b", 2))
    for number in range(10, 30):
        # One more urgent request each second: no swap before the patience of the other is over.
        assert script(RequestArrived("a", number, priority=5))[-1] == Grant("a", number) or script.state.now >= 30.0
        if number > 10:
            script(RequestEnded("a", number - 1))
        assert frees(script.wait(1.0)) == []
    assert frees(script.wait(12.5)) == [("a", True)]


def test_an_urgent_request_for_a_model_that_yields_keeps_it():
    script = Script("a", "b")
    script.load("a", 1)
    script(RequestArrived("b", 2))
    script.wait(11.0)
    assert script(RequestArrived("a", 3)) == []
    assert script(RequestArrived("a", 4, priority=5)) == [Grant("a", 4), Grant("a", 3)]
    assert script.wait(5.0) == []


# Idleness


@pytest.mark.parametrize(("keep_alive_s", "unloaded_after"), [(0.0, 0.0), (7.0, 7.0), (math.inf, None), (None, 5.0)])
def test_a_request_says_how_long_its_model_stays(keep_alive_s, unloaded_after):
    script = Script("a", a={"idle_unload_s": 5.0})
    script(RequestArrived("a", 1, keep_alive_s=keep_alive_s))
    script(EngineLoaded("a"))
    began = script.state.now
    effects = script(RequestEnded("a", 1))
    while not frees(effects) and script.state.due_at < math.inf:
        effects = script(Tick(script.state.due_at))
    assert (script.state.now - began if frees(effects) else None) == unloaded_after


# The end


def test_closing_refuses_all_who_wait_and_frees_everything_that_is_there_or_coming():
    script = Script("a", "b", "c", "d", fit=4)
    script.load("a", 1)
    script(RequestArrived("b", 2))
    script.idle("c", 3)
    script(UnloadAsked("c", 4))
    script(ModelAdded("e", ModelPolicy("e", 8)))
    script(ReloadAsked("e", 5))
    effects = script(CloseAsked())
    assert sorted(refusals(effects)) == [(2, ShuttingDown), (4, ShuttingDown), (5, ShuttingDown)]
    assert sorted(frees(effects)) == [("a", False), ("b", False), ("e", False)]
    for event in (RequestArrived("a", 6), ReloadAsked("a", 7), UnloadAsked("d", 8)):
        assert [error for _, error in refusals(script(event))] == [ShuttingDown]
    assert script(EngineLoaded("b")) == []
    assert script(RequestEnded("a", 1)) == []
    for name in "abce":
        assert script(EngineFreed(name)) == []
    assert script.state.used_bytes == 0


def test_closing_refuses_at_once_what_is_suspended_while_it_closes():
    script = Script("a")
    script.load("a", 1)
    assert frees(script(UnloadAsked("a", 2, SUSPEND))) == [("a", True)]
    assert refusals(script(CloseAsked())) == [(2, ShuttingDown)]
    assert refusals(script(RequestSuspended("a", 1, 0))) == [(1, ShuttingDown)]
    assert script(EngineFreed("a")) == []
    assert script.state.active == frozenset()


@pytest.mark.parametrize("outcome", [EngineLoadFailed("a", "bad"), EngineDied("a", "bad"), EngineFreed("a")])
def test_closing_during_a_load_takes_whatever_comes_of_it(outcome):
    script = Script("a")
    script(RequestArrived("a", 1))
    effects = script(CloseAsked())
    assert refusals(effects) == [(1, ShuttingDown)]
    assert frees(effects) == [("a", False)]
    assert script(outcome) == []
    assert script.state.used_bytes == 0
    assert script.state.due_at == math.inf


def test_closing_refuses_those_who_are_parked_and_loads_nothing_any_more():
    script = Script("a", "b")
    script.load("a", 1)
    script(UnloadAsked("a", 2, SUSPEND))
    script.suspended("a")
    script.idle("b", 3)
    assert script(CloseAsked())[0].request == 1
    assert script(EngineFreed("b")) == []
    assert refusals(script(RequestArrived("a", 4))) == [(4, ShuttingDown)]
