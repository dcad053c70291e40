"""What must hold of effects: one small function each. They return what is wrong, or None.

Each effect is judged in the order in which effects are run, before the oracle notes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
from modelyard.protocol.placement import HOST_NAME
from modelyard.yard.residency.deaths import MAX_DEATHS_SURVIVED
from modelyard.yard.residency.effects import (
    Abort,
    Blame,
    Complete,
    ComputeFootprint,
    Free,
    Grant,
    RefuseGrowth,
    Reject,
    Remove,
    Resize,
    StartLoad,
)
from modelyard.yard.residency.waiting import UnloadMode
from support.simulation.oracle import ROUNDING_S, Oracle, Phase, exceeded, least_stay_s, taken
from support.simulation.pools import OF_POOLS

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
    footprint = oracle.begun(effect)
    needed = oracle.used(effect.model, footprint)
    is_short = oracle.short(footprint, needed)
    return f"the load of {effect.model} makes it {needed} of {oracle.budgets}" if is_short else None


def load_is_wanted(oracle: Oracle, effect: StartLoad) -> str | None:
    if oracle.is_closing:
        return f"{effect.model} is loaded although everything closes"
    is_wanted = oracle.is_wanted(effect.model) or effect.model in oracle.moving
    return None if is_wanted else f"{effect.model} is loaded for nobody"


def no_load_overtakes_an_unload(oracle: Oracle, effect: StartLoad) -> str | None:
    overtaken = {mode for mode in oracle.asked_modes(effect.model) if not mode.waits}
    return f"{effect.model} is loaded before it was unloaded by {overtaken}" if overtaken else None


def nobody_takes_back_what_was_given_up(oracle: Oracle, effect: StartLoad) -> str | None:
    """In a fair world: a busy model went for the requests of another one, which is there first."""
    oldest, since = oracle.gave_way.get(effect.model) or (None, 0.0)
    request = None if oldest is None else oracle.requests.get(oldest)
    if not oracle.is_fair or request is None or request.phase is Phase.LEASED or request.since > since:
        return None
    if request.model in oracle.engines or request.behind_drain or request.model not in oracle.choices:
        return None
    staying = [engine.footprint for engine in oracle.engines.values() if not engine.is_freeing]
    own = oracle.begun(effect)
    for choice in oracle.choices[request.model]:
        both = taken([*staying, own, choice.smallest])
        both[HOST_NAME] += oracle.kept()
        if not oracle.short(choice, both):
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
    if effect.reason == "move" and effect.model in oracle.parked:
        # It is loaded elsewhere at once.
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
    if _is_explicit(oracle, model) or exceeded(oracle.used(), oracle.budgets) or effect.reason == "move":
        # Moves have reasons of their own.
        return None
    is_used = bool(oracle.of(model, Phase.LEASED)) or model in oracle.holds.values()
    if oracle.now >= oracle.used_at[model] + oracle.idle_s[model][0] - ROUNDING_S and not is_used:
        return None
    absent = [other for other in oracle.traits if other not in oracle.engines]
    if oracle.is_anyone_growing():
        return None
    return None if any(oracle.is_wanted(other) for other in absent) else f"{model} is freed for nobody: {effect.why}"


def what_is_kept_fits(oracle: Oracle, effect: Free) -> str | None:
    peak = oracle.used()[HOST_NAME] + effect.keep_bytes
    if effect.keep_bytes and peak > oracle.budget:
        return f"{effect.model} may keep {effect.keep_bytes}, which makes it {peak} of {oracle.budget}"
    return None


def nothing_is_kept_of_what_was_written_over(oracle: Oracle, effect: Free) -> str | None:
    if effect.model not in oracle.stale or not (effect.keep_bytes or effect.keeps_weights or effect.suspends):
        return None
    return f"{effect.model} was written over, and is freed to keep something: {effect}"


def _is_explicit(oracle: Oracle, model: str) -> bool:
    return oracle.is_closing or model in oracle.retired or model in oracle.stale or bool(oracle.asked_modes(model))


# Contexts


def only_contexts_of_serving_models_are_resized(oracle: Oracle, effect: Resize) -> str | None:
    engine = oracle.engines.get(effect.model)
    if engine is None or not engine.is_serving or engine.resizing:
        return f"{effect.model} is resized, and is {engine}"
    known = [size.cells for size in engine.footprint.sizes]
    if not effect.sizes or not set(effect.sizes) <= set(known) or engine.footprint.cells in effect.sizes:
        return f"{effect.model} is resized to {effect.sizes} of {known}, and has {engine.footprint.cells}"
    return None


def larger_contexts_fit(oracle: Oracle, effect: Resize) -> str | None:
    footprint = oracle.engines[effect.model].footprint
    most = footprint.with_cells(max(*effect.sizes, footprint.cells))
    needed = oracle.used_instead(effect.model, most)
    needed[HOST_NAME] += effect.keep_bytes
    is_short = most is not footprint or effect.keep_bytes
    short = oracle.short(most, needed) if is_short else []
    return f"the context of {effect.model} makes it {needed} of {oracle.budgets}" if short else None


def contexts_shrink_for_somebody(oracle: Oracle, effect: Resize) -> str | None:
    if max(effect.sizes) > oracle.engines[effect.model].footprint.cells:
        return None
    absent = [name for name in oracle.traits if name not in oracle.engines or oracle.engines[name].is_freeing]
    is_wanted = any(oracle.is_wanted(other) for other in absent) or oracle.is_anyone_growing()
    return None if is_wanted else f"the context of {effect.model} shrinks for nobody"


def growth_is_refused_only_where_it_never_fits(oracle: Oracle, effect: RefuseGrowth) -> str | None:
    short = oracle.short_beside_pinned(effect.model, oracle.engines[effect.model].footprint)
    return None if short else f"{effect.model} is refused a context that may fit"


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
            short = [oracle.short_beside_pinned(model, each) for each in oracle.choices[model]]
            is_true = all(short) and any((error.device or HOST_NAME) in pools for pools in short)
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


OF_EFFECTS: dict[type, tuple[Callable[[Oracle, Any], str | None], ...]] = {
    ComputeFootprint: (is_sized_once,),
    StartLoad: (
        is_loaded_once,
        load_fits,
        load_is_wanted,
        no_load_overtakes_an_unload,
        nobody_takes_back_what_was_given_up,
        *OF_POOLS[StartLoad],
    ),
    Free: (
        only_loaded_or_parked_models_are_freed,
        pinned_models_stay,
        leases_are_suspended_or_ended_on_purpose,
        busy_models_have_their_time,
        frees_have_a_reason,
        what_is_kept_fits,
        nothing_is_kept_of_what_was_written_over,
        *OF_POOLS[Free],
    ),
    Resize: (
        only_contexts_of_serving_models_are_resized,
        larger_contexts_fit,
        contexts_shrink_for_somebody,
    ),
    RefuseGrowth: (growth_is_refused_only_where_it_never_fits,),
    Grant: (grants_are_to_those_who_wait, suspects_are_computed_alone_and_nobody_else),
    Blame: (only_those_are_blamed_that_were_active_in_two_deaths,),
    Abort: (only_what_was_begun_is_aborted,),
    Reject: (rejections_are_of_those_who_wait, rejections_are_true),
    Complete: (completions_are_true,),
    Remove: (only_retired_models_are_removed,),
}
