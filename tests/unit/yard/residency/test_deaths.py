"""Engines that die: who goes on, and when a model is given up."""

from __future__ import annotations

import math

import pytest

from modelyard.errors import (
    ModelLoadFailed,
    ModelLoading,
    ModelUnloaded,
    ShuttingDown,
)
from modelyard.yard.residency.deaths import (
    MAX_DEATHS_IN_ROW,
    MAX_DEATHS_WHILE_LOADING,
)
from modelyard.yard.residency.effects import Complete, ComputeFootprint, Grant, Reject, StartLoad
from modelyard.yard.residency.events import (
    CloseAsked,
    EngineDied,
    EngineDying,
    EngineFreed,
    EngineLoaded,
    EngineLoadFailed,
    ReloadAsked,
    RequestArrived,
    RequestEnded,
    RequestSuspended,
    Sized,
    UnloadAsked,
    WeightsLost,
)
from modelyard.yard.residency.failures import FIRST_BACKOFF_S, MAX_BACKOFF_S
from modelyard.yard.residency.state import LoadState
from modelyard.yard.residency.waiting import UnloadMode
from support.simulation.deaths import dies, dies_and_is_back, dying, serving
from support.simulation.script import Script, frees, refusals

SUSPEND, FORCE, PARK = UnloadMode.SUSPEND, UnloadMode.FORCE, UnloadMode.PARK


# Who goes on


def test_what_an_engine_served_when_it_died_goes_on_with_the_next_engine_which_is_loaded_at_once():
    script = serving(1, 2)
    assert dying(script, 1) == []
    assert script(RequestSuspended("a", 1, 0)) == []
    assert script(RequestSuspended("a", 2, 0)) == []
    assert script(EngineDied("a", "segfault")) == [StartLoad("a")]
    assert script(EngineLoaded("a")) == [Grant("a", 1, alone=True), Grant("a", 2)]


def test_who_arrives_while_an_engine_dies_is_served_by_the_next_behind_those_that_it_had():
    script = serving(1)
    dying(script)
    assert script(RequestArrived("a", 2)) == []
    script(RequestSuspended("a", 1, 0))
    assert script(EngineDied("a", "segfault")) == [StartLoad("a")]
    assert script(EngineLoaded("a")) == [Grant("a", 1), Grant("a", 2)]


def test_the_memory_of_a_dying_engine_counts_until_it_is_dead():
    script = serving(1)
    dying(script, 1)
    script(RequestSuspended("a", 1, 0))
    assert script.state.used_bytes == 100
    script(UnloadAsked("a", 2, FORCE))
    script(EngineDied("a", "segfault"))
    assert script.state.used_bytes == 0


def test_a_client_that_leaves_at_a_death_keeps_nothing_of_itself():
    script = serving(1)
    dying(script, 1)
    script(RequestEnded("a", 1))
    script(EngineDied("a", "segfault"))
    assert (script.model("a").suspects, script.model("a").deaths_survived) == (frozenset(), {})
    assert script.state.due_at == math.inf


# Deaths in a row


def test_engines_that_die_are_started_again_at_once_until_five_died_in_a_row():
    script = serving(1)
    for deaths in range(1, MAX_DEATHS_IN_ROW):
        # Each with another request, so that none goes through all of them.
        script(RequestEnded("a", deaths))
        script(RequestArrived("a", deaths + 1))
        assert dies_and_is_back(script) == [StartLoad("a"), Grant("a", deaths + 1)]
    script(RequestArrived("a", 50))
    dying(script)
    for request in (MAX_DEATHS_IN_ROW, 50):
        assert script(RequestSuspended("a", request, 0)) == []
    script(RequestArrived("a", 51))
    script(UnloadAsked("a", 52))
    effects = script(EngineDied("a", "segfault"))
    assert sorted(refusals(effects)) == [(r, ModelLoadFailed) for r in (MAX_DEATHS_IN_ROW, 50, 51)]
    assert Complete("a", 52) in effects
    model = script.model("a")
    assert (model.restarts, model.deaths_in_row, model.last_death) == (MAX_DEATHS_IN_ROW, MAX_DEATHS_IN_ROW, "segfault")


def given_up(script):
    """The engines of a die until a is given up."""
    for _ in range(MAX_DEATHS_IN_ROW):
        script(EngineDied("a", "segfault"))
        if script.load_state("a") is LoadState.FAILED and script.state.now >= script.model("a").retry_at:
            script(ReloadAsked("a", 900))
            script(EngineLoaded("a"))
    assert script.load_state("a") is LoadState.FAILED


def test_a_model_that_was_given_up_is_refused_until_its_back_off_is_over_which_doubles():
    script = Script("a")
    script.idle("a")
    given_up(script)
    for backoff_s in (FIRST_BACKOFF_S, 2 * FIRST_BACKOFF_S):
        (refused,) = script(RequestArrived("a", 1))
        assert (type(refused.error), refused.error.retry_after_s) == (ModelLoadFailed, math.ceil(backoff_s))
        script.wait(backoff_s)
        assert script(RequestArrived("a", 2)) == [ComputeFootprint("a")]
        script(Sized("a", script.footprints["a"]))
        script(EngineLoaded("a"))
        script(RequestEnded("a", 2))
        script(EngineDied("a", "segfault"))


def test_an_engine_that_served_for_long_ends_the_row():
    script = Script("a")
    script.idle("a")
    for _ in range(MAX_DEATHS_IN_ROW - 1):
        script(EngineDied("a", "segfault"))
        script(ReloadAsked("a", 1))
        script(EngineLoaded("a"))
    script.wait(MAX_BACKOFF_S)
    script(EngineDied("a", "segfault"))
    assert (script.model("a").deaths_in_row, script.model("a").restarts) == (1, MAX_DEATHS_IN_ROW)
    script.load("a", 2)


def test_an_engine_that_served_for_long_and_was_unloaded_ends_the_row():
    script = Script("a")
    script.idle("a")
    script(EngineDied("a", "segfault"))
    script.idle("a")
    script.wait(MAX_BACKOFF_S)
    script(UnloadAsked("a", 1))
    script(EngineFreed("a"))
    assert (script.model("a").deaths_in_row, script.model("a").restarts) == (0, 1)


def test_an_engine_that_never_served_does_not_end_the_row_however_long_ago_the_one_before_it_did():
    script = Script("a")
    script.idle("a")
    script(EngineDied("a", "segfault"))
    script.wait(MAX_BACKOFF_S)
    assert script(ReloadAsked("a", 1)) == [StartLoad("a")]
    assert frees(script(CloseAsked())) == [("a", False)]
    # Told to stop while it loads, it may come to the end of its load first.
    script(EngineLoaded("a"))
    script(EngineDied("a", "segfault"))
    assert (script.model("a").deaths_in_row, script.model("a").restarts) == (2, 2)


def test_weights_that_stay_parked_for_long_do_not_end_the_row():
    script = Script("a")
    script.idle("a")
    script(EngineDied("a", "segfault"))
    script.idle("a")
    script(UnloadAsked("a", 1, PARK))
    script(EngineFreed("a", keeps_weights=True))
    script.wait(MAX_BACKOFF_S)
    script(UnloadAsked("a", 2))
    script(EngineFreed("a"))
    assert script.load_state("a") is LoadState.UNLOADED
    assert script.model("a").deaths_in_row == 1


# While it loads


def test_an_engine_that_dies_while_it_loads_is_tried_again_for_the_same_callers_and_the_third_time_refused():
    script = Script("a")
    script(RequestArrived("a", 1))
    script(ReloadAsked("a", 2))
    for _ in range(MAX_DEATHS_WHILE_LOADING - 1):
        assert script(EngineDied("a", "killed")) == [StartLoad("a")]
    effects = script(EngineDied("a", "killed"))
    assert refusals(effects) == [(1, ModelLoadFailed), (2, ModelLoadFailed)]
    assert script.model("a").restarts == MAX_DEATHS_WHILE_LOADING
    (refused,) = script(RequestArrived("a", 3))
    assert refused.error.retry_after_s == math.ceil(FIRST_BACKOFF_S)


def test_a_load_that_succeeds_ends_the_row_of_deaths_while_loading():
    script = Script("a")
    script(RequestArrived("a", 1))
    for _ in range(2):
        script(EngineDied("a", "killed"))
        script(EngineLoaded("a"))
        assert script.model("a").deaths_while_loading == 0
        dying(script)
        script(RequestSuspended("a", 1, 0))
        assert script(EngineDied("a", "segfault")) == [StartLoad("a")]


def test_a_load_that_fails_in_words_is_not_tried_again_for_the_same_callers():
    script = Script("a")
    script(RequestArrived("a", 1))
    script(EngineDied("a", "killed"))
    assert refusals(script(EngineLoadFailed("a", "bad magic"))) == [(1, ModelLoadFailed)]


def test_suspended_requests_wait_through_a_death_while_loading_and_are_refused_with_the_third():
    script = serving(1)
    assert dies(script, 1) == [StartLoad("a")]
    assert script(EngineDied("a", "killed")) == [StartLoad("a")]
    assert script(EngineDied("a", "killed")) == [StartLoad("a")]
    assert refusals(script(EngineDied("a", "killed"))) == [(1, ModelLoadFailed)]


def test_an_unload_that_does_not_wait_is_done_when_the_engine_died_while_it_loaded():
    script = Script("a")
    script(RequestArrived("a", 1))
    script(UnloadAsked("a", 2, FORCE))
    assert script(EngineDied("a", "killed")) == [Complete("a", 2), StartLoad("a")]


# While it is freed


@pytest.mark.parametrize("mode", [UnloadMode.DRAIN, PARK])
def test_an_engine_that_dies_while_it_is_unloaded_is_unloaded_and_counts_as_a_death(mode):
    script = Script("a")
    script.idle("a")
    script(UnloadAsked("a", 1, mode))
    dying(script)
    assert script(EngineDied("a", "segfault")) == [Complete("a", 1)]
    model = script.model("a")
    assert (model.load_state, model.failure, model.restarts) == (LoadState.UNLOADED, None, 1)
    script.load("a", 2)


def test_what_an_engine_had_that_died_while_it_made_room_goes_on_when_there_is_memory_again():
    script = serving(1, 2, names=("a", "b"))
    script(RequestArrived("b", 3))
    assert frees(script.wait(13.0)) == [("a", True)]
    script(RequestSuspended("a", 1, 0))
    dying(script, 2)
    script(RequestSuspended("a", 2, 0))
    assert script(EngineDied("a", "segfault")) == [StartLoad("b")]
    script(EngineLoaded("b"))
    script(RequestEnded("b", 3))
    assert script(EngineFreed("b")) == [StartLoad("a")]
    # The first had left the engine before it died.
    assert script(EngineLoaded("a")) == [Grant("a", 1), Grant("a", 2, alone=True)]


def test_a_death_while_it_is_freed_has_no_back_off_even_where_it_is_the_last_of_the_row():
    script = Script("a")
    script.idle("a")
    for _ in range(MAX_DEATHS_IN_ROW - 1):
        script(EngineDied("a", "segfault"))
        script(ReloadAsked("a", 1))
        script(EngineLoaded("a"))
    script(UnloadAsked("a", 2))
    script(EngineDied("a", "segfault"))
    assert script.model("a").deaths_in_row == MAX_DEATHS_IN_ROW
    script.load("a", 3)


def test_an_unload_by_force_whose_engine_dies_ends_what_it_served():
    script = serving(1)
    assert frees(script(UnloadAsked("a", 2, FORCE))) == [("a", False)]
    dying(script, 1)
    script(RequestSuspended("a", 1, 0))
    effects = script(EngineDied("a", "segfault"))
    assert (effects[0], refusals(effects)) == (Complete("a", 2), [(1, ModelUnloaded)])


def test_an_unload_that_suspends_whose_engine_dies_keeps_what_it_served_until_the_model_is_asked_for():
    script = serving(1)
    script(UnloadAsked("a", 2, SUSPEND))
    dying(script, 1)
    script(RequestSuspended("a", 1, 0))
    assert script(EngineDied("a", "segfault")) == [Complete("a", 2)]
    assert script.wait(50.0) == []
    assert script(ReloadAsked("a", 3)) == [StartLoad("a")]
    assert script(EngineLoaded("a")) == [Grant("a", 1, alone=True), Complete("a", 3)]


def test_a_request_that_nothing_brings_back_after_a_death_is_refused_when_the_longest_wait_is_over():
    script = serving(1)
    script(UnloadAsked("a", 2, SUSPEND))
    dying(script, 1)
    script(RequestSuspended("a", 1, 0))
    script(EngineDied("a", "segfault"))
    assert refusals(script.wait(101.0)) == [(1, ModelLoading)]
    assert script.model("a").deaths_survived == {}


def test_a_drain_waits_for_what_an_engine_served_that_died():
    script = serving(1)
    script(UnloadAsked("a", 2))
    dying(script)
    script(RequestSuspended("a", 1, 0))
    assert script(EngineDied("a", "segfault")) == [StartLoad("a")]
    assert script(EngineLoaded("a")) == [Grant("a", 1)]
    assert frees(script(RequestEnded("a", 1))) == [("a", False)]


def test_closing_ends_what_an_engine_served_that_is_dying():
    script = serving(1)
    dying(script, 1)
    script(CloseAsked())
    assert refusals(script(RequestSuspended("a", 1, 0))) == [(1, ShuttingDown)]
    assert script(EngineDied("a", "segfault")) == []
    assert script.state.used_bytes == 0


# While it is parked


def parked():
    script = Script("a")
    script.idle("a")
    script(UnloadAsked("a", 1, PARK))
    script(EngineFreed("a", 10, keeps_weights=True))
    return script


def test_a_model_whose_parked_weights_are_lost_is_unloaded_and_nothing_else():
    script = parked()
    assert script.state.used_bytes == 70
    assert script(WeightsLost("a", "killed")) == []
    model = script.model("a")
    assert (model.load_state, model.failure, model.restarts, model.last_death) == (LoadState.UNLOADED, None, 0, "")
    assert script.state.used_bytes == 10
    assert StartLoad("a") in script(RequestArrived("a", 2))


@pytest.mark.parametrize(
    ("events", "load_state"),
    [
        ([RequestArrived("a", 2)], LoadState.LOADING),
        ([RequestArrived("a", 2), EngineLoaded("a")], LoadState.LOADED),
        ([UnloadAsked("a", 2)], LoadState.FREEING),
        ([UnloadAsked("a", 2), EngineFreed("a")], LoadState.UNLOADED),
    ],
)
def test_lost_weights_mean_nothing_to_a_model_that_is_not_parked(events, load_state):
    script = parked()
    for event in events:
        script(event)
    assert script.load_state("a") is load_state
    before = script.state
    assert script(WeightsLost("a", "killed")) == []
    assert script.state.models == before.models


def test_an_engine_that_dies_while_it_wakes_is_loaded_from_its_files():
    script = parked()
    script(RequestArrived("a", 2))
    assert script(EngineDied("a", "killed")) == [StartLoad("a")]
    assert not script.model("a").was_parked


# What is known of an engine


def test_a_death_that_comes_when_there_is_no_engine_changes_nothing():
    script = parked()
    for death in (EngineDying("a", "segfault"), EngineDied("a", "segfault")):
        before = script.state
        assert script(death) == []
        assert script.state == before


def test_whether_a_model_has_a_process_of_its_own_is_told_by_its_load():
    script = Script("a")
    script(RequestArrived("a", 1))
    script(EngineLoaded("a", is_isolated=True))
    assert script.model("a").is_isolated
    dies(script)
    assert script.model("a").is_isolated
    script(EngineLoaded("a"))
    assert not script.model("a").is_isolated


def test_a_reject_is_of_one_that_waits_and_a_blame_of_one_that_holds_a_lease():
    script = serving(1)
    dies_and_is_back(script, 1)
    effects = dying(script, 1)
    assert not any(isinstance(effect, Reject) for effect in effects)
