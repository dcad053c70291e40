"""What must hold after a step, when all its effects are noted: one small function each.

They return what is wrong, or None.
"""

from __future__ import annotations

from collections.abc import Callable

from modelyard.errors import (
    ModelLoadFailed,
    ModelLoading,
)
from modelyard.protocol.placement import HOST_NAME
from modelyard.yard.residency.deaths import MAX_DEATHS_SURVIVED
from modelyard.yard.residency.effects import Reject
from modelyard.yard.residency.events import (
    EngineDied,
    EngineDying,
    EngineLoadFailed,
    FilesReplaced,
    FilesWrittenOver,
    RequestArrived,
)
from modelyard.yard.residency.state import ABSENT, LoadState
from modelyard.yard.residency.waiting import MOVE, WaitKind
from support.simulation.oracle import ROUNDING_S, Moment, Oracle, Phase, exceeded
from support.simulation.pools import OF_POOL_STEPS


def memory_is_within_the_budget(oracle: Oracle, moment: Moment) -> str | None:
    over = exceeded(moment.used, oracle.budgets)
    oracle.excused.intersection_update(over)
    wrong = [pool for pool in over if pool not in oracle.excused]
    return f"{moment.used} are used of budgets of {oracle.budgets}" if wrong else None


def the_machine_counts_what_is_used(oracle: Oracle, moment: Moment) -> str | None:
    if oracle.is_closing:
        # Nothing is loaded any more: nobody counts.
        return None
    used, counted = moment.used[HOST_NAME], moment.after.used_bytes
    return None if used == counted else f"{used} are used, and the machine counts {counted}"


def the_machine_knows_what_is_resident(oracle: Oracle, moment: Moment) -> str | None:
    for name, model in moment.after.models.items():
        engine, parked = oracle.engines.get(name), oracle.parked.get(name)
        if parked is not None:
            is_right = model.load_state is (LoadState.FREEING if parked.is_freeing else LoadState.PARKED)
        elif engine is None:
            is_right = model.load_state in (LoadState.UNLOADED, LoadState.FAILED) or (
                name in oracle.sizing and model.load_state is LoadState.SIZING
            )
            # A file that was being looked at is closed like an engine.
            is_right = is_right or oracle.is_closing
        elif engine.is_freeing:
            is_right = model.load_state is LoadState.FREEING
        else:
            is_right = model.load_state is (LoadState.LOADING if engine.loaded_at is None else LoadState.LOADED)
        if not is_right:
            return f"{name} counts as {model.load_state.value}, and is {engine or parked}"
        if name not in moment.after.active and not model.is_at_rest:
            return f"{name} is overlooked"
    return None


def the_machine_tells_of_engines_that_die(oracle: Oracle, moment: Moment) -> str | None:
    """From the first moment, and of no other that is being freed."""
    for name, engine in oracle.engines.items():
        failure = moment.after.models[name].failure
        if engine.is_dying != (failure is not None):
            return f"{name} is told to have failed with {failure}, and is {engine}"
    return None


def the_machine_knows_who_waits(oracle: Oracle, moment: Moment) -> str | None:
    waiting, leased = {}, {}
    for name in moment.after.active:
        model = moment.after.models[name]
        leased.update(dict.fromkeys(model.leases, name))
        known = oracle.warm if name not in oracle.moving else {*oracle.warm, MOVE}
        waiting.update({wish.request: name for wish in model.queue if wish.request not in known})
    expected = {r: request.model for r, request in oracle.requests.items() if request.phase is not Phase.LEASED}
    expected.update({r: caller.model for r, caller in oracle.callers.items()})
    if waiting != expected:
        return f"these wait: {expected}; in line are: {waiting}"
    holding = {r: request.model for r, request in oracle.requests.items() if request.phase is Phase.LEASED}
    if leased != holding:
        return f"these hold leases: {holding}; noted are: {leased}"
    held = {r: name for name in moment.after.active for r in moment.after.models[name].holds}
    return None if held == oracle.holds else f"these left holds: {oracle.holds}; noted are: {held}"


def the_machine_counts_deaths(oracle: Oracle, moment: Moment) -> str | None:
    for name, model in moment.after.models.items():
        counted, known = (model.restarts, model.deaths_in_row), (oracle.deaths.get(name, 0), oracle.row.get(name, 0))
        if counted != known:
            return f"{name} had so many deaths, and in a row: {known}; counted are {counted}"
        suspects = {r for r, request in oracle.requests.items() if request.model == name and request.is_suspect}
        if model.suspects != suspects:
            return f"of {name} these are suspects: {suspects}; noted are {set(model.suspects)}"
    return None


def who_was_active_in_two_deaths_is_blamed(oracle: Oracle, moment: Moment) -> str | None:
    return f"these have ended their engine twice, and go on: {oracle.guilty}" if oracle.guilty else None


def nobody_goes_through_too_many_deaths(oracle: Oracle, moment: Moment) -> str | None:
    for number, request in oracle.requests.items():
        if request.deaths >= MAX_DEATHS_SURVIVED and request.phase is not Phase.LEASED:
            return f"{number} waits for another engine of {request.model} after {request.deaths} deaths"
    return None


def nobody_goes_on_with_other_weights(oracle: Oracle, moment: Moment) -> str | None:
    event = moment.event
    begun = [
        number
        for number, request in oracle.requests.items()
        if request.phase is not Phase.WAITING
        and (request.model in oracle.stale or (isinstance(event, FilesReplaced) and request.model == event.model))
    ]
    kept = sorted(oracle.stale & oracle.prefixes.keys())
    if isinstance(event, FilesReplaced) and event.model in oracle.prefixes:
        kept.append(event.model)
    return f"these go on with other weights: {begun}; and this is kept: {kept}" if begun or kept else None


def what_was_written_over_goes(oracle: Oracle, moment: Moment) -> str | None:
    serving = [name for name in oracle.stale if name in oracle.engines and not oracle.engines[name].is_freeing]
    serving += [name for name in oracle.stale if name in oracle.parked and not oracle.parked[name].is_freeing]
    known = [name for name in oracle.stale if not moment.after.models[name].is_stale]
    return f"these were written over, and stay: {serving} {known}" if serving or known else None


def who_waits_for_what_is_given_up_is_refused(oracle: Oracle, moment: Moment) -> str | None:
    if not isinstance(moment.event, EngineDied) or moment.event.model not in oracle.failed:
        return None
    waiting = [r for r, q in oracle.requests.items() if q.model == moment.event.model]
    return f"{moment.event.model} is given up, and these go on: {waiting}" if waiting else None


def a_death_is_heard_by_nobody_where_the_model_is_tried_again(oracle: Oracle, moment: Moment) -> str | None:
    if not isinstance(moment.event, EngineDied) or moment.event.model in oracle.failed:
        return None
    refused = [e for e in moment.effects if isinstance(e, Reject) and isinstance(e.error, ModelLoadFailed)]
    return f"{moment.event.model} is tried again, and these are refused: {refused}" if refused else None


def poison_is_refused(oracle: Oracle, moment: Moment) -> str | None:
    event = moment.event
    if isinstance(event, RequestArrived) and oracle.is_poison(event.content) and event.request in oracle.requests:
        return f"{event.request} has a content that is refused, and is served"
    kept = {content for content in moment.after.poison if not oracle.is_poison(content)}
    return f"these contents are refused for too long: {kept}" if kept else None


def nobody_waits_too_long(oracle: Oracle, moment: Moment) -> str | None:
    for request_id, request in oracle.requests.items():
        if request.phase is not Phase.LEASED and oracle.now >= request.until:
            return f"{request_id} waits for {request.model} since {request.since:.2f}, until {request.until:.2f}"
    for request_id, caller in oracle.callers.items():
        if oracle.now >= caller.since + oracle.policy.max_wait_s:
            return f"the caller {request_id} waits for too long: {caller}"
    return None


def nobody_waits_for_what_is_there(oracle: Oracle, moment: Moment) -> str | None:
    for name in moment.after.active:
        model = moment.after.models[name]
        if model.load_state is LoadState.LOADED and model.queue and model.makes_room_since is None:
            first = model.queue[0]
            # Only an unload that waits holds others up, and only while there are leases or holds.
            is_used = model.leases or model.holds
            if first.kind is not WaitKind.UNLOAD or not first.mode.waits or not is_used:
                return f"{name} serves, and {first.request} waits for it"
    return None


def nobody_waits_when_everything_closes(oracle: Oracle, moment: Moment) -> str | None:
    waiting = [r for r, request in oracle.requests.items() if request.phase is not Phase.LEASED]
    if oracle.is_closing and (waiting or oracle.callers):
        return f"everything closes, and these still wait: {waiting} {list(oracle.callers)}"
    return None


def who_does_not_wait_still_has_the_model_loaded(oracle: Oracle, moment: Moment) -> str | None:
    for effect in moment.effects:
        if isinstance(effect, Reject) and isinstance(effect.error, ModelLoading) and effect.request in oracle.warm:
            model = moment.after.models[effect.model]
            is_coming = model.load_state in (LoadState.SIZING, LoadState.LOADING)
            if not is_coming and not any(wish.wants_load and not wish.does_not_trigger_load for wish in model.queue):
                return f"{effect.request} did not wait, and nothing loads {effect.model} for its next try"
    return None


def the_only_model_that_is_wanted_is_loaded_where_it_fits(oracle: Oracle, moment: Moment) -> str | None:
    if oracle.is_closing:
        return None
    absent = [
        name
        for name in moment.after.active
        if moment.after.models[name].load_state in ABSENT
        and (first := moment.after.models[name].first) is not None
        and first.kind is not WaitKind.UNLOAD
    ]
    if len(absent) != 1 or absent[0] not in oracle.choices:
        return None
    name, parked = absent[0], oracle.parked.get(absent[0])
    if oracle.is_anyone_growing():
        # It may be more urgent.
        return None
    # A slower placement may be left for one that takes longer to get.
    fastest = (oracle.choices[name][0] if parked is None else parked.footprint).whole
    fits = not oracle.short(fastest, oracle.used(name, fastest))
    return f"{name} is wanted and fits, and nothing is done" if fits else None


def the_only_context_that_is_wanted_is_given_where_it_fits(oracle: Oracle, moment: Moment) -> str | None:
    growing = {name: engine for name, engine in oracle.engines.items() if engine.wanted and engine.is_serving}
    if oracle.is_closing or len(growing) != 1 or any(oracle.is_wanted(name) for name in oracle.traits):
        return None
    ((name, engine),) = growing.items()
    if engine.resizing or engine.wanted is None or engine.has_failed_to_grow:
        return None
    larger = engine.footprint.with_cells(engine.wanted[0])
    fits = not oracle.short(larger, oracle.used_instead(name, larger))
    return f"{name} needs {engine.wanted[0]} cells, which fit, and nothing is done" if fits else None


def idle_models_go(oracle: Oracle, moment: Moment) -> str | None:
    serving = {name for name, engine in oracle.engines.items() if engine.is_serving}
    parked = {name for name, weights in oracle.parked.items() if not weights.is_freeing}
    for name in sorted(serving | parked):
        if oracle.traits[name].is_pinned or (name in parked and oracle.is_wanted(name)):
            continue
        if oracle.waiting_or_served(name):
            continue
        if oracle.now > oracle.used_at[name] + oracle.idle_s[name][1] + ROUNDING_S:
            return f"{name} is idle since {oracle.used_at[name]:.2f} and should stay for {oracle.idle_s[name][1]} s"
    return None


def failures_disturb_nobody_else(oracle: Oracle, moment: Moment) -> str | None:
    if not isinstance(moment.event, EngineLoadFailed | EngineDying | EngineDied | FilesWrittenOver | FilesReplaced):
        return None
    for name, before in moment.before.models.items():
        if name == moment.event.model or before.load_state is not LoadState.LOADED or name not in moment.after.models:
            continue
        after = moment.after.models[name]
        if after.load_state is LoadState.LOADED or name in oracle.moving:
            continue
        # Its memory may be what somebody else waited for, who then needs that of idle models too.
        is_room_wanted = any(oracle.is_wanted(other) for other in moment.after.models) or oracle.is_anyone_growing()
        if before.leases or not is_room_wanted:
            return f"the failure of {moment.event.model} disturbs {name}"
    return None


def due_is_not_past(oracle: Oracle, moment: Moment) -> str | None:
    if moment.after.due_at <= oracle.now:
        return f"due at {moment.after.due_at}, and it is {oracle.now}: a busy loop"
    return None


OF_STEPS: tuple[Callable[[Oracle, Moment], str | None], ...] = (
    failures_disturb_nobody_else,
    memory_is_within_the_budget,
    the_machine_counts_what_is_used,
    the_machine_knows_what_is_resident,
    the_machine_tells_of_engines_that_die,
    the_machine_knows_who_waits,
    the_machine_counts_deaths,
    who_was_active_in_two_deaths_is_blamed,
    nobody_goes_through_too_many_deaths,
    nobody_goes_on_with_other_weights,
    what_was_written_over_goes,
    who_waits_for_what_is_given_up_is_refused,
    a_death_is_heard_by_nobody_where_the_model_is_tried_again,
    poison_is_refused,
    nobody_waits_too_long,
    nobody_waits_for_what_is_there,
    nobody_waits_when_everything_closes,
    who_does_not_wait_still_has_the_model_loaded,
    the_only_model_that_is_wanted_is_loaded_where_it_fits,
    the_only_context_that_is_wanted_is_given_where_it_fits,
    idle_models_go,
    due_is_not_past,
    *OF_POOL_STEPS,
)
