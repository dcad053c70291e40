"""Models whose weights stay in memory without a context: when they are left there, and when they go."""

from __future__ import annotations

import pytest

from modelyard.errors import InsufficientMemory, ShuttingDown
from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.residency.effects import Complete, DiscardKept, Free, Grant, Reject, Remove, StartLoad
from modelyard.yard.residency.events import (
    BudgetChanged,
    CloseAsked,
    EngineFreed,
    EngineLoaded,
    EngineLoadFailed,
    ModelRetired,
    ModelRetuned,
    ReloadAsked,
    RequestArrived,
    RequestEnded,
    RequestSuspended,
    Tick,
    UnloadAsked,
)
from modelyard.yard.residency.expected_cost import load_seconds
from modelyard.yard.residency.policy import ModelPolicy
from modelyard.yard.residency.state import LoadState
from modelyard.yard.residency.waiting import UnloadMode
from support.simulation.script import Script, frees, refusals

PARK = UnloadMode.PARK
# Both contexts fit beside one model's weights, or both weights beside one context: 60 + 40 each.
WEIGHTS_FIT = 1.6


def parked(*names: str, fit: float = WEIGHTS_FIT, **traits: object) -> Script:
    """A machine whose first model is parked."""
    script = Script(*names, fit=fit, **traits)
    script.idle(names[0])
    park(script, names[0])
    return script


def park(script: Script, name: str) -> None:
    (free,) = script(UnloadAsked(name, 800, PARK))
    assert isinstance(free, Free)
    assert free.keeps_weights
    assert script(EngineFreed(name, keeps_weights=True)) == [Complete(name, 800)]
    assert script.load_state(name) is LoadState.PARKED


# What parking is


def test_an_unload_that_parks_waits_for_the_requests_before_it_and_leaves_the_weights():
    script = Script("a")
    script.load("a", 1)
    assert script(UnloadAsked("a", 2, PARK)) == []
    assert script(RequestArrived("a", 3)) == []
    (free,) = script(RequestEnded("a", 1))
    assert (free.keeps_weights, free.suspends) == (True, False)
    assert script(EngineFreed("a", keeps_weights=True)) == [Complete("a", 2), StartLoad("a")]


def test_a_parked_model_takes_its_weights_alone():
    script = parked("a")
    assert script.state.used_bytes == 60
    script(UnloadAsked("a", 2))
    assert script.state.used_bytes == 60
    assert script(EngineFreed("a")) == [Complete("a", 2)]
    assert script.state.used_bytes == 0


def test_a_request_wakes_a_parked_model():
    script = parked("a")
    assert script(RequestArrived("a", 2)) == [StartLoad("a")]
    assert script.state.used_bytes == 100
    assert script(EngineLoaded("a")) == [Grant("a", 2)]


def test_wake_time_and_load_time_are_measured_separately():
    script = Script("a")
    script(ReloadAsked("a", 1))
    script.wait(8)
    script(EngineLoaded("a"))
    park(script, "a")
    assert load_seconds(script.model("a")) == 8
    script(ReloadAsked("a", 2))
    script.wait(0.5)
    script(EngineLoaded("a"))
    assert load_seconds(script.model("a")) == 8
    park(script, "a")
    assert load_seconds(script.model("a")) == 0.5


def test_to_park_what_is_not_loaded_is_done_at_once():
    script = parked("a", "b")
    assert script(UnloadAsked("a", 2, PARK)) == [Complete("a", 2)]
    assert script.load_state("a") is LoadState.PARKED
    assert script(UnloadAsked("b", 3, PARK)) == [Complete("b", 3)]
    assert script.load_state("b") is LoadState.UNLOADED


@pytest.mark.parametrize("mode", [UnloadMode.DRAIN, UnloadMode.SUSPEND, UnloadMode.FORCE])
def test_an_unload_of_a_parked_model_frees_its_weights(mode):
    script = parked("a")
    (free,) = script(UnloadAsked("a", 2, mode))
    assert free == Free("a", suspends=False, keep_bytes=0, why="an unload was asked for", keeps_weights=False)
    assert script(RequestArrived("a", 3)) == []
    assert script(EngineFreed("a")) == [Complete("a", 2), StartLoad("a")]


def test_a_wake_that_fails_leaves_nothing():
    script = parked("a")
    script(RequestArrived("a", 2))
    assert len(refusals(script(EngineLoadFailed("a", "the file is gone")))) == 1
    assert (script.load_state("a"), script.state.used_bytes) == (LoadState.FAILED, 0)


def test_prompts_that_a_parked_model_keeps_outlive_its_weights():
    script = Script("a", fit=2)
    script.idle("a")
    script(UnloadAsked("a", 800, PARK))
    script(EngineFreed("a", 7, keeps_weights=True))
    assert script.state.used_bytes == 67
    script(UnloadAsked("a", 2))
    script(EngineFreed("a", 7))
    assert script.state.used_bytes == 7


# When weights stay


def test_of_an_idle_model_that_makes_room_the_weights_stay_where_they_fit():
    script = Script("a", "b", fit=WEIGHTS_FIT)
    script.idle("a")
    (free,) = script(RequestArrived("b", 2))
    assert free.keeps_weights
    assert script(EngineFreed("a", keeps_weights=True)) == [StartLoad("b")]
    assert script.state.used_bytes == 160


def test_of_a_busy_model_that_makes_room_the_weights_stay_where_they_fit():
    script = Script("a", "b", fit=WEIGHTS_FIT)
    script.load("a", 1)
    script(RequestArrived("b", 2))
    (free,) = script.wait(30)
    assert (free.suspends, free.keeps_weights) == (True, True)
    script(RequestSuspended("a", 1, 0))
    assert script(EngineFreed("a", keeps_weights=True)) == [StartLoad("b")]


def test_the_state_of_suspended_requests_is_worth_more_than_weights():
    """There is room for one of them: a prompt takes longer to compute than weights to read."""
    script = Script("a", "b", fit=WEIGHTS_FIT)
    script.load("a", 1)
    script(RequestArrived("b", 2))
    (free,) = script.wait(30)
    assert free.keep_bytes == 60
    script(RequestSuspended("a", 1, 30))
    assert frees(script(EngineFreed("a", keeps_weights=True))) == [("a", False)]
    assert script(EngineFreed("a")) == [StartLoad("b")]
    assert script.state.kept_bytes == 30


def test_weights_that_another_model_uses_too_stay_for_nothing():
    files = {"a": Footprint("shared", 60, 40), "b": Footprint("shared", 60, 40)}
    script = Script("a", "b", fit=1.0, footprints=files)
    script.idle("a")
    (free,) = script(RequestArrived("b", 2))
    assert free.keeps_weights
    assert script(EngineFreed("a", keeps_weights=True)) == [StartLoad("b")]
    assert script.state.used_bytes == 100


def test_weights_that_do_not_fit_go_with_the_rest():
    script = Script("a", "b", fit=1.5)
    script.idle("a")
    (free,) = script(RequestArrived("b", 2))
    assert not free.keeps_weights


def test_of_a_model_that_is_no_longer_configured_the_weights_go():
    script = Script("a", "b", fit=WEIGHTS_FIT)
    script.load("a", 1)
    script(ModelRetired("a"))
    script(RequestArrived("b", 2))
    assert [effect.keeps_weights for effect in script.wait(30) if isinstance(effect, Free)] == [False]


# When weights go


def test_parked_weights_go_before_kept_prompts_and_before_a_model_that_is_loaded():
    script = parked("a", "b", "c", "d", fit=2.7)
    script.idle("b")
    script(UnloadAsked("b", 3))
    script(EngineFreed("b", 10))
    script.idle("c")
    assert script.state.used_bytes == 170
    effects = script(RequestArrived("d", 4))
    assert effects == [StartLoad("d")]
    script = parked("a", "b", "c", "d", fit=2.6)
    script.idle("b")
    script(UnloadAsked("b", 3))
    script(EngineFreed("b", 10))
    script.idle("c")
    effects = script(RequestArrived("d", 4))
    assert frees(effects) == [("a", False)]
    assert not any(isinstance(effect, DiscardKept) for effect in effects)
    assert script(EngineFreed("a")) == [StartLoad("d")]


def test_of_parked_models_the_one_used_longest_ago_goes_first():
    script = parked("a", "b", "c", fit=1.9)
    script.idle("b")
    park(script, "b")
    assert frees(script(RequestArrived("c", 5))) == [("a", False)]
    assert script(RequestArrived("b", 6)) == []
    assert script(EngineFreed("a")) == [StartLoad("c")]


def test_of_parked_models_one_that_takes_long_to_load_stays_however_soon_it_wakes():
    script = Script("a", "b", "c", fit=1.9)
    for took_s in (8, 0.1):
        script(ReloadAsked("a", 1))
        script.wait(took_s)
        script(EngineLoaded("a"))
        park(script, "a")
    script.wait(100)
    script.idle("b")
    park(script, "b")
    assert frees(script(RequestArrived("c", 2))) == [("b", False)]


def test_a_parked_model_does_not_wake_past_one_that_loads_sooner_for_each_request_and_needs_its_memory():
    script = Script("a", "b", "c", fit=2.0, footprints={"c": Footprint("c", 110, 40)})
    script(RequestArrived("a", 1))
    script.wait(1.0)
    script(EngineLoaded("a"))
    script(RequestEnded("a", 1))
    park(script, "a")
    script.load("b", 2)
    # It needs what both have; there is room for a context beside them. Its load is estimated at one second, too.
    assert script(RequestArrived("c", 3)) == []
    assert script(RequestArrived("c", 5)) == []
    assert script(RequestArrived("a", 4)) == []
    effects = script.wait(30)
    assert sorted(frees(effects)) == [("a", False), ("b", True)]
    script(RequestSuspended("b", 2, 0))
    script(EngineFreed("a"))
    assert script(EngineFreed("b")) == [StartLoad("c")]


def test_parked_weights_of_a_pinned_model_stay():
    script = parked("a", "b", fit=1.5, a={"is_pinned": True})
    assert refusals(script(RequestArrived("b", 2))) == [(2, InsufficientMemory)]
    assert script.load_state("a") is LoadState.PARKED


def test_a_parked_model_that_is_idle_for_its_time_goes():
    script = Script("a", a={"idle_unload_s": 5.0})
    script.idle("a")
    park(script, "a")
    assert frees(script.wait(5)) == [("a", False)]
    script(EngineFreed("a"))
    assert script.state.used_bytes == 0


def test_a_parked_model_goes_at_once_when_a_request_is_refused_that_wanted_it_gone_afterwards():
    script = parked("a", "b", fit=1.8, b={"is_pinned": True})
    script(RequestArrived("b", 2))
    script(EngineLoaded("b"))
    effects = script(RequestArrived("a", 3, keep_alive_s=0.0))
    assert refusals(effects) == [(3, InsufficientMemory)]
    assert frees(effects) == [("a", False)]


def test_a_parked_model_that_is_no_longer_configured_goes():
    script = parked("a")
    assert frees(script(ModelRetired("a"))) == [("a", False)]
    assert script(EngineFreed("a")) == [Remove("a")]


def test_where_more_is_used_than_the_budget_has_parked_weights_go_first():
    script = parked("a", "b", fit=2)
    script.idle("b")
    assert frees(script(BudgetChanged(150))) == [("a", False)]
    assert script(EngineFreed("a")) == []
    assert script.load_state("b") is LoadState.LOADED


def test_parked_weights_whose_request_is_refused_as_the_budget_shrinks_go_at_once():
    script = parked("a", "b", fit=1.8)
    script(RequestArrived("b", 2))
    script(EngineLoaded("b"))
    assert script(RequestArrived("a", 3)) == []
    effects = script(BudgetChanged(90))
    assert refusals(effects) == [(3, InsufficientMemory)]
    assert frees(effects) == [("a", False)]


def test_a_close_frees_parked_weights_and_those_that_are_being_parked():
    script = parked("a", "b", fit=3)
    script.idle("b")
    script(UnloadAsked("b", 5, PARK))
    effects = script(CloseAsked())
    assert frees(effects) == [("a", False)]
    assert [(e.request, type(e.error)) for e in effects if isinstance(e, Reject)] == [(5, ShuttingDown)]
    assert frees(script(EngineFreed("b", keeps_weights=True))) == [("b", False)]
    script(EngineFreed("a"))
    script(EngineFreed("b"))
    assert script.state.used_bytes == 0


def test_an_unload_behind_a_request_that_is_refused_still_frees_the_weights():
    script = parked("a", "b", fit=1.6)
    script.load("b", 2)
    assert script(RequestArrived("a", 3)) == []
    assert script(UnloadAsked("a", 4)) == []
    effects = script(ModelRetuned("b", ModelPolicy("b", 8, is_pinned=True)))
    assert refusals(effects) == [(3, InsufficientMemory)]
    assert frees(effects) == [("a", False)]
    assert script(EngineFreed("a")) == [Complete("a", 4)]


def test_nothing_of_a_parked_model_changes_with_time_alone():
    script = parked("a")
    before = script.model("a")
    assert script(Tick(1000.0)) == []
    assert script.model("a") == before
