"""What listings and plans say of a model."""

import pytest

from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.residency.policy import ModelPolicy
from modelyard.yard.residency.state import LoadState, ModelState, Residency
from modelyard.yard.residency.waiting import Waiter, WaitKind
from modelyard.yard.stats.status import KEPT, STATUS, Eviction, Plan, after_death, memory_of, plan, stage

NOW = 1000.0


def model(name, load_state=LoadState.UNLOADED, *, footprint=(60, 40), weights=None, pinned=False, **fields):
    """A model, and the footprint that it has; its weights are its own unless they are named."""
    if footprint is not None:
        fields["footprint"] = Footprint(weights or name, *footprint)
    return name, ModelState(ModelPolicy(f"the {name}", 8, is_pinned=pinned), load_state, **fields)


def loaded(name, **fields):
    return model(name, LoadState.LOADED, **fields)


def busy(name, **fields):
    return loaded(name, leases={1: 0}, **fields)


def yard(*models, budget=100):
    """A state in which everything is active that is not at rest."""
    models = dict(models)
    active = frozenset(name for name, state in models.items() if not state.is_at_rest)
    return Residency(models, budget, now=NOW, active=active)


def waiter(want=WaitKind.LEASE, **fields):
    return Waiter(want, 7, 1, NOW, NOW + 100, **fields)


# Residence


def test_every_residence_has_a_status():
    assert STATUS.keys() == set(LoadState)


def test_only_a_model_that_serves_is_listed_as_loaded():
    assert [load_state for load_state, status in STATUS.items() if status == "loaded"] == [LoadState.LOADED]


# Memory


def test_a_model_whose_files_were_not_looked_at_has_no_size():
    assert memory_of(yard(model("a", footprint=None)), "a") == (None, 0, 0)


@pytest.mark.parametrize(
    ("load_state", "resident"),
    [
        (LoadState.UNLOADED, 0),
        (LoadState.SIZING, 0),
        (LoadState.FAILED, 0),
        (LoadState.LOADING, 100),
        (LoadState.LOADED, 100),
        (LoadState.FREEING, 100),
        (LoadState.PARKED, 60),
    ],
)
def test_a_model_alone_takes_what_its_state_holds_and_shares_nothing(load_state, resident):
    assert memory_of(yard(model("a", load_state)), "a") == (100, resident, 0)


def test_weights_that_another_loaded_model_uses_are_shared_from_both_sides():
    state = yard(loaded("a", weights="w", footprint=(60, 40)), loaded("b", weights="w", footprint=(60, 10)))
    assert memory_of(state, "a") == (100, 100, 60)
    assert memory_of(state, "b") == (70, 70, 60)


def test_nothing_is_shared_with_other_weights():
    assert memory_of(yard(loaded("a"), loaded("b")), "a") == (100, 100, 0)


def test_nothing_is_shared_with_or_by_a_model_that_is_not_there():
    state = yard(loaded("a", weights="w"), model("b", weights="w"))
    assert memory_of(state, "a") == (100, 100, 0)
    assert memory_of(state, "b") == (100, 0, 0)


def test_a_model_that_is_not_looked_at_yet_shares_nothing():
    state = yard(loaded("a"), model("b", LoadState.SIZING, footprint=None))
    assert memory_of(state, "a") == (100, 100, 0)
    assert memory_of(state, "b") == (None, 0, 0)


# Plans


def test_a_model_that_fits_evicts_none():
    state = yard(loaded("a"), model("b", load_s=3.0), budget=250)
    assert plan(state, "b") == Plan("the b", "fits", 100, 150, 250, (), 3.0)


def test_a_model_that_is_there_needs_no_load():
    planned = plan(yard(loaded("a", load_s=3.0)), "a")
    assert (planned.outcome, planned.evicts, planned.load_s) == ("loaded", (), 0.0)


def test_a_model_that_is_coming_is_not_planned_again():
    planned = plan(yard(model("a", LoadState.LOADING, load_s=3.0), loaded("b"), budget=100), "a")
    assert (planned.outcome, planned.evicts, planned.load_s) == ("loading", (), 3.0)


def test_an_idle_model_would_be_evicted_with_its_idle_time_and_its_load_time():
    state = yard(loaded("a", last_used=NOW - 42, load_s=1.5), model("b"))
    planned = plan(state, "b")
    assert (planned.outcome, planned.free_bytes) == ("evicts", 0)
    assert planned.evicts == (Eviction("the a", 100, "idle for 42 s, back in about 1.5 s"),)


def test_no_more_would_go_than_is_needed():
    state = yard(loaded("a", last_used=NOW - 5), loaded("b", last_used=NOW - 50), model("c"), budget=200)
    assert [eviction.model for eviction in plan(state, "c").evicts] == ["the b"]


def test_a_busy_model_pauses_its_requests():
    planned = plan(yard(busy("a"), model("b")), "b")
    assert planned.outcome == "waits"
    assert planned.evicts == (Eviction("the a", 100, "is busy; its requests pause until it is back"),)


def test_a_model_that_is_going_anyway_is_waited_for():
    planned = plan(yard(model("a", LoadState.FREEING), model("b")), "b")
    assert planned.outcome == "waits"
    assert planned.evicts == (Eviction("the a", 100, "is being unloaded already"),)


def test_kept_prompts_are_dropped_before_a_model_goes():
    state = yard(loaded("a"), model("b", prefix_bytes=20), model("c"), budget=200)
    planned = plan(state, "c")
    assert planned.outcome == "evicts"
    assert planned.evicts == (Eviction("the b", 20, KEPT),)
    assert planned.free_bytes == 80


def test_everything_that_would_go_is_named_in_the_order_of_its_cost():
    state = yard(
        busy("a"), loaded("b"), model("c", LoadState.FREEING), model("d", prefix_bytes=7), model("e"), budget=307
    )
    state = state._replace(models={**state.models, **dict([model("e", footprint=(260, 40))])})
    planned = plan(state, "e")
    assert (planned.outcome, planned.needed_bytes, planned.free_bytes) == ("waits", 300, 0)
    assert [eviction.model for eviction in planned.evicts] == ["the b", "the a", "the c"]
    state = state._replace(budget_bytes=300)
    assert [eviction.model for eviction in plan(state, "e").evicts] == ["the d", "the b", "the a", "the c"]


def test_of_weights_that_stay_in_use_only_the_context_comes_back():
    state = yard(
        loaded("a", weights="w", pinned=True), loaded("b", weights="w"), model("c", footprint=(30, 10)), budget=140
    )
    planned = plan(state, "c")
    assert [(eviction.model, eviction.bytes) for eviction in planned.evicts] == [("the b", 40)]


def test_weights_that_several_have_come_back_with_the_last_that_goes():
    state = yard(loaded("a", weights="w"), loaded("b", weights="w"), model("c", footprint=(130, 10)), budget=140)
    planned = plan(state, "c")
    assert [eviction.bytes for eviction in planned.evicts] == [40, 100]


def test_weights_that_are_there_already_are_not_needed_again():
    state = yard(loaded("a", weights="w"), model("b", weights="w"), budget=150)
    planned = plan(state, "b")
    assert (planned.outcome, planned.needed_bytes, planned.free_bytes) == ("fits", 40, 50)


def test_weights_that_are_to_be_used_again_stay_and_are_not_needed_again():
    state = yard(loaded("a", weights="w"), loaded("b"), model("c", weights="w"), budget=200)
    state = state._replace(budget_bytes=100)
    planned = plan(state, "c")
    assert [(eviction.model, eviction.bytes) for eviction in planned.evicts] == [("the a", 40), ("the b", 100)]
    assert planned.evicts[0].why.endswith("; its weights stay")
    assert planned.needed_bytes == 40


def test_parked_weights_go_first_and_of_its_own_a_model_makes_use():
    state = yard(model("a", LoadState.PARKED), loaded("b"), model("c"), budget=200)
    planned = plan(state, "c")
    assert [(eviction.model, eviction.bytes) for eviction in planned.evicts] == [("the a", 60)]
    assert planned.evicts[0].why == "is parked; its weights go"
    woken = plan(state, "a")
    assert (woken.outcome, woken.needed_bytes, woken.evicts) == ("fits", 40, ())


def test_beside_what_is_pinned_a_model_may_never_fit():
    planned = plan(yard(loaded("a", pinned=True), model("b")), "b")
    assert (planned.outcome, planned.evicts) == ("never", ())


def test_a_model_that_is_larger_than_the_budget_never_fits_and_evicts_none():
    planned = plan(yard(loaded("a"), model("b", footprint=(100, 1))), "b")
    assert (planned.outcome, planned.evicts, planned.needed_bytes) == ("never", (), 101)


def test_behind_a_load_nothing_goes_yet():
    planned = plan(yard(model("a", LoadState.LOADING), model("b")), "b")
    assert (planned.outcome, planned.evicts) == ("waits", ())


def test_free_memory_is_never_below_nothing():
    assert plan(yard(loaded("a"), model("b", footprint=(1, 1)), budget=50), "b").free_bytes == 0


def test_a_load_that_was_never_measured_is_guessed_from_the_size_of_the_weights():
    small, large = (plan(yard(model("a", footprint=(size, 0)), budget=10**12), "a") for size in (0, 10**10))
    assert 0 < small.load_s < large.load_s


def test_a_plan_changes_nothing():
    state = yard(loaded("a"), model("b"))
    assert plan(state, "b") == plan(state, "b")
    assert state == yard(loaded("a"), model("b"))


# What a request waits for


@pytest.mark.parametrize(
    ("load_state", "words"),
    [
        (LoadState.SIZING, "reading files"),
        (LoadState.LOADING, "loading 42%"),
        (LoadState.LOADED, ""),
        (LoadState.FREEING, "unloading"),
    ],
)
def test_the_stage_of_a_request_is_what_its_model_does(load_state, words):
    assert stage(yard(model("a", load_state)), "a", 0.42) == words


def test_the_stage_after_the_death_of_an_engine_is_that_the_model_starts_again():
    assert stage(yard(model("a", LoadState.FREEING, was_serving=True)), "a", 0.0) == "starting again"


@pytest.mark.parametrize(("progress", "words"), [(0.0, "loading 0%"), (1.0, "loading 100%")])
def test_progress_is_shown_in_whole_percents(progress, words):
    assert stage(yard(model("a", LoadState.LOADING)), "a", progress) == words


def test_only_a_model_that_yields_makes_room():
    assert stage(yard(busy("a", makes_room_since=NOW)), "a", 0.0) == "making room"
    assert stage(yard(busy("a")), "a", 0.0) == ""


@pytest.mark.parametrize("load_state", [LoadState.UNLOADED, LoadState.FAILED])
def test_the_queue_of_a_model_that_is_not_loaded_waits_for_memory(load_state):
    assert stage(yard(model("a", load_state, queue=(waiter(),))), "a", 0.0) == "waiting for memory"


@pytest.mark.parametrize(
    "line",
    [(), (waiter(does_not_trigger_load=True),), (waiter(WaitKind.UNLOAD), waiter())],
    ids=["nobody", "only parked ones", "an unload first"],
)
def test_without_a_waiter_that_triggers_a_load_a_request_waits_for_its_model(line):
    assert stage(yard(model("a", queue=line)), "a", 0.0) == "waiting for its model"


# Deaths


@pytest.mark.parametrize(
    ("line", "planned"),
    [
        ((), "it is started again when it is asked for"),
        ((waiter(WaitKind.RESUME, does_not_trigger_load=True),), "it is started again when it is asked for"),
        ((waiter(WaitKind.LOAD),), "starting it again, 0 requests go on"),
        ((waiter(WaitKind.RESUME), waiter()), "starting it again, 1 request goes on"),
        ((waiter(WaitKind.RESUME), waiter(WaitKind.RESUME)), "starting it again, 2 requests go on"),
    ],
)
def test_the_log_has_what_follows_from_a_death(line, planned):
    _, died = model("a", LoadState.FAILED, queue=line, retry_at=NOW)
    assert after_death(yard(("a", died)), died) == planned


def test_the_log_says_for_how_long_a_model_is_given_up():
    _, died = model("a", LoadState.FAILED, deaths_in_row=5, retry_at=NOW + 4.0)
    assert after_death(yard(("a", died)), died) == ("death 5 in a row, it is not started again before 4 s have passed")
