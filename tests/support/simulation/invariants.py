"""What must hold: one small function each. They return what is wrong, or None.

Of effects it is judged whether they are right, in the order in which they are run, before they are noted in the books;
of steps, how things stand when all their effects are noted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from modelyard.errors import (
    EngineError,
    HarmfulRequest,
    InsufficientMemory,
    ModelBusy,
    ModelFileChanged,
    ModelLoadFailed,
    ModelLoading,
    ModelUnloaded,
    QueueFull,
    ShuttingDown,
)
from modelyard.yard.residency.deaths import MAX_DEATHS_SURVIVED
from modelyard.yard.residency.events import (
    Abort,
    Blame,
    Complete,
    ComputeFootprint,
    Effect,
    EngineDied,
    EngineDying,
    EngineLoadFailed,
    FilesReplaced,
    FilesWrittenOver,
    Free,
    Grant,
    Reject,
    Remove,
    RequestArrived,
    ResidencyEvent,
    StartLoad,
)
from modelyard.yard.residency.state import ABSENT, LoadState, Residency, UnloadMode, WaitKind
from support.simulation.oracle import Oracle, Phase, least_stay_s, taken

# Sums of floats on the world's side and on the machine's may differ by their last bits.
ROUNDING_S = 1e-9


class Moment(NamedTuple):
    """One step of the machine; ``used``: bytes afterwards, by the books."""

    before: Residency
    event: ResidencyEvent
    after: Residency
    effects: Sequence[Effect]
    used: int


# Sizes and loads


def is_sized_once(oracle: Oracle, effect: ComputeFootprint) -> str | None:
    if effect.model in oracle.sizing or effect.model in oracle.engines:
        return f"{effect.model} is sized again, or while it is resident"
    return None


def is_loaded_once(oracle: Oracle, effect: StartLoad) -> str | None:
    parked = oracle.parked.get(effect.model)
    if effect.model in oracle.engines or effect.model in oracle.sizing or (parked is not None and parked.is_freeing):
        return f"{effect.model} is loaded while it is sizing, loading, loaded or freeing"
    return None


def load_fits(oracle: Oracle, effect: StartLoad) -> str | None:
    # Without the excuses: whatever was measured or lowered, a new load has to fit.
    needed = oracle.used(loading=effect.model)
    return None if needed <= oracle.budget else f"the load of {effect.model} makes it {needed} of {oracle.budget}"


def load_is_wanted(oracle: Oracle, effect: StartLoad) -> str | None:
    if oracle.is_closing:
        return f"{effect.model} is loaded although everything closes"
    return None if oracle.is_wanted(effect.model) else f"{effect.model} is loaded for nobody"


def no_load_overtakes_an_unload(oracle: Oracle, effect: StartLoad) -> str | None:
    overtaken = {mode for mode in oracle.asked_modes(effect.model) if not mode.waits}
    return f"{effect.model} is loaded before it was unloaded by {overtaken}" if overtaken else None


def nobody_takes_back_what_was_given_up(oracle: Oracle, effect: StartLoad) -> str | None:
    """In a fair world: a busy model went for the oldest request, which is there first."""
    oldest, since = oracle.gave_way.get(effect.model) or (None, 0.0)
    request = None if oldest is None else oracle.requests.get(oldest)
    if not oracle.is_fair or request is None or request.phase is Phase.LEASED or request.since > since:
        return None
    if request.model in oracle.engines or request.behind_drain or request.model not in oracle.footprints:
        return None
    staying = [engine.footprint for engine in oracle.engines.values() if not engine.is_freeing]
    both = [oracle.footprints[effect.model], oracle.footprints[request.model]]
    if taken([*staying, *both]) + oracle.kept() <= oracle.budget:
        # Others have gone too meanwhile: it takes nothing from it.
        return None
    return f"{effect.model} made room for {oldest}, which still waits for {request.model}, and is loaded again"


# Frees


def only_loaded_or_parked_models_are_freed(oracle: Oracle, effect: Free) -> str | None:
    engine, parked = oracle.engines.get(effect.model), oracle.parked.get(effect.model)
    if parked is not None:
        is_right = not (parked.is_freeing or effect.keeps_weights or effect.keep_bytes)
        return None if is_right else f"{effect.model} is parked, and freed twice or to keep something: {effect}"
    if engine is None:
        # The files of a model that is being sized are closed too.
        is_right = oracle.is_closing and effect.model in oracle.sizing
        return None if is_right else f"{effect.model} is freed, which is not resident"
    if engine.is_freeing:
        return f"{effect.model} is freed twice"
    may_go = oracle.is_closing or engine.loaded_at is not None or effect.model in oracle.stale
    return None if may_go else f"{effect.model} is freed while it loads"


def pinned_models_stay(oracle: Oracle, effect: Free) -> str | None:
    if not oracle.traits[effect.model].is_pinned or _is_explicit(oracle, effect.model):
        return None
    return f"{effect.model} is pinned and freed: {effect.why}"


def leases_are_suspended_or_ended_on_purpose(oracle: Oracle, effect: Free) -> str | None:
    if effect.suspends or oracle.is_closing or not oracle.of(effect.model, Phase.LEASED):
        return None
    if UnloadMode.FORCE in oracle.asked_modes(effect.model):
        return None
    return f"the leases of {effect.model} are ended by: {effect.why}"


def busy_models_have_their_time(oracle: Oracle, effect: Free) -> str | None:
    model = effect.model
    is_hurried = any(not mode.waits for mode in oracle.asked_modes(model)) or model in oracle.stale
    is_busy = bool(oracle.of(model, Phase.LEASED)) or model in oracle.holds.values()
    if is_hurried or oracle.is_closing or model in oracle.retired or not is_busy:
        return None
    engine = oracle.engines.get(model)
    if engine is None:
        # Parked weights are not served from, and go first.
        return None
    stayed_s, least_s = oracle.now - (engine.loaded_at or 0.0), least_stay_s(oracle.policy, engine)
    return None if stayed_s >= least_s - ROUNDING_S else f"{model} went after {stayed_s:.2f} s, before {least_s:.2f}"


def frees_have_a_reason(oracle: Oracle, effect: Free) -> str | None:
    model = effect.model
    if _is_explicit(oracle, model) or oracle.used() > oracle.budget:
        return None
    is_used = bool(oracle.of(model, Phase.LEASED)) or model in oracle.holds.values()
    if oracle.now >= oracle.used_at[model] + oracle.idle_s[model][0] - ROUNDING_S and not is_used:
        return None
    absent = [other for other in oracle.traits if other not in oracle.engines]
    return None if any(oracle.is_wanted(other) for other in absent) else f"{model} is freed for nobody: {effect.why}"


def what_is_kept_fits(oracle: Oracle, effect: Free) -> str | None:
    peak = oracle.used() + effect.keep_bytes
    if effect.keep_bytes and peak > oracle.budget:
        return f"{effect.model} may keep {effect.keep_bytes}, which makes it {peak} of {oracle.budget}"
    return None


def nothing_is_kept_of_what_was_written_over(oracle: Oracle, effect: Free) -> str | None:
    if effect.model not in oracle.stale or not (effect.keep_bytes or effect.keeps_weights or effect.suspends):
        return None
    return f"{effect.model} was written over, and is freed to keep something: {effect}"


def _is_explicit(oracle: Oracle, model: str) -> bool:
    return oracle.is_closing or model in oracle.retired or model in oracle.stale or bool(oracle.asked_modes(model))


# Grants, rejections, completions


def grants_are_to_those_who_wait(oracle: Oracle, effect: Grant) -> str | None:
    request = oracle.requests.get(effect.request)
    if request is None:
        return f"{effect.request} is granted {effect.model} after its end: {oracle.ends.get(effect.request)}"
    if request.phase is Phase.LEASED or request.model != effect.model:
        return f"{effect.request} is granted {effect.model}, but is {request.phase.value} for {request.model}"
    engine = oracle.engines.get(effect.model)
    is_there = engine is not None and engine.is_serving
    return None if is_there else f"{effect.request} is granted {effect.model}, which does not serve"


def suspects_are_computed_alone_and_nobody_else(oracle: Oracle, effect: Grant) -> str | None:
    if effect.alone == oracle.requests[effect.request].is_suspect:
        return None
    return f"{effect.request} is granted {effect.model} with alone={effect.alone}"


def only_those_are_blamed_that_were_active_in_two_deaths(oracle: Oracle, effect: Blame) -> str | None:
    if effect.request not in oracle.guilty or not isinstance(effect.error, HarmfulRequest):
        return f"{effect.request} is blamed, and should not be: {oracle.requests.get(effect.request)}"
    return None


def only_what_was_begun_is_aborted(oracle: Oracle, effect: Abort) -> str | None:
    request = oracle.requests.get(effect.request)
    is_begun = request is not None and request.phase is not Phase.WAITING and request.model == effect.model
    if is_begun and isinstance(effect.error, ModelFileChanged):
        return None
    return f"{effect.request} is aborted, and should not be: {request}"


def rejections_are_of_those_who_wait(oracle: Oracle, effect: Reject) -> str | None:
    if effect.request in oracle.callers or effect.request in oracle.warm:
        return None
    request = oracle.requests.get(effect.request)
    if request is None or request.phase is Phase.LEASED or request.model != effect.model:
        return f"{effect.request} is rejected, but does not wait for {effect.model}: {request}"
    return None


def rejections_are_true(oracle: Oracle, effect: Reject) -> str | None:
    model, error = effect.model, effect.error
    request, caller = oracle.requests.get(effect.request), oracle.callers.get(effect.request)
    match error:
        case ShuttingDown():
            is_true = oracle.is_closing
        case QueueFull():
            is_full = oracle.waiting_or_served(model) > oracle.traits[model].max_requests
            is_true = is_full and request is not None and not request.continues
        case ModelLoading() | ModelBusy():
            until = request.until if request is not None else oracle.now
            if caller is not None:
                until = caller.since + oracle.policy.max_wait_s
            is_true = oracle.now >= until
        case HarmfulRequest():
            is_true = request is not None and oracle.is_poison(request.content)
        case EngineError():
            is_true = request is not None and request.deaths >= MAX_DEATHS_SURVIVED
        case ModelLoadFailed():
            is_true = model in oracle.failed
        case InsufficientMemory():
            pinned = [e.footprint for m, e in oracle.engines.items() if oracle.traits[m].is_pinned and not e.is_freeing]
            parked = [w.footprint for m, w in oracle.parked.items() if oracle.traits[m].is_pinned and not w.is_freeing]
            is_true = taken([*pinned, oracle.footprints[model]], parked) > oracle.budget
        case ModelUnloaded():
            goes_on = request is not None and request.continues
            is_forced = UnloadMode.FORCE in oracle.asked_modes(model) or request is None or request.lost_hold
            is_true = oracle.unloads.get(model) == (oracle.step, UnloadMode.FORCE) or (goes_on and is_forced)
        case _:
            is_true = False
    return None if is_true else f"{effect.request} hears of {model} what is not true: {error!r}"


def completions_are_true(oracle: Oracle, effect: Complete) -> str | None:
    engine = oracle.engines.get(effect.model)
    if effect.request in oracle.warm:
        return None
    caller = oracle.callers.get(effect.request)
    if caller is None or caller.model != effect.model:
        return f"caller {effect.request} of {effect.model} is answered twice, or never asked"
    is_there = engine is not None and engine.is_serving
    is_gone = engine is None and (caller.mode is UnloadMode.PARK or effect.model not in oracle.parked)
    is_true = is_there if caller.mode is None else is_gone
    return None if is_true else f"{effect.request} hears that {effect.model} is what it is not: {caller}"


def only_retired_models_are_removed(oracle: Oracle, effect: Remove) -> str | None:
    model = effect.model
    if model not in oracle.retired:
        return f"{model} is removed, which nobody retired"
    is_needed = model in oracle.engines or oracle.waiting_or_served(model) > 0
    return f"{model} is removed while it is needed" if is_needed else None


# Steps


def memory_is_within_the_budget(oracle: Oracle, moment: Moment) -> str | None:
    if moment.used <= oracle.budget:
        oracle.is_excused = False
        return None
    return None if oracle.is_excused else f"{moment.used} are used of a budget of {oracle.budget}"


def the_machine_counts_what_is_used(oracle: Oracle, moment: Moment) -> str | None:
    if oracle.is_closing:
        # Nothing is loaded any more: nobody counts.
        return None
    counted = moment.after.used_bytes
    return None if moment.used == counted else f"{moment.used} are used, and the machine counts {counted}"


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
        waiting.update({wish.request: name for wish in model.queue if wish.request not in oracle.warm})
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
        if model.load_state is LoadState.LOADED and model.queue and model.draining_since is None:
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
    if len(absent) != 1 or absent[0] not in oracle.footprints:
        return None
    needed = oracle.used(loading=absent[0])
    return None if needed > oracle.budget else f"{absent[0]} is wanted and fits, and nothing is done"


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
        if after.load_state is LoadState.LOADED:
            continue
        # Its memory may be what somebody else waited for, who then needs that of idle models too.
        if before.leases or not any(oracle.is_wanted(other) for other in moment.after.models):
            return f"the failure of {moment.event.model} disturbs {name}"
    return None


def due_is_not_past(oracle: Oracle, moment: Moment) -> str | None:
    if moment.after.due_at <= oracle.now:
        return f"due at {moment.after.due_at}, and it is {oracle.now}: a busy loop"
    return None


OF_EFFECTS: dict[type, tuple[Callable[[Oracle, Any], str | None], ...]] = {
    ComputeFootprint: (is_sized_once,),
    StartLoad: (
        is_loaded_once,
        load_fits,
        load_is_wanted,
        no_load_overtakes_an_unload,
        nobody_takes_back_what_was_given_up,
    ),
    Free: (
        only_loaded_or_parked_models_are_freed,
        pinned_models_stay,
        leases_are_suspended_or_ended_on_purpose,
        busy_models_have_their_time,
        frees_have_a_reason,
        what_is_kept_fits,
        nothing_is_kept_of_what_was_written_over,
    ),
    Grant: (grants_are_to_those_who_wait, suspects_are_computed_alone_and_nobody_else),
    Blame: (only_those_are_blamed_that_were_active_in_two_deaths,),
    Abort: (only_what_was_begun_is_aborted,),
    Reject: (rejections_are_of_those_who_wait, rejections_are_true),
    Complete: (completions_are_true,),
    Remove: (only_retired_models_are_removed,),
}

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
    idle_models_go,
    due_is_not_past,
)
