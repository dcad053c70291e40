"""The residency machine, one rule at a time. Races have a file of their own."""

from __future__ import annotations

import math
from dataclasses import replace

from modelyard.errors import ModelLoadFailed, ModelLoading, QueueFull
from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.residency import advance_clock
from modelyard.yard.residency.effects import Complete, ComputeFootprint, DiscardKept, Grant, Remove, StartLoad
from modelyard.yard.residency.events import (
    EngineFreed,
    EngineLoaded,
    EngineLoadFailed,
    ModelAdded,
    ModelRetired,
    ModelRetuned,
    ReloadAsked,
    RequestArrived,
    RequestEnded,
    Sized,
    UnloadAsked,
)
from modelyard.yard.residency.failures import FIRST_BACKOFF_S, MAX_BACKOFF_S
from modelyard.yard.residency.policy import ModelPolicy
from modelyard.yard.residency.state import LoadState
from support.simulation.script import Script, frees, refusals

# One model


def test_the_first_request_has_the_files_looked_at_then_loads_and_is_granted():
    script = Script("a", is_sized=False)
    assert script(RequestArrived("a", 1)) == [ComputeFootprint("a")]
    assert script(RequestArrived("a", 2)) == []
    assert script(Sized("a", Footprint("a", 60, 40))) == [StartLoad("a")]
    assert script(RequestArrived("a", 3)) == []
    assert script(EngineLoaded("a")) == [Grant("a", 1), Grant("a", 2), Grant("a", 3)]
    assert script(RequestArrived("a", 4)) == [Grant("a", 4)]


def test_files_that_cannot_be_used_fail_the_load_and_are_looked_at_again_the_next_time():
    script = Script("a", is_sized=False)
    script(RequestArrived("a", 1))
    assert refusals(script(EngineLoadFailed("a", "no such file"))) == [(1, ModelLoadFailed)]
    script.wait(FIRST_BACKOFF_S)
    assert script(RequestArrived("a", 2)) == [ComputeFootprint("a")]


def test_what_was_measured_replaces_what_was_predicted():
    script = Script("a", fit=2)
    script(RequestArrived("a", 1))
    script(EngineLoaded("a", Footprint("a", 60, 45)))
    assert script.state.used_bytes == 105


def test_a_full_queue_refuses_the_next():
    script = Script("a")
    script.load("a", 1)
    for request in range(2, 9):
        assert script(RequestArrived("a", request)) == [Grant("a", request)]
    assert refusals(script(RequestArrived("a", 9))) == [(9, QueueFull)]
    script(RequestEnded("a", 1))
    assert script(RequestArrived("a", 10)) == [Grant("a", 10)]


def test_retry_after_is_what_is_left_of_the_measured_load():
    script = Script("a")
    script(RequestArrived("a", 1))
    script.wait(8.0)
    script(EngineLoaded("a"))
    script(RequestEnded("a", 1))
    script(UnloadAsked("a", 2))
    script(EngineFreed("a"))
    script(RequestArrived("a", 3))
    script.wait(5.0)
    (refused,) = script(RequestArrived("a", 4, wait_s=0.0))
    assert refused.error.retry_after_s == 3


def test_who_waits_a_while_is_refused_when_it_is_over():
    script = Script("a")
    script(RequestArrived("a", 1, wait_s=5.0))
    assert script.wait(4.9) == []
    (refused,) = script.wait(0.2)
    assert refused.request == 1
    assert "after 5 s of waiting" in str(refused.error)
    assert script.load_state("a") is LoadState.LOADING


def test_time_before_anything_is_due_costs_nothing_and_changes_nothing():
    script = Script("a")
    script(RequestArrived("a", 1))
    just_before = script.state.due_at - 0.1
    early, effects = advance_clock(script.state, just_before)
    assert (early, effects) == (script.state._replace(now=just_before), [])


def test_a_due_time_takes_effect_at_once():
    script = Script("a")
    script(RequestArrived("a", 1, wait_s=5.0))
    assert script.state.due_at == 5.0
    late, effects = advance_clock(script.state, 5.0)
    assert refusals(effects) == [(1, ModelLoading)]
    assert late.due_at > 5.0


# Unload and reload


def test_an_unload_of_an_unloaded_or_failed_model_is_done_at_once():
    script = Script("a")
    assert script(UnloadAsked("a", 1)) == [Complete("a", 1)]
    script(RequestArrived("a", 2))
    script(EngineLoadFailed("a", "bad"))
    assert script(UnloadAsked("a", 3)) == [Complete("a", 3)]
    assert script.load_state("a") is LoadState.UNLOADED


# Failures


def test_after_a_failed_load_requests_are_refused_until_the_backoff_is_over_and_it_doubles():
    script = Script("a")
    for failures in range(8):
        backoff_s = min(FIRST_BACKOFF_S * 2**failures, MAX_BACKOFF_S)
        script(RequestArrived("a", 10 * failures))
        if script.load_state("a") is LoadState.SIZING:
            script(Sized("a", Footprint("a", 60, 40)))
        script(EngineLoadFailed("a", "bad"))
        (refused,) = script(RequestArrived("a", 10 * failures + 1))
        assert refused.error.retry_after_s == math.ceil(backoff_s)
        script.wait(backoff_s)
    script(ReloadAsked("a", 99))
    assert script.load_state("a") is LoadState.SIZING


def test_a_reload_does_not_wait_for_the_backoff():
    script = Script("a")
    script(RequestArrived("a", 1))
    script(EngineLoadFailed("a", "bad"))
    assert script(ReloadAsked("a", 2)) == [ComputeFootprint("a")]


# Who goes


def test_of_idle_models_the_one_that_was_used_longest_ago_goes_and_no_more_than_needed():
    script = Script("a", "b", "c", fit=2)
    script.idle("a", 1)
    script.wait(60.0)
    script.idle("b", 2)
    assert frees(script(RequestArrived("c", 3))) == [("a", False)]


def test_a_model_that_takes_long_to_load_stays_before_one_that_is_back_at_once():
    script = Script("a", "b", "c", fit=2)
    script(RequestArrived("a", 1))
    script.wait(10.0)
    script(EngineLoaded("a"))
    script(RequestEnded("a", 1))
    script.wait(5.0)
    script.idle("b", 2)
    assert frees(script(RequestArrived("c", 3))) == [("b", False)]


def test_of_idle_models_that_are_alike_the_largest_goes():
    sizes = {"a": Footprint("a", 50, 10), "b": Footprint("b", 90, 10)}
    script = Script("a", "b", "c", fit=1.6, footprints=sizes | {"c": Footprint("c", 50, 10)})
    script.idle("a", 1)
    script.idle("b", 2)
    assert frees(script(RequestArrived("c", 3))) == [("b", False)]


def test_a_small_model_is_spared_where_a_large_one_has_to_go_anyway():
    small = {"a": Footprint("a", 10, 10)}
    script = Script("a", "b", "c", fit=1.2, footprints=small)
    script.idle("a", 1)
    script.wait(60.0)
    script.idle("b", 2)
    assert frees(script(RequestArrived("c", 3))) == [("b", False)]


def test_what_is_kept_never_takes_more_than_is_left_while_it_is_saved_and_while_the_next_loads():
    script = Script("a", "b", fit=1.3)
    script.idle("a", 1)
    (free,) = script(RequestArrived("b", 2))
    assert free.keep_bytes == 30
    script(EngineFreed("a", 30))
    assert script.state.used_bytes == 130


def test_a_smaller_model_may_load_beside_a_claim_but_never_takes_what_it_waits_for():
    footprints = {"small": Footprint("small", 10, 10), "middle": Footprint("middle", 20, 10)}
    script = Script("a", "b", "small", "middle", fit=1.2, footprints=footprints)
    script.load("a", 1)
    assert script(RequestArrived("b", 2)) == []
    assert script(RequestArrived("middle", 3)) == []
    assert script(RequestArrived("small", 4)) == [StartLoad("small")]


# Priorities


def test_waiting_requests_go_by_priority_then_by_arrival():
    script = Script("a", a={"priority": 1})
    script(RequestArrived("a", 1, priority=0))
    script(RequestArrived("a", 2))
    script(RequestArrived("a", 3, priority=9))
    script(RequestArrived("a", 4))
    assert script(EngineLoaded("a")) == [Grant("a", 3), Grant("a", 2), Grant("a", 4), Grant("a", 1)]


# Idleness


def test_an_idle_model_is_unloaded_after_its_time_and_not_while_it_is_used():
    script = Script("a", a={"idle_unload_s": 5.0})
    script.load("a", 1)
    assert script.wait(60.0) == []
    script(RequestEnded("a", 1))
    assert script.wait(4.9) == []
    assert frees(script.wait(0.2)) == [("a", False)]


def test_a_pinned_model_does_not_go_for_being_idle():
    script = Script("a", a={"is_pinned": True})
    script(RequestArrived("a", 1, keep_alive_s=0.0))
    script(EngineLoaded("a"))
    assert script(RequestEnded("a", 1)) == []
    assert script.state.due_at == math.inf


# Changes of configuration


def test_a_retired_model_serves_its_leases_and_is_removed():
    script = Script("a", a={"is_pinned": True})
    script.load("a", 1)
    assert script(ModelRetired("a")) == []
    assert frees(script(RequestEnded("a", 1))) == [("a", False)]
    assert script(EngineFreed("a", 10)) == [DiscardKept("a"), Remove("a")]
    assert script.state.models == {}
    assert script.state.active == frozenset()


def test_a_retired_model_that_is_not_loaded_is_removed_at_once_and_makes_room_before_all_others():
    script = Script("a", "b", "c", fit=2)
    assert script(ModelRetired("c")) == [Remove("c")]
    script.load("a", 1)
    script.idle("b", 2)
    script(ModelRetired("a"))
    script(ModelAdded("d", ModelPolicy("d", 8)))
    script(RequestArrived("d", 3))
    assert frees(script(Sized("d", Footprint("d", 100, 60)))) == []
    assert script.model("a").makes_room_since is not None


def test_new_policy_holds_from_now_on():
    script = Script("a")
    script.idle("a", 1)
    policy = replace(script.model("a").policy, idle_unload_s=3.0)
    assert script(ModelRetuned("a", policy)) == []
    assert frees(script.wait(3.1)) == [("a", False)]
