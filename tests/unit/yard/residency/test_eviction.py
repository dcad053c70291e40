"""Models that do not fit at the same time: which one is evicted for which, and when."""

from __future__ import annotations

import pytest

from modelyard.errors import InsufficientMemory
from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.residency.effects import Complete, DiscardKept, Free, Grant, Remove, StartLoad
from modelyard.yard.residency.events import (
    BudgetChanged,
    EngineFreed,
    EngineLoaded,
    EngineLoadFailed,
    ModelRetired,
    ReloadAsked,
    RequestArrived,
    RequestEnded,
    RequestSuspended,
    Tick,
    UnloadAsked,
)
from modelyard.yard.residency.state import LoadState
from modelyard.yard.residency.waiting import UnloadMode
from support.simulation.script import BIG, Script, frees, refusals

SUSPEND, FORCE = UnloadMode.SUSPEND, UnloadMode.FORCE


# Models that do not fit at the same time


def test_an_idle_model_makes_room_at_once_and_no_request_brings_it_back_meanwhile():
    script = Script("a", "b")
    script.idle("a")
    assert frees(script(RequestArrived("b", 2))) == [("a", False)]
    assert script(RequestArrived("a", 3)) == []
    assert script(EngineFreed("a")) == [StartLoad("b")]
    assert script(EngineLoaded("b")) == [Grant("b", 2)]
    assert frees(script(RequestEnded("b", 2))) == [("b", False)]
    assert script(EngineFreed("b")) == [StartLoad("a")]
    assert script(EngineLoaded("a")) == [Grant("a", 3)]


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
        assert script(EngineFreed(there)) == [StartLoad(gone)]
        effects = script(EngineLoaded(gone))
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


def test_a_client_that_leaves_while_queued_takes_no_lease():
    script = Script("a", "b")
    script.load("a", 1)
    for request in (2, 3):
        script(RequestArrived("b", request))
    script(RequestEnded("b", 2))
    assert frees(script(RequestEnded("a", 1))) == [("a", False)]
    script(EngineFreed("a"))
    assert script(EngineLoaded("b")) == [Grant("b", 3)]


def test_a_loading_model_is_never_the_one_to_go():
    script = Script("a", "b")
    script(RequestArrived("a", 1))
    assert script(RequestArrived("b", 2)) == []
    assert script.wait(50.0) == []
    assert script.load_state("a") is LoadState.LOADING


def test_a_load_takes_at_most_a_fifth_of_the_time():
    script = Script("a", "b")
    script(RequestArrived("a", 1))
    script.wait(20.0)
    script(EngineLoaded("a"))
    script(RequestArrived("b", 2))
    assert script.wait(79.0) == []
    assert frees(script.wait(4.0)) == [("a", True)]


def test_a_load_that_fails_after_an_eviction_leaves_the_way_back_open():
    script = Script("a", "b")
    script.idle("a")
    assert frees(script(RequestArrived("b", 2))) == [("a", False)]
    assert script(EngineFreed("a")) == [StartLoad("b")]
    script(EngineLoadFailed("b", "bad"))
    script.load("a", 3)


@pytest.mark.parametrize("seconds_between", [0.5, 3.0])
def test_two_models_with_endless_streams_of_requests_swap_within_bounds_and_all_are_served(seconds_between):
    script = Script("a", "b", max_requests=1000)
    arrived, granted, swaps, outcomes = {}, {}, 0, []
    number, next_arrival = 0, 0.0
    while script.state.now < 300.0:
        now = min(next_arrival, script.state.due_at, *(at for at, _ in outcomes))
        events = [Tick(now)]
        if now == next_arrival and now < 200.0:
            number, next_arrival = number + 1, now + seconds_between
            arrived[number] = now
            events.append(RequestArrived("ab"[number % 2], number))
        elif now == next_arrival:
            next_arrival = 300.0
        events += [event for at, event in outcomes if at == now]
        outcomes = [(at, event) for at, event in outcomes if at != now]
        for effect in [effect for event in events for effect in script(event)]:
            match effect:
                case StartLoad(model):
                    swaps += 1
                    outcomes.append((now + 2.0, EngineLoaded(model)))
                case Free(model):
                    leases = script.model(model).leases
                    outcomes += [(now + 1.0, RequestSuspended(model, request, 0)) for request in leases]
                    outcomes.append((now + 1.5, EngineFreed(model)))
                case Grant(model, request):
                    granted.setdefault(request, now)
                    outcomes.append((now + 1.0, RequestEnded(model, request)))
    assert granted.keys() == arrived.keys()
    # A turn of the other model: its load, its time, its yielding, its free; then the own load.
    assert max(granted[request] - arrived[request] for request in arrived) <= 2.0 + 10.0 + 2.0 + 1.5 + 2.0
    # 200 s of requests; where they come faster than answers end, a model has its time before it goes.
    assert swaps <= (20 if seconds_between < 1.0 else 70)


def test_of_models_that_wait_the_one_that_loads_soonest_for_each_of_its_requests_goes_first():
    sizes = {"large": Footprint("large", 2_000_000_000, 0), "small": Footprint("small", 500_000_000, 0)}
    script = Script(
        "a", "large", "small", "other", fit=2.1e7, footprints={**sizes, "a": Footprint("a", 2_000_000_000, 0)}
    )
    script.load("a", 1)
    script(RequestArrived("large", 2))
    script(RequestArrived("small", 3))
    script(RequestEnded("a", 1))
    assert script(EngineFreed("a")) == [StartLoad("small")]
    # Many requests for one model outweigh its load.
    script = Script(
        "a", "large", "small", "other", fit=2.1e7, footprints={**sizes, "a": Footprint("a", 2_000_000_000, 0)}
    )
    script.load("a", 1)
    for request in range(2, 6):
        script(RequestArrived("large", request))
    script(RequestArrived("small", 6))
    script(RequestEnded("a", 1))
    assert script(EngineFreed("a")) == [StartLoad("large")]


def test_requests_behind_an_unload_do_not_stand_for_their_model():
    """A load would not serve them, and so the model would take memory that serves more requests elsewhere."""
    script = Script("a", "b", "c")
    script.load("c", 1)
    script(RequestArrived("a", 2))
    script(UnloadAsked("a", 3))
    for request in range(4, 8):
        script(RequestArrived("a", request))
    for request in (8, 9):
        script(RequestArrived("b", request))
    script(RequestEnded("c", 1))
    assert script(EngineFreed("c")) == [StartLoad("b")]


def test_a_load_that_is_dear_is_not_put_off_for_longer_than_the_patience():
    bytes_of = {"a": 2_000_000_000, "large": 2_000_000_000, "small": 500_000_000}
    sizes = {name: Footprint(name, size, 0) for name, size in bytes_of.items()}
    script = Script("a", "large", "small", fit=2.1e7, footprints=sizes)
    script.load("a", 1)
    script(UnloadAsked("a", 2))
    script(RequestArrived("large", 3))
    script.wait(30.0)
    script(RequestArrived("small", 4))
    script(RequestEnded("a", 1))
    assert script(EngineFreed("a")) == [Complete("a", 2), StartLoad("large")]


def test_a_busy_model_that_goes_is_not_brought_back_by_requests_that_arrive_while_it_goes():
    script = Script("a", "b")
    script.load("a", 1)
    script(RequestArrived("b", 2))
    assert frees(script.wait(12.5)) == [("a", True)]
    assert script(RequestArrived("a", 3)) == []
    assert script.suspended("a") == [StartLoad("b")]
    assert script(RequestArrived("a", 4)) == []
    assert script(EngineLoaded("b")) == [Grant("b", 2)]
    assert frees(script(RequestEnded("b", 2))) == [("b", False)]
    script(EngineFreed("b"))
    assert script(EngineLoaded("a")) == [Grant("a", 1), Grant("a", 3), Grant("a", 4)]


def test_a_model_that_made_room_for_one_who_left_serves_its_own_before_it_makes_room_for_a_younger_one():
    script = Script("a", "b", "c")
    script.load("a", 1)
    script(RequestArrived("b", 2))
    script.wait(11.0)
    assert script(RequestArrived("a", 3)) == []
    assert script(RequestArrived("c", 4)) == []
    # It would be back before the younger one had its turn, and the swap would be for nothing.
    assert script(RequestEnded("b", 2)) == [Grant("a", 3)]
    assert script.wait(1.9) == []
    assert frees(script.wait(0.2)) == [("a", True)]
    assert script.suspended("a") == [StartLoad("c")]


def test_of_several_busy_models_that_have_to_go_none_goes_before_all_may():
    script = Script("a", "b", "huge", fit=2, footprints={"huge": Footprint("huge", 120, 80)})
    script.load("a", 1)
    script.wait(9.0)
    script.load("b", 2)
    script(RequestArrived("huge", 3))
    assert script.wait(9.9) == []
    assert script(RequestArrived("a", 4)) == [Grant("a", 4)]
    assert sorted(frees(script.wait(2.2))) == [("a", True), ("b", True)]


def test_of_equal_models_it_does_not_depend_on_the_process_which_goes():
    names = [f"m{number:02}" for number in range(12)]
    script = Script(*names, "huge", fit=12, footprints={"huge": Footprint("huge", 1000, 200)})
    for number, name in enumerate(names):
        script.idle(name, number)
    assert frees(script(RequestArrived("huge", 99))) == [(name, False) for name in names]


# What can never be


def test_a_model_that_can_never_fit_is_refused_with_the_numbers_and_nothing_is_evicted_for_it():
    script = Script("a", "huge", fit=1.5, footprints={"huge": Footprint("huge", 400, 100)})
    script.idle("a")
    (refused,) = script(RequestArrived("huge", 2))
    assert isinstance(refused.error, InsufficientMemory)
    assert (refused.error.needed_bytes, refused.error.budget_bytes, refused.error.pinned) == (500, 150, ())
    assert script.load_state("a") is LoadState.LOADED


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
    assert script(EngineFreed("a")) == [Complete("a", 2), StartLoad("b")]


def test_a_pinned_load_that_leaves_no_room_for_a_waiting_one_refuses_it_at_once():
    pinned = {"is_pinned": True}
    small = {"a": Footprint("a", 50, 10), "small": Footprint("small", 20, 10)}
    script = Script("a", "b", "small", footprints=small, small=pinned, a={"priority": 5})
    script.load("a", 1)
    assert script(RequestArrived("b", 2)) == []
    effects = script(RequestArrived("small", 3))
    assert effects[0] == StartLoad("small")
    assert refusals(effects) == [(2, InsufficientMemory)]


# Memory


def test_kept_state_goes_before_any_model_does():
    script = Script("a", "b", "c", fit=2.1)
    script.idle("a", 1)
    script(UnloadAsked("a", 2))
    script(EngineFreed("a", 50))
    script.idle("b", 3)
    assert script(RequestArrived("c", 4)) == [DiscardKept("a"), StartLoad("c")]


def test_models_on_the_same_weights_count_them_once_and_the_first_to_go_frees_only_its_context():
    shared = {name: Footprint("same", 60, 40) for name in "ab"}
    script = Script("a", "b", "c", fit=2.4, footprints=shared)
    script.idle("a", 1)
    script.idle("b", 2)
    assert script.state.used_bytes == 140
    script.load("c", 3)
    assert script.state.used_bytes == 240
    script(UnloadAsked("a", 4))
    script(EngineFreed("a"))
    assert script.state.used_bytes == 200


def test_a_budget_that_shrinks_takes_kept_state_then_idle_models_and_leaves_those_that_serve():
    script = Script("a", "b", "c", fit=4)
    script.load("a", 1)
    script.idle("b", 2)
    script.idle("c", 3)
    script(UnloadAsked("c", 4))
    script(EngineFreed("c", 50))
    effects = script(BudgetChanged(BIG))
    assert effects[0] == DiscardKept("c")
    assert frees(effects) == [("b", False)]
    script(EngineFreed("b"))
    assert script(RequestArrived("a", 5)) == [Grant("a", 5)]


def test_a_budget_that_is_met_when_those_that_go_are_gone_costs_no_other_its_place():
    script = Script("a", "b", fit=2)
    script.idle("a", 1)
    script.idle("b", 2)
    script(UnloadAsked("a", 3))
    assert script(BudgetChanged(BIG)) == []
    script(EngineFreed("a"))
    assert script.load_state("b") is LoadState.LOADED


def test_what_suspended_requests_hold_counts_also_while_their_model_is_freed_again():
    script = Script("a", fit=1.2)
    script.load("a", 1)
    script(UnloadAsked("a", 2, SUSPEND))
    script.suspended("a", kept_bytes=10)
    script(ReloadAsked("a", 3))
    script(UnloadAsked("a", 4, SUSPEND))
    (free,) = script(EngineLoaded("a"))
    assert free.keep_bytes == 10
    assert script.state.used_bytes == 120
    # And it is there for the reload, which stands behind the unload.
    assert script(EngineFreed("a", 5)) == [Complete("a", 4), StartLoad("a")]
    assert script.state.used_bytes == 115


def test_what_a_request_holds_is_of_what_was_promised_and_counts_once():
    script = Script("a", fit=1.2)
    script.load("a", 1)
    script(UnloadAsked("a", 2, SUSPEND))
    assert script.state.used_bytes == 120
    script(RequestSuspended("a", 1, 15))
    assert script.state.used_bytes == 120
    script(RequestEnded("a", 1))
    assert script.state.used_bytes == 105
    script(EngineFreed("a", 5))
    assert script.state.used_bytes == 5


def test_one_of_two_models_on_the_same_weights_gives_up_no_more_than_its_context():
    shared = {name: Footprint("same", 60, 40) for name in "ab"}
    script = Script("a", "b", "c", fit=1.4, footprints=shared | {"c": Footprint("c", 30, 10)})
    script.idle("a", 1)
    script.idle("b", 2)
    assert frees(script(RequestArrived("c", 3))) == [("a", False)]
    assert script(EngineFreed("a")) == [StartLoad("c")]


def test_what_a_model_may_keep_while_it_goes_costs_no_other_its_place():
    script = Script("a", "b", "c", fit=2.6, footprints={"c": Footprint("c", 100, 50)})
    script.idle("a", 1)
    script.wait(5.0)
    script.idle("b", 2)
    (free,) = script(UnloadAsked("b", 3))
    assert free.keep_bytes == 60
    assert script(RequestArrived("c", 4)) == []
    assert script(EngineFreed("b", 60)) == [Complete("b", 3), DiscardKept("b"), StartLoad("c")]
    assert script.load_state("a") is LoadState.LOADED


def test_of_kept_state_the_one_used_longest_ago_goes_first_and_that_of_the_model_itself_last():
    script = Script("c", "b", "a", fit=1.4)
    for number, name in enumerate("cba"):
        script.idle(name, number)
        script(UnloadAsked(name, 10 + number))
        script(EngineFreed(name, 20))
        script.wait(1.0)
    # 140, of which 60 are kept: 100 fit when one is forgotten, and it is not its own, though that is the oldest.
    assert script(RequestArrived("c", 20)) == [DiscardKept("b"), StartLoad("c")]


def test_what_a_retired_model_kept_is_given_at_once_to_whom_it_was_missing():
    script = Script("a", "b", "c", fit=2.6, footprints={"b": Footprint("b", 100, 50)})
    script.load("a", 1)
    script.idle("c", 2)
    script(ModelRetired("a"))
    (free,) = script(RequestEnded("a", 1))
    script(UnloadAsked("c", 3))
    assert script(RequestArrived("b", 4)) == []
    # Nobody waits for the memory of the other model, which is on its way too.
    assert script(EngineFreed("a", free.keep_bytes)) == [DiscardKept("a"), Remove("a"), StartLoad("b")]
