"""Who gets memory: loads that fit are started; for the most urgent load that does not fit, other models make room."""

from __future__ import annotations

import math
from itertools import takewhile
from typing import Final

from modelyard.errors import (
    InsufficientMemory,
)
from modelyard.protocol.placement import HOST_NAME
from modelyard.yard.residency.builder import StateBuilder
from modelyard.yard.residency.choice import plan_load, plan_move
from modelyard.yard.residency.effects import ComputeFootprint, RefuseGrowth
from modelyard.yard.residency.eviction import EvictionPlan, Fit, plan_eviction, plan_without_eviction
from modelyard.yard.residency.expected_cost import load_seconds
from modelyard.yard.residency.growth import least_footprint, plan_growth
from modelyard.yard.residency.queue import without
from modelyard.yard.residency.room import footprint_of
from modelyard.yard.residency.state import ABSENT, LoadState, ModelState, Residency
from modelyard.yard.residency.waiting import MOVE, Waiter

LOAD_WEIGHT = 2.0
"""Seconds of waiting that weigh as much as a second of load time for each request."""

# The states in which a model holds nothing that was loaded with its present footprints.
REREAD: Final = ABSENT - {LoadState.PARKED}


def allocate(builder: StateBuilder) -> None:
    """Start the loads that fit; for the most urgent that does not, evict other models."""
    claim: tuple[str, EvictionPlan] | None = None
    draining: set[str] = set()
    has_begun_beside = False
    waiting = _waiting(builder)
    for name in waiting:
        model = builder.models[name]
        if model.only_moves:
            _end_move(builder, name)
            continue
        if model.load_state not in ABSENT and model.growth is None:
            # Its parked weights have just been freed for another model.
            continue
        plan = None if model.footprint is None else _planned(builder.state, name, is_behind=claim is not None)
        if plan is None or _is_sized_again(model, plan):
            builder.set_model(name, model._replace(load_state=LoadState.SIZING, is_outdated=False))
            builder.effects.append(ComputeFootprint(name))
            continue
        if model.load_state is LoadState.PARKED and not _is_where_parked(model, plan):
            builder.free(name, suspends=False, why="it does not fit where its weights are", reason="move")
        elif plan.fit is Fit.NEVER:
            _refuse_never(builder, name, plan)
        elif claim is None and plan.fit is Fit.FITS:
            _begin(builder, name, plan)
        elif claim is not None:
            # Behind the claim, only loads start that take nothing from it.
            if plan.fit is Fit.FITS and _fits_beside(builder, name, plan, claim):
                _begin(builder, name, plan)
                has_begun_beside = True
        elif _may_claim(builder, name, plan):
            draining = _claim(builder, name, plan)
            if _waits_for_memory(builder.models[name]):
                claim = (name, plan)
    started = [name for name in waiting if builder.models[name].load_state is LoadState.LOADING]
    if any(builder.models[name].policy.is_pinned for name in started):
        # A model that this pass has handled already may never fit beside one that is pinned from now on.
        allocate(builder)
        return
    if draining and claim is not None and any(_is_freeing(builder, other) for other in claim[1].drains):
        # One that has begun to go may make it needless that the others do, in this placement or in another.
        allocate(builder)
        return
    if has_begun_beside:
        # A context that grows cannot shrink for the claim, which others make room for instead: more may fit beside it.
        allocate(builder)
        return
    _end_drains(builder, draining)


def _planned(state: Residency, name: str, *, is_behind: bool) -> EvictionPlan:
    """Return how the model is loaded; of one behind a claim, for which nothing is evicted, only whether it fits now.

    Of several placements it takes a plan to know which one is loaded.
    """
    model = state.models[name]
    if is_behind and (len(model.choices) < 2 or model.growth is not None):
        return plan_without_eviction(state, name, least_footprint(model, footprint_of(model)))
    return plan_load(state, name) if model.growth is None else plan_growth(state, name)


def _is_sized_again(model: ModelState, plan: EvictionPlan) -> bool:
    """Whether the model is sized again before it is loaded.

    Answers that have begun go on in a context as long as theirs, unless there is no room for one any more. What a load
    for want of memory has taught about the present footprints is needed for the next attempt.
    """
    if not model.is_outdated or model.load_state not in REREAD or model.has_fallen_back:
        return False
    return plan.fit is Fit.NEVER or not any(waiter.has_begun for waiter in model.queue)


def _begin(builder: StateBuilder, name: str, plan: EvictionPlan) -> None:
    """Begin what the model waits for, which has room: its load, or a larger context."""
    if builder.models[name].load_state is LoadState.LOADED:
        builder.resize(name, plan.footprint)
    else:
        builder.start_load(name, plan.footprint)


def _waits_for_memory(model: ModelState) -> bool:
    return model.load_state in ABSENT or model.growth is not None


def _is_freeing(builder: StateBuilder, name: str) -> bool:
    return builder.models[name].load_state is LoadState.FREEING


def _end_drains(builder: StateBuilder, draining: set[str]) -> None:
    """Let the models grant leases again that drained, and no longer have to make room."""
    for name in sorted(builder.active):
        model = builder.models[name]
        if model.makes_room_since is not None and name not in draining:
            builder.set_model(name, model._replace(makes_room_since=None))


def _waiting(builder: StateBuilder) -> list[str]:
    """Return the models that are waited for and whose load or growth can start, most urgent first."""
    if builder.state.is_closing:
        return []
    absent = [n for n in builder.active if builder.models[n].load_state in ABSENT]
    waiting = [n for n in absent if (first := builder.models[n].first) is not None and first.wants_load]
    waiting += [n for n in builder.active if builder.models[n].growth and builder.models[n].resizing is None]
    return sorted(waiting, key=lambda name: _rank(builder, name))


def _rank(builder: StateBuilder, name: str) -> tuple[bool, float, float, int]:
    """Return the rank of the model among those that are waited for; the lowest is the most urgent.

    First comes the model that others have begun to make room for, then those that are out of patience, the oldest
    first, then the others: by priority, then by the arrival of the oldest request, which counts as later by
    LOAD_WEIGHT times the load time for each of the requests that it would serve.
    """
    model = builder.models[name]
    oldest = model.growth or _oldest(model)
    if model.only_moves:
        return True, math.inf, 0.0, oldest.order
    is_out_of_patience = _is_out_of_patience(builder, name)
    if not is_out_of_patience:
        builder.due.append(oldest.since + builder.state.policy.patience_s)
    if model.has_claim or is_out_of_patience:
        return False, -1.0 if model.has_claim else 0.0, 0.0, oldest.order
    # A context grows within a moment.
    cost_s = 0.0 if model.growth else load_seconds(model) / len(_served_by_load(model))
    return True, -model.urgency, oldest.since + LOAD_WEIGHT * cost_s, oldest.order


def _is_out_of_patience(builder: StateBuilder, name: str) -> bool:
    model = builder.models[name]
    since = (model.growth or _oldest(model)).since
    return builder.state.now >= since + builder.state.policy.patience_s


def _may_claim(builder: StateBuilder, name: str, plan: EvictionPlan) -> bool:
    """Whether no busy model that would have to make room is more urgent."""
    urgency = builder.models[name].urgency
    return _is_out_of_patience(builder, name) or all(builder.models[other].urgency <= urgency for other in plan.drains)


def _claim(builder: StateBuilder, name: str, plan: EvictionPlan) -> set[str]:
    """Have other models make room for the model; return those that drain.

    Idle models are evicted only once no busy model is waited for.
    """
    may_begin_at = max((_may_go_at(builder, other) for other in plan.drains), default=-math.inf)
    if builder.state.now < may_begin_at:
        # All make room at once: one that was unloaded before the others may be would help no model.
        builder.due.append(may_begin_at)
        return set()
    if any(_would_return(builder, other, name) for other in plan.drains):
        return set()
    if plan.drains or plan.evicts or plan.frees_weights_of:
        # Whoever arrives while others make room, also for these, does not take their memory.
        builder.set_model(name, builder.models[name]._replace(has_claim=True))
    draining = {other for other in plan.drains if _drain(builder, other, name, plan)}
    if all(_is_freeing(builder, other) for other in plan.drains):
        for other in plan.shrinks:
            builder.resize(other, footprint_of(builder.models[other]).smallest)
        for other in plan.discards:
            builder.discard_kept(other)
        why = f"to make room for {builder.models[name].policy.name}"
        for other in (*plan.frees_weights_of, *plan.evicts):
            builder.free(
                other,
                suspends=False,
                why=why,
                reason="room",
                claimant=name,
                claimed=plan.footprint,
                keeps_weights=other in plan.parks,
            )
        if plan_eviction(builder.state, name, plan.footprint).fit is Fit.FITS:
            _begin(builder, name, plan)
    return draining


def _would_return(builder: StateBuilder, name: str, claimant: str) -> bool:
    """Whether a model that made room for the claimant would be loaded again before the claimant.

    Its requests may have begun to wait earlier, while it made room for a model that is no longer waited for.
    """
    first = builder.models[name].first
    return first is not None and first.wants_load and _rank(builder, name) < _rank(builder, claimant)


def _may_go_at(builder: StateBuilder, name: str) -> float:
    """Return when a busy model has been loaded long enough to make room."""
    model, policy = builder.models[name], builder.state.policy
    stays_s = max(policy.min_residency_s, policy.residency_per_load * (model.loaded_at - model.load_began))
    return model.loaded_at if model.is_retired else model.loaded_at + stays_s


def _drain(builder: StateBuilder, name: str, claimant: str, plan: EvictionPlan) -> bool:
    """Have a busy model make room; return whether it drains, and is not freed yet."""
    model, policy, now = builder.models[name], builder.state.policy, builder.state.now
    since = now if model.makes_room_since is None else model.makes_room_since
    if model.leases and now < since + policy.drain_s:
        builder.due.append(since + policy.drain_s)
        builder.set_model(name, model._replace(makes_room_since=since))
        return True
    why = f"to make room for {builder.models[claimant].policy.name}"
    keeps_weights = name in plan.parks
    builder.free(
        name,
        suspends=True,
        why=why,
        reason="room",
        claimant=claimant,
        claimed=plan.footprint,
        keeps_weights=keeps_weights,
    )
    return False


def _end_move(builder: StateBuilder, name: str) -> None:
    """Load a moving model in the fastest placement that has room, unless anybody waits for memory by now.

    A move ranks behind all waiters, so that those who fit have been served. Where it cannot end at once, the model
    stays unloaded: a move that waited would take what others wait for.
    """
    model = builder.models[name]
    plan = None
    if not any(builder.models[other].is_waited_for for other in builder.active) and not model.is_retired:
        plan = plan_move(builder.state, name)
    if plan is None:
        builder.set_model(name, model._replace(queue=without(model.queue, MOVE)))
    else:
        builder.start_load(name, plan.footprint)


def _is_where_parked(model: ModelState, plan: EvictionPlan) -> bool:
    return model.footprint is not None and plan.footprint.placement == model.footprint.placement


def _fits_beside(builder: StateBuilder, name: str, plan: EvictionPlan, claim: tuple[str, EvictionPlan]) -> bool:
    """Whether the model still fits as it is planned when the claim has been met."""
    claimant, claimed = claim
    state = builder.state
    # ``name`` is added last, because its own parked weights may be among those that the claim frees.
    after = {*state.resident(), claimant}.difference(claimed.victims) | {name}
    alone = state.weights_alone() - {claimant, name}
    taken = state.taken(after, alone, instead={claimant: claimed.footprint, name: plan.footprint})
    taken[HOST_NAME] += state.kept_bytes
    own = {HOST_NAME, *(share.pool for share in plan.footprint.devices)}
    return own.isdisjoint(state.exceeded(taken))


def _refuse_never(builder: StateBuilder, name: str, plan: EvictionPlan) -> None:
    error = insufficient_memory(builder.state, name, plan)
    model = builder.models[name]
    if model.growth is None:
        builder.refuse_queue(name, error)
    else:
        # A smaller budget, or a model that was pinned since, has broken the promise.
        builder.set_model(name, model._replace(growth=None))
        builder.effects.append(RefuseGrowth(name, error))


def insufficient_memory(state: Residency, name: str, plan: EvictionPlan) -> InsufficientMemory:
    """Return why a model cannot be loaded, by a plan that says that it never fits."""
    # A model of other servers is pinned, too, and takes nothing.
    taking = [other for other in plan.pinned if footprint_of(state.models[other]).total_bytes]
    pinned = [state.models[other].policy.name for other in taking]
    own = state.taken([name], instead={name: plan.footprint})
    if alone := state.exceeded(own):
        pinned = []
    # The first pool that is too small; beside pinned models the one that they leave too little of.
    instead = {other: footprint_of(state.models[other]).whole for other in plan.pinned} | {name: plan.footprint}
    beside_pinned = state.taken({name, *plan.pinned}, state.weights_alone() - {name}, instead)
    short = alone or [pool for pool in state.exceeded(beside_pinned) if pool in own]
    pool = short[0] if short else HOST_NAME
    device = "" if pool == HOST_NAME else pool
    return InsufficientMemory(state.models[name].policy.name, own[pool], state.budget_of(pool), pinned, device)


def _oldest(model: ModelState) -> Waiter:
    """Return the waiter that has waited longest; the move of the model counts only where there is no other waiter."""
    return min(_served_by_load(model), key=lambda waiter: (waiter.request == MOVE, waiter.order))


def _served_by_load(model: ModelState) -> list[Waiter]:
    """Return the waiters that a load would serve.

    Waiters behind an unload do not count: for them the model would take back memory that it has just given to a younger
    request, and serve other requests with it.
    """
    served = takewhile(lambda waiter: waiter.wants_load, model.queue)
    return [waiter for waiter in served if not waiter.does_not_trigger_load]
