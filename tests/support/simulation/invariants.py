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
from support.simulation.books import Books, Phase, least_stay_s, taken

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


def is_sized_once(books: Books, effect: ComputeFootprint) -> str | None:
    if effect.model in books.sizing or effect.model in books.engines:
        return f"{effect.model} is sized again, or while it is resident"
    return None


def is_loaded_once(books: Books, effect: StartLoad) -> str | None:
    parked = books.parked.get(effect.model)
    if effect.model in books.engines or effect.model in books.sizing or (parked is not None and parked.is_freeing):
        return f"{effect.model} is loaded while it is sizing, loading, loaded or freeing"
    return None


def load_fits(books: Books, effect: StartLoad) -> str | None:
    # Without the excuses: whatever was measured or lowered, a new load has to fit.
    needed = books.used(loading=effect.model)
    return None if needed <= books.budget else f"the load of {effect.model} makes it {needed} of {books.budget}"


def load_is_wanted(books: Books, effect: StartLoad) -> str | None:
    if books.is_closing:
        return f"{effect.model} is loaded although everything closes"
    return None if books.is_wanted(effect.model) else f"{effect.model} is loaded for nobody"


def no_load_overtakes_an_unload(books: Books, effect: StartLoad) -> str | None:
    overtaken = {mode for mode in books.asked_modes(effect.model) if not mode.waits}
    return f"{effect.model} is loaded before it was unloaded by {overtaken}" if overtaken else None


def nobody_takes_back_what_was_given_up(books: Books, effect: StartLoad) -> str | None:
    """In a fair world: a busy model went for the oldest request, which is there first."""
    oldest, since = books.gave_way.get(effect.model) or (None, 0.0)
    request = None if oldest is None else books.requests.get(oldest)
    if not books.is_fair or request is None or request.phase is Phase.LEASED or request.since > since:
        return None
    if request.model in books.engines or request.behind_drain or request.model not in books.footprints:
        return None
    staying = [engine.footprint for engine in books.engines.values() if not engine.is_freeing]
    both = [books.footprints[effect.model], books.footprints[request.model]]
    if taken([*staying, *both]) + books.kept() <= books.budget:
        # Others have gone too meanwhile: it takes nothing from it.
        return None
    return f"{effect.model} made room for {oldest}, which still waits for {request.model}, and is loaded again"


# Frees


def only_loaded_or_parked_models_are_freed(books: Books, effect: Free) -> str | None:
    engine, parked = books.engines.get(effect.model), books.parked.get(effect.model)
    if parked is not None:
        is_right = not (parked.is_freeing or effect.keeps_weights or effect.keep_bytes)
        return None if is_right else f"{effect.model} is parked, and freed twice or to keep something: {effect}"
    if engine is None:
        # The files of a model that is being sized are closed too.
        is_right = books.is_closing and effect.model in books.sizing
        return None if is_right else f"{effect.model} is freed, which is not resident"
    if engine.is_freeing:
        return f"{effect.model} is freed twice"
    may_go = books.is_closing or engine.loaded_at is not None or effect.model in books.stale
    return None if may_go else f"{effect.model} is freed while it loads"


def pinned_models_stay(books: Books, effect: Free) -> str | None:
    if not books.traits[effect.model].is_pinned or _is_explicit(books, effect.model):
        return None
    return f"{effect.model} is pinned and freed: {effect.why}"


def leases_are_suspended_or_ended_on_purpose(books: Books, effect: Free) -> str | None:
    if effect.suspends or books.is_closing or not books.of(effect.model, Phase.LEASED):
        return None
    if UnloadMode.FORCE in books.asked_modes(effect.model):
        return None
    return f"the leases of {effect.model} are ended by: {effect.why}"


def busy_models_have_their_time(books: Books, effect: Free) -> str | None:
    model = effect.model
    is_hurried = any(not mode.waits for mode in books.asked_modes(model)) or model in books.stale
    if is_hurried or books.is_closing or model in books.retired or not books.of(model, Phase.LEASED):
        return None
    engine = books.engines[model]
    stayed_s, least_s = books.now - (engine.loaded_at or 0.0), least_stay_s(books.policy, engine)
    return None if stayed_s >= least_s - ROUNDING_S else f"{model} went after {stayed_s:.2f} s, before {least_s:.2f}"


def frees_have_a_reason(books: Books, effect: Free) -> str | None:
    model = effect.model
    if _is_explicit(books, model) or books.used() > books.budget:
        return None
    if books.now >= books.used_at[model] + books.idle_s[model][0] - ROUNDING_S and not books.of(model, Phase.LEASED):
        return None
    absent = [other for other in books.traits if other not in books.engines]
    return None if any(books.is_wanted(other) for other in absent) else f"{model} is freed for nobody: {effect.why}"


def what_is_kept_fits(books: Books, effect: Free) -> str | None:
    peak = books.used() + effect.keep_bytes
    if effect.keep_bytes and peak > books.budget:
        return f"{effect.model} may keep {effect.keep_bytes}, which makes it {peak} of {books.budget}"
    return None


def nothing_is_kept_of_what_was_written_over(books: Books, effect: Free) -> str | None:
    if effect.model not in books.stale or not (effect.keep_bytes or effect.keeps_weights or effect.suspends):
        return None
    return f"{effect.model} was written over, and is freed to keep something: {effect}"


def _is_explicit(books: Books, model: str) -> bool:
    return books.is_closing or model in books.retired or model in books.stale or bool(books.asked_modes(model))


# Grants, rejections, completions


def grants_are_to_those_who_wait(books: Books, effect: Grant) -> str | None:
    request = books.requests.get(effect.request)
    if request is None:
        return f"{effect.request} is granted {effect.model} after its end: {books.ends.get(effect.request)}"
    if request.phase is Phase.LEASED or request.model != effect.model:
        return f"{effect.request} is granted {effect.model}, but is {request.phase.value} for {request.model}"
    engine = books.engines.get(effect.model)
    is_there = engine is not None and engine.is_serving
    return None if is_there else f"{effect.request} is granted {effect.model}, which does not serve"


def suspects_are_computed_alone_and_nobody_else(books: Books, effect: Grant) -> str | None:
    if effect.alone == books.requests[effect.request].is_suspect:
        return None
    return f"{effect.request} is granted {effect.model} with alone={effect.alone}"


def only_those_are_blamed_that_were_active_in_two_deaths(books: Books, effect: Blame) -> str | None:
    if effect.request not in books.guilty or not isinstance(effect.error, HarmfulRequest):
        return f"{effect.request} is blamed, and should not be: {books.requests.get(effect.request)}"
    return None


def only_what_was_begun_is_aborted(books: Books, effect: Abort) -> str | None:
    request = books.requests.get(effect.request)
    is_begun = request is not None and request.phase is not Phase.WAITING and request.model == effect.model
    if is_begun and isinstance(effect.error, ModelFileChanged):
        return None
    return f"{effect.request} is aborted, and should not be: {request}"


def rejections_are_of_those_who_wait(books: Books, effect: Reject) -> str | None:
    if effect.request in books.callers or effect.request in books.warm:
        return None
    request = books.requests.get(effect.request)
    if request is None or request.phase is Phase.LEASED or request.model != effect.model:
        return f"{effect.request} is rejected, but does not wait for {effect.model}: {request}"
    return None


def rejections_are_true(books: Books, effect: Reject) -> str | None:
    model, error = effect.model, effect.error
    request, caller = books.requests.get(effect.request), books.callers.get(effect.request)
    match error:
        case ShuttingDown():
            is_true = books.is_closing
        case QueueFull():
            is_true = sum(r.model == model for r in books.requests.values()) > books.traits[model].max_requests
        case ModelLoading() | ModelBusy():
            until = request.until if request is not None else books.now
            if caller is not None:
                until = caller.since + books.policy.max_wait_s
            is_true = books.now >= until
        case HarmfulRequest():
            is_true = request is not None and books.is_poison(request.content)
        case EngineError():
            is_true = request is not None and request.deaths >= MAX_DEATHS_SURVIVED
        case ModelLoadFailed():
            is_true = model in books.failed
        case InsufficientMemory():
            pinned = [e.footprint for m, e in books.engines.items() if books.traits[m].is_pinned and not e.is_freeing]
            parked = [w.footprint for m, w in books.parked.items() if books.traits[m].is_pinned and not w.is_freeing]
            is_true = taken([*pinned, books.footprints[model]], parked) > books.budget
        case ModelUnloaded():
            is_true = books.unloads.get(model) == (books.step, UnloadMode.FORCE)
        case _:
            is_true = False
    return None if is_true else f"{effect.request} hears of {model} what is not true: {error!r}"


def completions_are_true(books: Books, effect: Complete) -> str | None:
    engine = books.engines.get(effect.model)
    if effect.request in books.warm:
        return None
    caller = books.callers.get(effect.request)
    if caller is None or caller.model != effect.model:
        return f"caller {effect.request} of {effect.model} is answered twice, or never asked"
    is_there = engine is not None and engine.is_serving
    is_gone = engine is None and (caller.mode is UnloadMode.PARK or effect.model not in books.parked)
    is_true = is_there if caller.mode is None else is_gone
    return None if is_true else f"{effect.request} hears that {effect.model} is what it is not: {caller}"


def only_retired_models_are_removed(books: Books, effect: Remove) -> str | None:
    model = effect.model
    if model not in books.retired:
        return f"{model} is removed, which nobody retired"
    is_needed = model in books.engines or any(r.model == model for r in books.requests.values())
    return f"{model} is removed while it is needed" if is_needed else None


# Steps


def memory_is_within_the_budget(books: Books, moment: Moment) -> str | None:
    if moment.used <= books.budget:
        books.is_excused = False
        return None
    return None if books.is_excused else f"{moment.used} are used of a budget of {books.budget}"


def the_machine_counts_what_is_used(books: Books, moment: Moment) -> str | None:
    if books.is_closing:
        # Nothing is loaded any more: nobody counts.
        return None
    counted = moment.after.used_bytes
    return None if moment.used == counted else f"{moment.used} are used, and the machine counts {counted}"


def the_machine_knows_what_is_resident(books: Books, moment: Moment) -> str | None:
    for name, model in moment.after.models.items():
        engine, parked = books.engines.get(name), books.parked.get(name)
        if parked is not None:
            is_right = model.load_state is (LoadState.FREEING if parked.is_freeing else LoadState.PARKED)
        elif engine is None:
            is_right = model.load_state in (LoadState.UNLOADED, LoadState.FAILED) or (
                name in books.sizing and model.load_state is LoadState.SIZING
            )
            # A file that was being looked at is closed like an engine.
            is_right = is_right or books.is_closing
        elif engine.is_freeing:
            is_right = model.load_state is LoadState.FREEING
        else:
            is_right = model.load_state is (LoadState.LOADING if engine.loaded_at is None else LoadState.LOADED)
        if not is_right:
            return f"{name} counts as {model.load_state.value}, and is {engine or parked}"
        if name not in moment.after.active and not model.is_at_rest:
            return f"{name} is overlooked"
    return None


def the_machine_tells_of_engines_that_die(books: Books, moment: Moment) -> str | None:
    """From the first moment, and of no other that is being freed."""
    for name, engine in books.engines.items():
        failure = moment.after.models[name].failure
        if engine.is_dying != (failure is not None):
            return f"{name} is told to have failed with {failure}, and is {engine}"
    return None


def the_machine_knows_who_waits(books: Books, moment: Moment) -> str | None:
    waiting, leased = {}, {}
    for name in moment.after.active:
        model = moment.after.models[name]
        leased.update(dict.fromkeys(model.leases, name))
        waiting.update({wish.request: name for wish in model.queue if wish.request not in books.warm})
    expected = {r: request.model for r, request in books.requests.items() if request.phase is not Phase.LEASED}
    expected.update({r: caller.model for r, caller in books.callers.items()})
    if waiting != expected:
        return f"these wait: {expected}; in line are: {waiting}"
    holding = {r: request.model for r, request in books.requests.items() if request.phase is Phase.LEASED}
    return None if leased == holding else f"these hold leases: {holding}; noted are: {leased}"


def the_machine_counts_deaths(books: Books, moment: Moment) -> str | None:
    for name, model in moment.after.models.items():
        counted, known = (model.restarts, model.deaths_in_row), (books.deaths.get(name, 0), books.row.get(name, 0))
        if counted != known:
            return f"{name} had so many deaths, and in a row: {known}; counted are {counted}"
        suspects = {r for r, request in books.requests.items() if request.model == name and request.is_suspect}
        if model.suspects != suspects:
            return f"of {name} these are suspects: {suspects}; noted are {set(model.suspects)}"
    return None


def who_was_active_in_two_deaths_is_blamed(books: Books, moment: Moment) -> str | None:
    return f"these have ended their engine twice, and go on: {books.guilty}" if books.guilty else None


def nobody_goes_through_too_many_deaths(books: Books, moment: Moment) -> str | None:
    for number, request in books.requests.items():
        if request.deaths >= MAX_DEATHS_SURVIVED and request.phase is not Phase.LEASED:
            return f"{number} waits for another engine of {request.model} after {request.deaths} deaths"
    return None


def nobody_goes_on_with_other_weights(books: Books, moment: Moment) -> str | None:
    event = moment.event
    begun = [
        number
        for number, request in books.requests.items()
        if request.phase is not Phase.WAITING
        and (request.model in books.stale or (isinstance(event, FilesReplaced) and request.model == event.model))
    ]
    kept = sorted(books.stale & books.prefixes.keys())
    if isinstance(event, FilesReplaced) and event.model in books.prefixes:
        kept.append(event.model)
    return f"these go on with other weights: {begun}; and this is kept: {kept}" if begun or kept else None


def what_was_written_over_goes(books: Books, moment: Moment) -> str | None:
    serving = [name for name in books.stale if name in books.engines and not books.engines[name].is_freeing]
    serving += [name for name in books.stale if name in books.parked and not books.parked[name].is_freeing]
    known = [name for name in books.stale if not moment.after.models[name].is_stale]
    return f"these were written over, and stay: {serving} {known}" if serving or known else None


def who_waits_for_what_is_given_up_is_refused(books: Books, moment: Moment) -> str | None:
    if not isinstance(moment.event, EngineDied) or moment.event.model not in books.failed:
        return None
    waiting = [r for r, q in books.requests.items() if q.model == moment.event.model]
    return f"{moment.event.model} is given up, and these go on: {waiting}" if waiting else None


def a_death_is_heard_by_nobody_where_the_model_is_tried_again(books: Books, moment: Moment) -> str | None:
    if not isinstance(moment.event, EngineDied) or moment.event.model in books.failed:
        return None
    refused = [e for e in moment.effects if isinstance(e, Reject) and isinstance(e.error, ModelLoadFailed)]
    return f"{moment.event.model} is tried again, and these are refused: {refused}" if refused else None


def poison_is_refused(books: Books, moment: Moment) -> str | None:
    event = moment.event
    if isinstance(event, RequestArrived) and books.is_poison(event.content) and event.request in books.requests:
        return f"{event.request} has a content that is refused, and is served"
    kept = {content for content in moment.after.poison if not books.is_poison(content)}
    return f"these contents are refused for too long: {kept}" if kept else None


def nobody_waits_too_long(books: Books, moment: Moment) -> str | None:
    for request_id, request in books.requests.items():
        if request.phase is not Phase.LEASED and books.now >= request.until:
            return f"{request_id} waits for {request.model} since {request.since:.2f}, until {request.until:.2f}"
    for request_id, caller in books.callers.items():
        if books.now >= caller.since + books.policy.max_wait_s:
            return f"the caller {request_id} waits for too long: {caller}"
    return None


def nobody_waits_for_what_is_there(books: Books, moment: Moment) -> str | None:
    for name in moment.after.active:
        model = moment.after.models[name]
        if model.load_state is LoadState.LOADED and model.queue and model.draining_since is None:
            first = model.queue[0]
            # Only an unload that waits holds others up, and only while there are leases.
            if first.kind is not WaitKind.UNLOAD or not first.mode.waits or not model.leases:
                return f"{name} serves, and {first.request} waits for it"
    return None


def nobody_waits_when_everything_closes(books: Books, moment: Moment) -> str | None:
    waiting = [r for r, request in books.requests.items() if request.phase is not Phase.LEASED]
    if books.is_closing and (waiting or books.callers):
        return f"everything closes, and these still wait: {waiting} {list(books.callers)}"
    return None


def who_does_not_wait_still_has_the_model_loaded(books: Books, moment: Moment) -> str | None:
    for effect in moment.effects:
        if isinstance(effect, Reject) and isinstance(effect.error, ModelLoading) and effect.request in books.warm:
            model = moment.after.models[effect.model]
            is_coming = model.load_state in (LoadState.SIZING, LoadState.LOADING)
            if not is_coming and not any(wish.wants_load and not wish.does_not_trigger_load for wish in model.queue):
                return f"{effect.request} did not wait, and nothing loads {effect.model} for its next try"
    return None


def the_only_model_that_is_wanted_is_loaded_where_it_fits(books: Books, moment: Moment) -> str | None:
    if books.is_closing:
        return None
    absent = [
        name
        for name in moment.after.active
        if moment.after.models[name].load_state in ABSENT
        and (first := moment.after.models[name].first) is not None
        and first.kind is not WaitKind.UNLOAD
    ]
    if len(absent) != 1 or absent[0] not in books.footprints:
        return None
    needed = books.used(loading=absent[0])
    return None if needed > books.budget else f"{absent[0]} is wanted and fits, and nothing is done"


def idle_models_go(books: Books, moment: Moment) -> str | None:
    serving = {name for name, engine in books.engines.items() if engine.is_serving}
    parked = {name for name, weights in books.parked.items() if not weights.is_freeing}
    for name in sorted(serving | parked):
        if books.traits[name].is_pinned or (name in parked and books.is_wanted(name)):
            continue
        if any(request.model == name for request in books.requests.values()):
            continue
        if books.now > books.used_at[name] + books.idle_s[name][1] + ROUNDING_S:
            return f"{name} is idle since {books.used_at[name]:.2f} and should stay for {books.idle_s[name][1]} s"
    return None


def failures_disturb_nobody_else(books: Books, moment: Moment) -> str | None:
    if not isinstance(moment.event, EngineLoadFailed | EngineDying | EngineDied | FilesWrittenOver | FilesReplaced):
        return None
    for name, before in moment.before.models.items():
        if name == moment.event.model or before.load_state is not LoadState.LOADED or name not in moment.after.models:
            continue
        after = moment.after.models[name]
        if after.load_state is LoadState.LOADED:
            continue
        # Its memory may be what somebody else waited for, who then needs that of idle models too.
        if before.leases or not any(books.is_wanted(other) for other in moment.after.models):
            return f"the failure of {moment.event.model} disturbs {name}"
    return None


def due_is_not_past(books: Books, moment: Moment) -> str | None:
    if moment.after.due_at <= books.now:
        return f"due at {moment.after.due_at}, and it is {books.now}: a busy loop"
    return None


OF_EFFECTS: dict[type, tuple[Callable[[Books, Any], str | None], ...]] = {
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

OF_STEPS: tuple[Callable[[Books, Moment], str | None], ...] = (
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
