"""Machines that break a rule, each of which the simulation has to notice."""

from __future__ import annotations

import contextlib
import math
from dataclasses import replace
from itertools import chain

import pytest

from modelyard.protocol.placement import Placement
from modelyard.yard.residency import allocation, eviction, failures, reconcile, room, step, transitions
from modelyard.yard.residency.builder import StateBuilder
from modelyard.yard.residency.effects import (
    Abort,
    Blame,
    Complete,
    ComputeFootprint,
    DiscardKept,
    Free,
    Grant,
    Reject,
    StartLoad,
)
from modelyard.yard.residency.events import (
    DeviceBudgetsChanged,
    EngineDied,
    EngineDying,
    EngineLoaded,
    EngineLoadFailed,
    FilesReplaced,
    FilesWrittenOver,
    RequestEnded,
    RequestSuspended,
    Tick,
    WeightsLost,
)
from modelyard.yard.residency.state import LoadState, ModelState
from support.simulation import Violation, World, actions, run, world_of

MAX_TO_CATCH = 400


def test_a_violation_tells_the_seed_the_invariant_the_last_events_and_the_state():
    violation = first_violation(lambda seed: run(seed, grants_twice))
    text = str(violation)
    assert text.startswith(f"seed {violation.seed}: {violation.invariant}: ")
    for part in ("Grant(model=", "  state: budget ", "  world: at "):
        assert part in text
    # It is a function of the seed.
    with pytest.raises(Violation) as again:
        run(violation.seed, grants_twice)
    assert str(again.value) == text


def first_violation(play):
    """The violation of the first seed that has one."""
    for seed in range(MAX_TO_CATCH):
        try:
            play(seed)
        except Violation as violation:
            return violation
    return pytest.fail(f"{MAX_TO_CATCH} seeds have no violation")


# Machines that are broken, to see that the simulator notices.


def twice(kind):
    """A machine that has effects of a kind done twice."""

    def broken(state, event):
        after, effects = step(state, event)
        return after, list(chain.from_iterable([effect] * (1 + isinstance(effect, kind)) for effect in effects))

    return broken


def never(kind):
    """A machine that loses effects of a kind."""

    def broken(state, event):
        after, effects = step(state, event)
        return after, [effect for effect in effects if not isinstance(effect, kind)]

    return broken


def knowing(**settings):
    """A machine that goes by another policy."""

    def broken(state, event):
        after, effects = step(state._replace(policy=replace(state.policy, **settings)), event)
        return after._replace(policy=state.policy), effects

    return broken


grants_twice = twice(Grant)


def knows_no_budget(state, event):
    after, effects = step(state._replace(budget_bytes=10**9), event)
    return after._replace(budget_bytes=state.budget_bytes), effects


def knows_no_pins(state, event):
    unpinned = {
        name: model._replace(policy=replace(model.policy, is_pinned=False)) for name, model in state.models.items()
    }
    return step(state._replace(models=unpinned), event)


def frees_what_is_pinned(state, event):
    after, effects = step(state, event)
    pinned = [n for n, m in after.models.items() if m.load_state is LoadState.LOADED and m.policy.is_pinned]
    return after, [*effects, *(Free(name, True, 0, "why not") for name in pinned[:1])]


def frees_what_loads(state, event):
    after, effects = step(state, event)
    loading = [name for name, model in after.models.items() if model.load_state is LoadState.LOADING]
    return after, [*effects, *(Free(name, True, 0, "why not") for name in loading[:1])]


def knows_no_time(state, event):
    after, effects = step(state, event)
    return after._replace(due_at=math.inf), effects


def is_always_due(state, event):
    after, effects = step(state, event)
    return after._replace(due_at=after.now), effects


def is_due_late(state, event):
    after, effects = step(state, event)
    return after._replace(due_at=after.due_at + 5.0), effects


def acts_before_it_is_due(state, event):
    return step(state, Tick(event.now + 3.0) if isinstance(event, Tick) else event)


def forgets_who_is_active(state, event):
    after, effects = step(state, event)
    return after._replace(active=frozenset()), effects


def kills_instead_of_suspending(state, event):
    after, effects = step(state, event)
    return after, [replace(effect, suspends=False) if isinstance(effect, Free) else effect for effect in effects]


def keeps_more_than_there_is_room_for(state, event):
    after, effects = step(state, event)
    return after, [replace(e, keep_bytes=e.keep_bytes + 50) if isinstance(e, Free) else e for e in effects]


def takes_failures_out_on_others(state, event):
    after, effects = step(state, event)
    if isinstance(event, EngineLoadFailed):
        after, more = step(after, EngineLoadFailed(min(after.models), "contagion"))
        effects = [*effects, *more]
    return after, effects


def goes_on_with_an_engine_that_dies(state, event):
    return (state, []) if isinstance(event, EngineDying) else step(state, event)


def keeps_quiet_about_an_engine_that_dies(state, event):
    return step(state, replace(event, reason="") if isinstance(event, EngineDying) else event)


def takes_a_dying_engine_for_a_dead_one(state, event):
    return step(state, EngineDied(event.model, event.reason) if isinstance(event, EngineDying) else event)


def gives_up_at_the_first_death(state, event):
    return step(state, EngineLoadFailed(event.model, event.reason) if isinstance(event, EngineDied) else event)


def blames_at_the_first_death(state, event):
    if isinstance(event, EngineDying):
        models = {n: m._replace(suspects=frozenset(m.leases)) for n, m in state.models.items()}
        state = state._replace(models=models)
    return step(state, event)


def computes_suspects_beside_others(state, event):
    after, effects = step(state, event)
    return after, [replace(effect, alone=False) if isinstance(effect, Grant) else effect for effect in effects]


def refuses_no_content(state, event):
    after, effects = step(state, event)
    return after._replace(poison={}), effects


def believes_in_weights_that_are_lost(state, event):
    return (state, []) if isinstance(event, WeightsLost) else step(state, event)


def serves_on_with_what_was_written_over(state, event):
    return (state, []) if isinstance(event, FilesWrittenOver) else step(state, event)


def parks_what_was_written_over(state, event):
    after, effects = step(state, event)
    return after, [replace(e, keeps_weights=True) if isinstance(e, Free) else e for e in effects]


def takes_replaced_files_for_a_failure(state, event):
    return step(state, EngineLoadFailed(event.model, "replaced") if isinstance(event, FilesReplaced) else event)


def grants_after_the_end(state, event):
    after, effects = step(state, event)
    if isinstance(event, RequestEnded):
        effects = [*effects, Grant(event.model, event.request)]
    return after, effects


def loses_what_is_suspended(state, event):
    return step(state, RequestEnded(event.model, event.request) if isinstance(event, RequestSuspended) else event)


def changes_what_it_is_given(state, event):
    after, effects = step(state, event)
    if isinstance(event, EngineLoaded):
        state.models.update(after.models)
    return after, effects


def knows_no_budget_of_devices(state, event):
    after, effects = step(state._replace(device_budgets=dict.fromkeys(state.device_budgets, 10**9)), event)
    return after._replace(device_budgets=state.device_budgets), effects


def ignores_devices_that_change(state, event):
    if isinstance(event, DeviceBudgetsChanged):
        return state._replace(device_budgets=event.budgets), []
    return step(state, event)


def loads_elsewhere(state, event):
    after, effects = step(state, event)
    elsewhere = Placement(devices=("nowhere",))
    return after, [replace(e, placement=elsewhere) if isinstance(e, StartLoad) else e for e in effects]


def frees_for_budgets_that_nothing_exceeds(state, event):
    after, effects = step(state, event)
    return after, [replace(e, reason="budget") if isinstance(e, Free) and e.reason == "room" else e for e in effects]


def is_never_the_same(state, event):
    after, effects = step(state, event)
    is_never_the_same.steps += 1
    return after, effects if is_never_the_same.steps % 2 else effects[::-1]


is_never_the_same.steps = 0


BROKEN = {
    "loads twice": (twice(StartLoad), {"is_loaded_once", "load_fits"}),
    "sizes twice": (twice(ComputeFootprint), {"is_sized_once"}),
    "frees twice": (twice(Free), {"only_loaded_or_parked_models_are_freed"}),
    "grants twice": (grants_twice, {"grants_are_to_those_who_wait"}),
    "rejects twice": (twice(Reject), {"rejections_are_of_those_who_wait"}),
    "completes twice": (twice(Complete), {"completions_are_true"}),
    "loses grants": (never(Grant), {"the_machine_knows_who_waits"}),
    "loses rejections": (never(Reject), {"the_machine_knows_who_waits"}),
    "loses completions": (never(Complete), {"the_machine_knows_who_waits"}),
    "loses frees": (never(Free), {"the_machine_knows_what_is_resident", "the_machine_counts_what_is_used"}),
    "loses what is to be forgotten": (never(DiscardKept), {"the_machine_counts_what_is_used", "load_fits"}),
    "swaps at once": (knowing(min_residency_s=0.0, residency_per_load=0.0), {"busy_models_have_their_time"}),
    "lets wait for ever": (knowing(max_wait_s=1e6), {"nobody_waits_too_long"}),
    "knows no budget": (knows_no_budget, {"load_fits"}),
    "knows no pins": (knows_no_pins, {"pinned_models_stay"}),
    "frees what is pinned": (frees_what_is_pinned, {"pinned_models_stay"}),
    "frees what loads": (frees_what_loads, {"only_loaded_or_parked_models_are_freed"}),
    "knows no time": (knows_no_time, {"due_is_honest"}),
    "is always due": (is_always_due, {"due_is_not_past"}),
    "is due late": (is_due_late, {"nobody_waits_too_long", "idle_models_go", "due_is_honest"}),
    "acts before it is due": (acts_before_it_is_due, {"rejections_are_true", "due_is_honest", "due_is_not_past"}),
    "forgets who is active": (
        forgets_who_is_active,
        {"the_machine_knows_what_is_resident", "the_machine_counts_what_is_used"},
    ),
    "kills instead of suspending": (kills_instead_of_suspending, {"leases_are_suspended_or_ended_on_purpose"}),
    "keeps more than there is room for": (keeps_more_than_there_is_room_for, {"what_is_kept_fits"}),
    "takes failures out on others": (takes_failures_out_on_others, {"failures_disturb_nobody_else"}),
    "goes on with an engine that dies": (goes_on_with_an_engine_that_dies, {"the_machine_knows_what_is_resident"}),
    "keeps quiet about an engine that dies": (
        keeps_quiet_about_an_engine_that_dies,
        {"the_machine_tells_of_engines_that_die"},
    ),
    "takes a dying engine for a dead one": (
        takes_a_dying_engine_for_a_dead_one,
        {"the_machine_counts_what_is_used", "the_machine_knows_what_is_resident", "load_fits"},
    ),
    "gives up at the first death": (gives_up_at_the_first_death, {"rejections_are_true", "the_machine_counts_deaths"}),
    "blames at the first death": (
        blames_at_the_first_death,
        {"only_those_are_blamed_that_were_active_in_two_deaths"},
    ),
    "loses blames": (never(Blame), {"who_was_active_in_two_deaths_is_blamed", "the_machine_knows_who_waits"}),
    "blames twice": (twice(Blame), {"only_those_are_blamed_that_were_active_in_two_deaths"}),
    "computes suspects beside others": (
        computes_suspects_beside_others,
        {"suspects_are_computed_alone_and_nobody_else"},
    ),
    "refuses no content": (refuses_no_content, {"poison_is_refused"}),
    "believes in weights that are lost": (
        believes_in_weights_that_are_lost,
        {"the_machine_knows_what_is_resident", "the_machine_counts_what_is_used"},
    ),
    "serves on with what was written over": (
        serves_on_with_what_was_written_over,
        {"nobody_goes_on_with_other_weights"},
    ),
    "parks what was written over": (parks_what_was_written_over, {"nothing_is_kept_of_what_was_written_over"}),
    "loses aborts": (never(Abort), {"the_machine_knows_who_waits", "nobody_goes_on_with_other_weights"}),
    "aborts twice": (twice(Abort), {"only_what_was_begun_is_aborted"}),
    "takes replaced files for a failure": (takes_replaced_files_for_a_failure, {"rejections_are_true"}),
    "grants after the end": (grants_after_the_end, {"grants_are_to_those_who_wait"}),
    "loses what is suspended": (loses_what_is_suspended, {"the_machine_knows_who_waits"}),
    "knows no budget of devices": (knows_no_budget_of_devices, {"load_fits"}),
    "ignores devices that change": (
        ignores_devices_that_change,
        {"unused_models_go_where_a_budget_is_exceeded"},
    ),
    "loads elsewhere": (loads_elsewhere, {"loads_are_where_the_model_may_be"}),
    "frees for budgets that nothing exceeds": (
        frees_for_budgets_that_nothing_exceeds,
        {"what_goes_for_a_budget_helps_it"},
    ),
    "changes what it is given": (changes_what_it_is_given, {"steps_are_pure"}),
    "is never the same": (is_never_the_same, {"steps_are_repeatable"}),
}


@pytest.mark.parametrize(("broken", "invariants"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_machine_is_noticed(broken, invariants):
    noticed = []
    for seed in range(MAX_TO_CATCH):
        with contextlib.suppress(KeyError):
            # A broken residency may also raise in the simulated world.
            try:
                run(seed, broken)
            except Violation as violation:
                noticed.append(violation.invariant)
                if violation.invariant in invariants:
                    return
    pytest.fail(f"noticed by {sorted(set(noticed))} alone")


def test_a_machine_that_never_swaps_starves_somebody():
    # That nobody starves is promised, and checked, in fair worlds alone.
    never_swaps = knowing(min_residency_s=1e6)
    violation = first_violation(lambda seed: actions.play(World(seed, never_swaps, is_fair=True)))
    assert violation.invariant == "nobody_starves"


set_model = StateBuilder.set_model

RULES = {
    "a drain does not hold its memory": (
        room,
        "is_leaving",
        lambda model: model.load_state is LoadState.FREEING or model.has_unload_next,
    ),
    "a model that others make room for may lose the memory": (
        StateBuilder,
        "set_model",
        lambda builder, name, model: set_model(builder, name, model._replace(has_claim=False)),
    ),
}


@pytest.mark.parametrize(("module", "name", "broken"), RULES.values(), ids=RULES.keys())
def test_a_rule_that_is_dropped_starves_somebody_or_swaps_for_nothing(monkeypatch, module, name, broken):
    monkeypatch.setattr(module, name, broken)
    violation = first_violation(lambda seed: actions.play(World(seed, is_fair=True)))
    assert violation.invariant in {"nobody_starves", "nobody_takes_back_what_was_given_up"}


def first_move(state, names):
    """A move of the first model, whether or not its placement is faster."""
    return next(((name, state.models[name].choices[-1]) for name in names), None)


def slowest_that_fits(state, name):
    plans = [eviction.plan_eviction(state, name, each) for each in reversed(state.models[name].choices)]
    return next((plan for plan in plans if plan.fit is eviction.Fit.FITS), None)


PLACES = {
    "models move while others wait for memory": (
        *(ModelState, "is_waited_for", property(lambda model: False)),
        {"moves_are_of_unused_models_to_better_places", "moves_delay_nobody"},
    ),
    "models move to slower places": (
        *(reconcile, "best_move", first_move),
        {"moves_are_of_unused_models_to_better_places"},
    ),
    "models move without an end": (allocation, "plan_move", slowest_that_fits, {"moves_come_to_an_end"}),
    "parked models wake elsewhere": (
        *(allocation, "_is_where_parked", lambda model, plan: True),
        {"loads_are_where_the_model_may_be"},
    ),
    "parked models wake nowhere": (
        *(allocation, "_is_where_parked", lambda model, plan: False),
        {"moves_are_of_unused_models_to_better_places"},
    ),
    "loads never fall back": (transitions, "may_fall_back", lambda model: False, {"a_load_falls_back_once"}),
    "loads fall back without an end": (
        *(transitions, "may_fall_back", lambda model: model.load_state is LoadState.LOADING),
        {"a_load_falls_back_once"},
    ),
    "what a device lacked is not remembered": (
        *(failures, "with_corrected", lambda model, footprint: model),
        {"load_fits", "the_machine_counts_what_is_used_of_devices", "a_load_falls_back_once"},
    ),
    "what a plan found is not remembered": (
        *(
            transitions,
            "outgrow",
            lambda builder, name, model, footprint: failures.outgrow(builder, name, model, model.footprint),
        ),
        {"load_fits", "the_machine_counts_what_is_used_of_devices"},
    ),
    "what a plan found is ignored": (
        *(transitions, "outgrow", lambda builder, name, model, footprint: None),
        {"the_machine_counts_what_is_used"},
    ),
    "what was measured is not remembered": (
        *(transitions, "with_corrected", lambda model, footprint: model),
        {"the_machine_counts_what_is_used_of_devices"},
    ),
}


@pytest.mark.parametrize(("where", "name", "broken", "invariants"), PLACES.values(), ids=PLACES.keys())
def test_a_rule_of_placements_that_is_dropped_is_noticed(monkeypatch, where, name, broken, invariants):
    monkeypatch.setattr(where, name, broken)
    noticed = set()
    worlds = (world for world in map(world_of, range(MAX_TO_CATCH)) if world.devices.pools)
    for world in worlds:
        try:
            actions.play(world)
        except Violation as violation:
            noticed.add(violation.invariant)
            if violation.invariant in invariants:
                return
    pytest.fail(f"noticed by {sorted(noticed)} alone")


CONTEXTS = {
    "a size that a context has got is not counted": (
        *(transitions, "resized", lambda builder, model, event: None),
        {"the_machine_counts_what_is_used"},
    ),
    "no context grows": (
        *(transitions, "want_context", lambda builder, model, event: None),
        {"the_only_context_that_is_wanted_is_given_where_it_fits"},
    ),
}


@pytest.mark.parametrize(("where", "name", "broken", "invariants"), CONTEXTS.values(), ids=CONTEXTS.keys())
def test_a_rule_of_contexts_that_is_dropped_is_noticed(monkeypatch, where, name, broken, invariants):
    monkeypatch.setattr(where, name, broken)
    assert first_violation(run).invariant in invariants
