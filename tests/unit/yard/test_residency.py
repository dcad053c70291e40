"""The residency machine, one situation at a time: the races that other servers shipped, by name."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from modelyard.errors import (
    InsufficientMemory,
    ModelBusy,
    ModelLoadFailed,
    ModelLoading,
    ModelUnloaded,
    QueueFull,
    ShuttingDown,
)
from modelyard.yard.memory import Footprint
from modelyard.yard.residency import at, step
from modelyard.yard.residency.events import (
    BudgetChanged,
    CloseAsked,
    Complete,
    EngineDied,
    Forget,
    Free,
    Freed,
    Grant,
    LoadFailed,
    LoadFinished,
    ModelAdded,
    ModelRetired,
    ModelRetuned,
    Reject,
    ReloadAsked,
    Remove,
    RequestArrived,
    RequestEnded,
    RequestSuspended,
    Size,
    Sized,
    StartLoad,
    Tick,
    UnloadAsked,
)
from modelyard.yard.residency.state import Policy, Residence, Residency, Traits, UnloadMode
from modelyard.yard.residency.take import FIRST_BACKOFF_S, LONGEST_BACKOFF_S

POLICY = Policy(longest_wait_s=100.0, least_residency_s=10.0, residency_per_load=4.0, yield_s=2.0, patience_s=30.0)
SUSPEND, FORCE = UnloadMode.SUSPEND, UnloadMode.FORCE
BIG = 100


class Script:
    """A machine whose models take BIG bytes each, and that fits ``fit`` of them."""

    def __init__(self, *names, fit=1.0, sized=True, footprints=None, **traits):
        all_traits = {name: Traits(name, 8, **traits.get(name, {})) for name in names}
        self.state = Residency.of(all_traits, int(fit * BIG), POLICY)
        self.footprints = {name: Footprint(name, 60, 40) for name in names} | (footprints or {})
        if sized:
            for name in names:
                self(Sized(name, self.footprints[name]))

    def __call__(self, event):
        """Feed an event; the effects."""
        self.state, effects = step(self.state, event)
        return effects

    def model(self, name):
        return self.state.models[name]

    def residence(self, name):
        return self.state.models[name].residence

    def wait(self, seconds):
        """Let time pass: a Tick whenever one is due, and one at the end; all their effects."""
        end, effects = self.state.now + seconds, []
        while self.state.due_at < end:
            effects += self(Tick(self.state.due_at))
        return effects + self(Tick(end))

    def load(self, name, request):
        """A request for a model that is not there, and its load."""
        assert self(RequestArrived(name, request)) == [StartLoad(name)]
        assert self(LoadFinished(name)) == [Grant(name, request)]

    def idle(self, name, request=900):
        self.load(name, request)
        assert self(RequestEnded(name, request)) == []


def frees(effects):
    return [(effect.model, effect.suspends) for effect in effects if isinstance(effect, Free)]


def refusals(effects):
    return [(effect.request, type(effect.error)) for effect in effects if isinstance(effect, Reject)]


# One model


def test_the_first_request_has_the_files_looked_at_then_loads_and_is_granted():
    script = Script("a", sized=False)
    assert script(RequestArrived("a", 1)) == [Size("a")]
    assert script(RequestArrived("a", 2)) == []
    assert script(Sized("a", Footprint("a", 60, 40))) == [StartLoad("a")]
    assert script(RequestArrived("a", 3)) == []
    assert script(LoadFinished("a")) == [Grant("a", 1), Grant("a", 2), Grant("a", 3)]
    assert script(RequestArrived("a", 4)) == [Grant("a", 4)]


def test_files_that_cannot_be_used_fail_the_load_and_are_looked_at_again_the_next_time():
    script = Script("a", sized=False)
    script(RequestArrived("a", 1))
    assert refusals(script(LoadFailed("a", "no such file"))) == [(1, ModelLoadFailed)]
    script.wait(FIRST_BACKOFF_S)
    assert script(RequestArrived("a", 2)) == [Size("a")]


def test_what_was_measured_replaces_what_was_predicted():
    script = Script("a", fit=2)
    script(RequestArrived("a", 1))
    script(LoadFinished("a", Footprint("a", 60, 45)))
    assert script.state.used_bytes == 105


def test_a_full_queue_refuses_the_next():
    script = Script("a")
    script.load("a", 1)
    for request in range(2, 9):
        assert script(RequestArrived("a", request)) == [Grant("a", request)]
    assert refusals(script(RequestArrived("a", 9))) == [(9, QueueFull)]
    script(RequestEnded("a", 1))
    assert script(RequestArrived("a", 10)) == [Grant("a", 10)]


def test_who_does_not_wait_hears_at_once_that_the_model_loads_and_it_is_loaded_once():
    script = Script("a")
    effects = script(RequestArrived("a", 1, wait_s=0.0))
    assert [effect for effect in effects if isinstance(effect, StartLoad)] == [StartLoad("a")]
    assert refusals(effects) == [(1, ModelLoading)]
    assert refusals(script(RequestArrived("a", 2, wait_s=0.0))) == [(2, ModelLoading)]
    # Nobody listens to this: it is the load for whoever comes again.
    assert script(LoadFinished("a")) == [Complete("a", 1)]
    assert script(RequestArrived("a", 3, wait_s=0.0)) == [Grant("a", 3)]


def test_who_does_not_wait_still_makes_room_for_the_next_try():
    script = Script("a", "b")
    script.load("a", 1)
    assert refusals(script(RequestArrived("b", 2, wait_s=0.0))) == [(2, ModelLoading)]
    assert frees(script.wait(13.0)) == [("a", True)]
    script(RequestSuspended("a", 1, 0))
    assert StartLoad("b") in script(Freed("a"))


def test_retry_after_is_what_is_left_of_the_measured_load():
    script = Script("a")
    script(RequestArrived("a", 1))
    script.wait(8.0)
    script(LoadFinished("a"))
    script(RequestEnded("a", 1))
    script(UnloadAsked("a", 2))
    script(Freed("a"))
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
    assert script.residence("a") is Residence.LOADING


def test_a_load_that_hangs_keeps_nobody_for_longer_than_the_longest_wait():
    script = Script("a")
    script(RequestArrived("a", 1))
    script(UnloadAsked("a", 2))
    assert refusals(script.wait(101.0)) == [(1, ModelLoading), (2, ModelBusy)]


def test_time_before_anything_is_due_costs_nothing_and_changes_nothing():
    script = Script("a")
    script(RequestArrived("a", 1))
    state, effects = at(script.state, 50.0)
    assert (state.models, effects) == (script.state.models, [])
    state, effects = at(script.state, 100.0)
    assert refusals(effects) == [(1, ModelLoading)]


# Unload and reload


def test_an_unload_waits_for_the_last_lease_and_who_comes_behind_it_reloads_the_model():
    script = Script("a")
    script.load("a", 1)
    assert script(UnloadAsked("a", 2)) == []
    assert script(RequestArrived("a", 3)) == []
    assert frees(script(RequestEnded("a", 1))) == [("a", False)]
    assert script(Freed("a")) == [Complete("a", 2), StartLoad("a")]
    assert script(LoadFinished("a")) == [Grant("a", 3)]


def test_an_unload_during_a_load_waits_for_the_load_and_a_load_behind_an_unload_for_the_unload():
    script = Script("a")
    script(ReloadAsked("a", 1))
    script(UnloadAsked("a", 2))
    script(ReloadAsked("a", 3))
    effects = script(LoadFinished("a"))
    assert (effects[0], frees(effects)) == (Complete("a", 1), [("a", False)])
    assert script(Freed("a")) == [Complete("a", 2), StartLoad("a")]
    assert script(LoadFinished("a")) == [Complete("a", 3)]


def test_a_reload_of_a_loaded_model_is_done_at_once_and_poisons_nothing():
    script = Script("a")
    script.load("a", 1)
    assert script(ReloadAsked("a", 2)) == [Complete("a", 2)]
    assert script(RequestArrived("a", 3)) == [Grant("a", 3)]


@pytest.mark.parametrize(
    "event", [ReloadAsked("zombie", 1), UnloadAsked("zombie", 1), RequestArrived("zombie", 1), Freed("zombie")]
)
def test_what_concerns_a_model_that_is_not_known_has_no_effect(event):
    script = Script("a")
    assert script(event) == []
    assert list(script.state.models) == ["a"]


def test_an_unload_of_an_unloaded_or_failed_model_is_done_at_once():
    script = Script("a")
    assert script(UnloadAsked("a", 1)) == [Complete("a", 1)]
    script(RequestArrived("a", 2))
    script(LoadFailed("a", "bad"))
    assert script(UnloadAsked("a", 3)) == [Complete("a", 3)]
    assert script.residence("a") is Residence.UNLOADED


def test_an_unload_that_suspends_parks_its_requests_until_something_else_loads_the_model():
    script = Script("a")
    script.load("a", 1)
    script(RequestArrived("a", 2))
    assert frees(script(UnloadAsked("a", 3, SUSPEND))) == [("a", True)]
    script(RequestSuspended("a", 1, 10))
    script(RequestSuspended("a", 2, 0))
    assert script(Freed("a", 5)) == [Complete("a", 3)]
    assert script.state.used_bytes == 15
    assert script.wait(50.0) == []
    assert script(UnloadAsked("a", 4)) == [Complete("a", 4)]
    assert script(ReloadAsked("a", 5)) == [Forget("a"), StartLoad("a")]
    assert script(LoadFinished("a")) == [Grant("a", 1), Grant("a", 2), Complete("a", 5)]


def test_a_parked_request_is_refused_when_the_longest_wait_is_over():
    script = Script("a")
    script.load("a", 1)
    script(UnloadAsked("a", 2, SUSPEND))
    script(RequestSuspended("a", 1, 0))
    script(Freed("a"))
    assert refusals(script.wait(101.0)) == [(1, ModelLoading)]


def test_an_unload_by_force_goes_before_those_who_wait_and_ends_what_is_suspended():
    script = Script("a")
    script.load("a", 1)
    script(UnloadAsked("a", 2, SUSPEND))
    script(RequestSuspended("a", 1, 0))
    script(Freed("a"))
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
    assert script(Freed("a")) == [Complete("a", 2)]
    assert script.state.used_bytes == 0


# Failures


def test_a_failed_load_is_heard_by_all_who_waited_and_by_nobody_else():
    script = Script("a", "b", fit=2)
    script.load("b", 1)
    script(RequestArrived("a", 2))
    script(RequestArrived("a", 3))
    script(UnloadAsked("a", 4))
    effects = script(LoadFailed("a", "bad magic"))
    assert refusals(effects) == [(2, ModelLoadFailed), (3, ModelLoadFailed)]
    assert Complete("a", 4) in effects
    assert script.residence("b") is Residence.LOADED
    assert script(RequestArrived("b", 5)) == [Grant("b", 5)]


def test_a_load_that_fails_after_an_eviction_leaves_the_way_back_open():
    script = Script("a", "b")
    script.idle("a")
    assert frees(script(RequestArrived("b", 2))) == [("a", False)]
    assert script(Freed("a")) == [StartLoad("b")]
    script(LoadFailed("b", "bad"))
    script.load("a", 3)


def test_after_a_failed_load_requests_are_refused_until_the_backoff_is_over_and_it_doubles():
    script = Script("a", sized=True)
    for failures in range(8):
        backoff_s = min(FIRST_BACKOFF_S * 2**failures, LONGEST_BACKOFF_S)
        script(RequestArrived("a", 10 * failures))
        if script.residence("a") is Residence.SIZING:
            script(Sized("a", Footprint("a", 60, 40)))
        script(LoadFailed("a", "bad"))
        (refused,) = script(RequestArrived("a", 10 * failures + 1))
        assert refused.error.retry_after_s == math.ceil(backoff_s)
        script.wait(backoff_s)
    script(ReloadAsked("a", 99))
    assert script.residence("a") is Residence.SIZING


def test_a_reload_does_not_wait_for_the_backoff():
    script = Script("a")
    script(RequestArrived("a", 1))
    script(LoadFailed("a", "bad"))
    assert script(ReloadAsked("a", 2)) == [Size("a")]


def test_an_engine_that_dies_is_restarted_by_the_next_request_and_after_a_backoff_the_time_after():
    script = Script("a")
    script.load("a", 1)
    script(RequestEnded("a", 1))
    script(EngineDied("a", "segfault"))
    assert script.residence("a") is Residence.FAILED
    script.load("a", 2)
    script(RequestEnded("a", 2))
    script(EngineDied("a", "segfault"))
    assert refusals(script(RequestArrived("a", 3))) == [(3, ModelLoadFailed)]
    script.wait(2 * FIRST_BACKOFF_S)
    script.load("a", 4)
    script.wait(LONGEST_BACKOFF_S)
    script(RequestEnded("a", 4))
    script(EngineDied("a", "segfault"))
    script.load("a", 5)


def test_an_engine_that_dies_with_an_unload_waiting_has_done_what_it_wanted():
    script = Script("a")
    script.load("a", 1)
    script(UnloadAsked("a", 2))
    script(RequestArrived("a", 3))
    script(RequestEnded("a", 1))
    assert script(EngineDied("a", "segfault")) == [Complete("a", 2), StartLoad("a")]


# Two models that fit only one at a time


def test_an_idle_model_makes_room_at_once_and_no_request_brings_it_back_meanwhile():
    script = Script("a", "b")
    script.idle("a")
    assert frees(script(RequestArrived("b", 2))) == [("a", False)]
    assert script(RequestArrived("a", 3)) == []
    assert script(Freed("a")) == [StartLoad("b")]
    assert script(LoadFinished("b")) == [Grant("b", 2)]
    assert frees(script(RequestEnded("b", 2))) == [("b", False)]
    assert script(Freed("b")) == [StartLoad("a")]
    assert script(LoadFinished("a")) == [Grant("a", 3)]


def test_two_models_that_fit_one_at_a_time_take_turns_and_never_swap_sooner_than_they_may():
    script = Script("a", "b")
    script.load("a", 1)
    script(RequestArrived("b", 2))
    there, gone = "a", "b"
    for turn in range(6):
        # Requests of the model that is there are served together, as long as it is there.
        assert frees(script.wait(9.9)) == []
        assert script(RequestArrived(there, 100 + turn)) == [Grant(there, 100 + turn)]
        effects = script.wait(2.2)
        assert frees(effects) == [(there, True)]
        for request in list(script.model(there).leases):
            script(RequestSuspended(there, request, 0))
        assert script(Freed(there)) == [StartLoad(gone)]
        effects = script(LoadFinished(gone))
        assert {effect.request for effect in effects} == set(script.model(gone).leases)
        there, gone = gone, there


def test_a_model_that_yields_grants_nothing_new_and_goes_as_soon_as_its_answers_are_done():
    script = Script("a", "b")
    script.load("a", 1)
    script(RequestArrived("b", 2))
    assert script.wait(10.0) == []
    assert script(RequestArrived("a", 3)) == []
    assert frees(script(RequestEnded("a", 1))) == [("a", True)]


def test_a_model_whose_claimants_have_left_stops_yielding_and_serves_on():
    script = Script("a", "b")
    script.load("a", 1)
    script(RequestArrived("b", 2))
    script.wait(10.5)
    assert script(RequestArrived("a", 3)) == []
    assert script(RequestEnded("b", 2)) == [Grant("a", 3)]
    assert script.wait(50.0) == []


def test_a_client_that_leaves_while_queued_costs_nobody_a_slot():
    script = Script("a", "b")
    script.load("a", 1)
    for request in (2, 3):
        script(RequestArrived("b", request))
    script(RequestEnded("b", 2))
    assert frees(script(RequestEnded("a", 1))) == [("a", False)]
    script(Freed("a"))
    assert script(LoadFinished("b")) == [Grant("b", 3)]


def test_a_loading_model_is_never_the_one_to_go():
    script = Script("a", "b")
    script(RequestArrived("a", 1))
    assert script(RequestArrived("b", 2)) == []
    assert script.wait(50.0) == []
    assert script.residence("a") is Residence.LOADING


def test_a_load_takes_at_most_a_fifth_of_the_time():
    script = Script("a", "b")
    script(RequestArrived("a", 1))
    script.wait(20.0)
    script(LoadFinished("a"))
    script(RequestArrived("b", 2))
    assert script.wait(79.0) == []
    assert frees(script.wait(4.0)) == [("a", True)]


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
    script(LoadFinished("a"))
    script(RequestEnded("a", 1))
    script.wait(5.0)
    script.idle("b", 2)
    assert frees(script(RequestArrived("c", 3))) == [("b", False)]


def test_a_small_model_is_spared_where_a_large_one_has_to_go_anyway():
    small = {"a": Footprint("a", 10, 10)}
    script = Script("a", "b", "c", fit=1.2, footprints=small)
    script.idle("a", 1)
    script.wait(60.0)
    script.idle("b", 2)
    assert frees(script(RequestArrived("c", 3))) == [("b", False)]


def test_kept_state_goes_before_any_model_does():
    script = Script("a", "b", "c", fit=2.1)
    script.idle("a", 1)
    script(UnloadAsked("a", 2))
    script(Freed("a", 50))
    script.idle("b", 3)
    assert script(RequestArrived("c", 4)) == [Forget("a"), StartLoad("c")]


def test_what_is_kept_never_takes_more_than_is_left_while_it_is_saved_and_while_the_next_loads():
    script = Script("a", "b", fit=1.3)
    script.idle("a", 1)
    (free,) = script(RequestArrived("b", 2))
    assert free.keep_bytes == 30
    script(Freed("a", 30))
    assert script.state.used_bytes == 130


def test_models_on_the_same_weights_count_them_once_and_the_first_to_go_frees_only_its_context():
    shared = {name: Footprint("same", 60, 40) for name in "ab"}
    script = Script("a", "b", "c", fit=2.4, footprints=shared)
    script.idle("a", 1)
    script.idle("b", 2)
    assert script.state.used_bytes == 140
    script.load("c", 3)
    assert script.state.used_bytes == 240
    script(UnloadAsked("a", 4))
    script(Freed("a"))
    assert script.state.used_bytes == 200


def test_a_smaller_model_may_load_beside_a_claim_but_never_takes_what_it_waits_for():
    footprints = {"small": Footprint("small", 10, 10), "middle": Footprint("middle", 20, 10)}
    script = Script("a", "b", "small", "middle", fit=1.2, footprints=footprints)
    script.load("a", 1)
    assert script(RequestArrived("b", 2)) == []
    assert script(RequestArrived("middle", 3)) == []
    assert script(RequestArrived("small", 4)) == [StartLoad("small")]


# What cannot be


def test_a_model_that_can_never_fit_is_refused_with_the_numbers_and_nothing_is_evicted_for_it():
    script = Script("a", "huge", fit=1.5, footprints={"huge": Footprint("huge", 400, 100)})
    script.idle("a")
    (refused,) = script(RequestArrived("huge", 2))
    assert isinstance(refused.error, InsufficientMemory)
    assert (refused.error.needed_bytes, refused.error.budget_bytes, refused.error.pinned) == (500, 150, ())
    assert script.residence("a") is Residence.LOADED


def test_where_only_pinned_models_are_in_the_way_the_refusal_names_them_at_once():
    script = Script("a", "b", a={"is_pinned": True})
    script.idle("a")
    (refused,) = script(RequestArrived("b", 2))
    assert isinstance(refused.error, InsufficientMemory)
    assert refused.error.pinned == ("a",)
    assert "beside the pinned a" in str(refused.error)


def test_a_pinned_model_that_is_being_unloaded_on_purpose_is_waited_for():
    script = Script("a", "b", a={"is_pinned": True})
    script.load("a", 1)
    script(UnloadAsked("a", 2))
    assert script(RequestArrived("b", 3)) == []
    script(RequestEnded("a", 1))
    assert script(Freed("a")) == [Complete("a", 2), StartLoad("b")]


# Priorities


def test_waiting_requests_go_by_priority_then_by_arrival():
    script = Script("a", a={"priority": 1})
    script(RequestArrived("a", 1, priority=0))
    script(RequestArrived("a", 2))
    script(RequestArrived("a", 3, priority=9))
    script(RequestArrived("a", 4))
    assert script(LoadFinished("a")) == [Grant("a", 3), Grant("a", 2), Grant("a", 4), Grant("a", 1)]


def test_a_drain_is_a_barrier_that_no_priority_passes():
    script = Script("a")
    script.load("a", 1)
    script(UnloadAsked("a", 2))
    script(RequestArrived("a", 3, priority=100))
    script(RequestEnded("a", 1))
    assert script(Freed("a")) == [Complete("a", 2), StartLoad("a")]


def test_the_model_of_the_most_urgent_request_is_loaded_first():
    script = Script("a", "b", "c")
    script.load("a", 1)
    script(RequestArrived("b", 2))
    script(RequestArrived("c", 3, priority=5))
    script(RequestEnded("a", 1))
    assert script(Freed("a")) == [StartLoad("c")]


def test_a_less_urgent_request_does_not_drive_out_a_more_urgent_one_before_its_patience_is_over():
    script = Script("a", "b")
    script(RequestArrived("a", 1, priority=5))
    script(LoadFinished("a"))
    script(RequestArrived("b", 2))
    assert script.wait(29.0) == []
    assert frees(script.wait(4.0)) == [("a", True)]
    script(RequestSuspended("a", 1, 0))
    script(Freed("a"))
    script(LoadFinished("b"))
    # And the urgent one does not drive it out in its turn before that has had its time.
    assert script.wait(9.9) == []
    assert frees(script.wait(3.0)) == [("b", True)]


# Idleness


def test_an_idle_model_is_unloaded_after_its_time_and_not_while_it_is_used():
    script = Script("a", a={"idle_unload_s": 5.0})
    script.load("a", 1)
    assert script.wait(60.0) == []
    script(RequestEnded("a", 1))
    assert script.wait(4.9) == []
    assert frees(script.wait(0.2)) == [("a", False)]


@pytest.mark.parametrize(("keep_alive_s", "unloaded_after"), [(0.0, 0.0), (7.0, 7.0), (math.inf, None), (None, 5.0)])
def test_a_request_says_how_long_its_model_stays(keep_alive_s, unloaded_after):
    script = Script("a", a={"idle_unload_s": 5.0})
    script(RequestArrived("a", 1, keep_alive_s=keep_alive_s))
    script(LoadFinished("a"))
    began = script.state.now
    effects = script(RequestEnded("a", 1))
    while not frees(effects) and script.state.due_at < math.inf:
        effects = script(Tick(script.state.due_at))
    assert (script.state.now - began if frees(effects) else None) == unloaded_after


def test_a_pinned_model_does_not_go_for_being_idle():
    script = Script("a", a={"is_pinned": True})
    script(RequestArrived("a", 1, keep_alive_s=0.0))
    script(LoadFinished("a"))
    assert script(RequestEnded("a", 1)) == []
    assert script.state.due_at == math.inf


# Changes of configuration


def test_a_retired_model_serves_those_who_have_it_and_is_forgotten():
    script = Script("a", a={"is_pinned": True})
    script.load("a", 1)
    assert script(ModelRetired("a")) == []
    assert frees(script(RequestEnded("a", 1))) == [("a", False)]
    assert script(Freed("a", 10)) == [Forget("a"), Remove("a")]
    assert script.state.models == {}
    assert script.state.active == frozenset()


def test_a_retired_model_that_is_not_loaded_is_forgotten_at_once_and_makes_room_before_all_others():
    script = Script("a", "b", "c", fit=2)
    assert script(ModelRetired("c")) == [Remove("c")]
    script.load("a", 1)
    script.idle("b", 2)
    script(ModelRetired("a"))
    script(ModelAdded("d", Traits("d", 8)))
    script(RequestArrived("d", 3))
    assert frees(script(Sized("d", Footprint("d", 100, 60)))) == []
    assert script.model("a").yields_since is not None


def test_new_traits_hold_from_now_on():
    script = Script("a")
    script.idle("a", 1)
    traits = replace(script.model("a").traits, idle_unload_s=3.0)
    assert script(ModelRetuned("a", traits)) == []
    assert frees(script.wait(3.1)) == [("a", False)]


def test_a_budget_that_shrinks_takes_kept_state_then_idle_models_and_leaves_those_that_serve():
    script = Script("a", "b", "c", fit=4)
    script.load("a", 1)
    script.idle("b", 2)
    script.idle("c", 3)
    script(UnloadAsked("c", 4))
    script(Freed("c", 50))
    effects = script(BudgetChanged(BIG))
    assert effects[0] == Forget("c")
    assert frees(effects) == [("b", False)]
    script(Freed("b"))
    assert script(RequestArrived("a", 5)) == [Grant("a", 5)]


# The end


def test_closing_refuses_all_who_wait_and_frees_everything_that_is_there_or_coming():
    script = Script("a", "b", "c", "d", fit=4)
    script.load("a", 1)
    script(RequestArrived("b", 2))
    script.idle("c", 3)
    script(UnloadAsked("c", 4))
    script(ModelAdded("e", Traits("e", 8)))
    script(ReloadAsked("e", 5))
    effects = script(CloseAsked())
    assert sorted(refusals(effects)) == [(2, ShuttingDown), (4, ShuttingDown), (5, ShuttingDown)]
    assert sorted(frees(effects)) == [("a", False), ("b", False), ("e", False)]
    for event in (RequestArrived("a", 6), ReloadAsked("a", 7), UnloadAsked("d", 8)):
        assert [error for _, error in refusals(script(event))] == [ShuttingDown]
    assert script(LoadFinished("b")) == []
    assert script(RequestEnded("a", 1)) == []
    for name in "abce":
        assert script(Freed(name)) == []
    assert script.state.used_bytes == 0
