"""What follows from a change: every line is brought as far as it goes, and what has had its time goes."""

from __future__ import annotations

import math

from modelyard.errors import (
    ModelBusy,
    ModelLoading,
    ModelUnloaded,
    ModelyardError,
)
from modelyard.yard.residency.allocation import make_room
from modelyard.yard.residency.builder import Draft, load_failed
from modelyard.yard.residency.events import (
    Grant,
    Remove,
)
from modelyard.yard.residency.eviction import load_seconds
from modelyard.yard.residency.queue import cut, entered
from modelyard.yard.residency.state import (
    ModelState,
    Residence,
    UnloadMode,
    Want,
    Wish,
)


def settle(draft: Draft) -> None:
    """Bring every line as far as it goes, and make room for those who wait."""
    _serve_lines(draft)
    _unload_idle(draft)
    _relieve(draft)
    if all(_is_settled(draft.models[name]) for name in draft.active):
        # As after nearly every event of a server whose models are there.
        return
    while True:
        make_room(draft)
        # All three, always: each may change who has to make room for whom.
        if not any([_serve_lines(draft), _expire(draft), _forget_retired(draft)]):
            break
    # Again: a parked model whose last request was refused is unused, and may be what is over the budget.
    _unload_idle(draft)
    _relieve(draft)


def _is_settled(model: ModelState) -> bool:
    """Whether nobody waits for the model, it makes room for nobody, and it is to stay known."""
    return not model.line and model.yields_since is None and not model.is_retired


def _serve_lines(draft: Draft) -> bool:
    """Give all who stand first what they want; whether anybody got it."""
    served = False
    for name in sorted(draft.active):
        while _serve(draft, name):
            served = True
    return served


def _serve(draft: Draft, name: str) -> bool:
    """Give the first in the model's line what it wants; whether that was possible."""
    model = draft.models[name]
    first = model.first
    if first is None:
        return False
    match model.residence, first.want:
        case Residence.LOADED, Want.LEASE | Want.RESUME if model.yields_since is None:
            leases = {**model.leases, first.request: first.priority}
            draft.put(name, model._replace(line=cut(model.line, first.request), leases=leases))
            draft.effects.append(Grant(name, first.request, first.request in model.suspects))
            return True
        case Residence.LOADED, Want.LOAD:
            draft.complete(name, model, first)
            return True
        case Residence.LOADED, Want.UNLOAD:
            if not first.mode.waits or not model.leases:
                suspends, keeps_weights = first.mode is UnloadMode.SUSPEND, first.mode is UnloadMode.PARK
                draft.free(
                    name, suspends=suspends, why="an unload was asked for", reason="asked", keeps_weights=keeps_weights
                )
        case Residence.PARKED, Want.UNLOAD if first.mode is not UnloadMode.PARK:
            draft.free(name, suspends=False, why="an unload was asked for", reason="asked")
        case ((Residence.UNLOADED | Residence.FAILED | Residence.PARKED), Want.UNLOAD):
            if model.residence is Residence.FAILED:
                model = model._replace(residence=Residence.UNLOADED)
            draft.complete(name, model, first)
            _after_unload(draft, name, first.mode)
            return True
        case Residence.FAILED, Want.LEASE | Want.RESUME if draft.state.now < model.retry_at:
            draft.put(name, model._replace(line=cut(model.line, first.request)))
            draft.reject(name, first.request, load_failed(draft, model))
            return True
    return False


def _after_unload(draft: Draft, name: str, mode: UnloadMode) -> None:
    """Suspended requests do not bring back a model that was unloaded on purpose."""
    model = draft.models[name]
    suspended = [wish for wish in model.line if wish.want is Want.RESUME]
    if mode is UnloadMode.FORCE:
        for wish in suspended:
            draft.put(name, draft.models[name]._replace(line=cut(draft.models[name].line, wish.request)))
            draft.reject(name, wish.request, ModelUnloaded(model.traits.name))
    elif mode is UnloadMode.SUSPEND:
        line = tuple(wish._replace(is_passive=wish.want is Want.RESUME) for wish in model.line)
        draft.put(name, model._replace(line=line))


def _unload_idle(draft: Draft) -> None:
    for name in sorted(draft.active):
        model = draft.models[name]
        if model.is_unused and model.is_retired:
            draft.free(name, suspends=False, why="it is no longer configured", reason="retired")
            continue
        over_at = model.last_used + model.idle_unload_s
        if not model.is_unused or model.traits.is_pinned or over_at == math.inf:
            continue
        if draft.state.now >= over_at:
            draft.free(name, suspends=False, why=f"it was idle for {model.idle_unload_s:g} s", reason="idle")
        else:
            draft.due.append(over_at)


def _relieve(draft: Draft) -> None:
    """Bring what is used back under the budget, where a load took more than predicted or the budget shrank."""
    state = draft.state
    if state.used_bytes <= state.budget_bytes:
        return
    kept = [name for name in sorted(state.active) if draft.models[name].kept_bytes]
    for name in sorted(kept, key=lambda name: draft.models[name].last_used):
        if state.used_bytes > state.budget_bytes and draft.models[name].residence is not Residence.FREEING:
            draft.forget(name)
    while state.used_bytes > state.budget_bytes:
        staying = [n for n in state.resident() if draft.models[n].residence is not Residence.FREEING]
        movable = [n for n in staying if draft.models[n].is_unused and not draft.models[n].traits.is_pinned]
        if not movable or state.taken_bytes(staying, state.weights_alone()) <= state.budget_bytes:
            return
        first = min(
            movable, key=lambda n: (draft.models[n].residence is not Residence.PARKED, draft.models[n].last_used)
        )
        draft.free(first, suspends=False, why="more memory is used than the budget has", reason="budget")


def _expire(draft: Draft) -> bool:
    """Refuse those whose time is over; whether there were any."""
    now, expired = draft.state.now, False
    for name in sorted(draft.active):
        for wish in draft.models[name].line:
            if now < wish.until:
                draft.due.append(wish.until)
                continue
            expired = True
            model = draft.models[name]
            draft.put(name, model._replace(line=cut(model.line, wish.request)))
            draft.reject(name, wish.request, _too_late(draft, model, wish))
            model = draft.models[name]
            if wish.until == wish.since and not any(o.wants_load and not o.is_passive for o in model.line):
                # Who does not wait comes again: by then the model is to be there, and as after a reload it stays.
                warm = draft.wish(Want.LOAD, wish.request, priority=wish.priority)
                idle_s = model.traits.idle_unload_s
                draft.put(name, model._replace(line=entered(model.line, warm), idle_unload_s=idle_s))
                draft.due.append(warm.until)
    return expired


def _too_late(draft: Draft, model: ModelState, wish: Wish) -> ModelyardError:
    waited_s = draft.state.now - wish.since
    if wish.want is Want.UNLOAD:
        return ModelBusy(model.traits.name, waited_s)
    remaining_s = load_seconds(model)
    if model.residence is Residence.LOADING:
        remaining_s -= draft.state.now - model.load_began
    return ModelLoading(model.traits.name, max(1, math.ceil(remaining_s)), waited_s)


def _forget_retired(draft: Draft) -> bool:
    """Forget the retired models that nobody needs; whether that gave memory back."""
    gave_back = False
    for name in sorted(draft.active):
        model = draft.models[name]
        if model.is_retired and model.prefix_bytes and not model.is_resident and not model.line:
            draft.forget(name)
            model, gave_back = draft.models[name], True
        if model.is_retired and model.is_at_rest:
            del draft.models[name]
            draft.active.discard(name)
            draft.effects.append(Remove(name))
    return gave_back
