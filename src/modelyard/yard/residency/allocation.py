"""Who gets memory: loads that fit are started, and for the most urgent that does not fit others make room."""

from __future__ import annotations

import math
from itertools import takewhile

from modelyard.errors import (
    InsufficientMemory,
)
from modelyard.yard.residency.builder import StateBuilder
from modelyard.yard.residency.events import (
    ComputeFootprint,
)
from modelyard.yard.residency.eviction import EvictionPlan, Fit, plan_eviction
from modelyard.yard.residency.state import (
    ABSENT,
    NO_FOOTPRINT,
    LoadState,
    ModelState,
    Waiter,
)


def allocate(builder: StateBuilder) -> None:
    """Start the loads that fit; for the most urgent that does not, have others go."""
    claim: tuple[str, EvictionPlan] | None = None
    yielding: set[str] = set()
    waiting = _waiting(builder)
    for name in waiting:
        model = builder.models[name]
        if model.load_state not in ABSENT:
            # Its parked weights have just been given up for another.
            continue
        if model.footprint is None:
            builder.set_model(name, model._replace(load_state=LoadState.SIZING))
            builder.effects.append(ComputeFootprint(name))
            continue
        plan = plan_eviction(builder.state, name)
        if plan.fit is Fit.NEVER:
            _refuse_never(builder, name, plan)
        elif claim is None and plan.fit is Fit.FITS:
            builder.start_load(name)
        elif claim is not None:
            # Behind it, only what does not take from it.
            if plan.fit is Fit.FITS and _fits_beside(builder, name, claim):
                builder.start_load(name)
        elif _may_claim(builder, name, plan):
            yielding = _claim(builder, name, plan)
            if builder.models[name].load_state is not LoadState.LOADING:
                claim = (name, plan)
    started = [name for name in waiting if builder.models[name].load_state is LoadState.LOADING]
    if any(builder.models[name].policy.is_pinned for name in started):
        # Beside what is pinned from now on, one that was looked at before it may never fit.
        allocate(builder)
        return
    for name in sorted(builder.active):
        model = builder.models[name]
        if model.draining_since is not None and name not in yielding:
            builder.set_model(name, model._replace(draining_since=None))


def _waiting(builder: StateBuilder) -> list[str]:
    """The models that somebody waits for and whose load can start, most urgent first."""
    if builder.state.is_closing:
        return []
    absent = [n for n in builder.active if builder.models[n].load_state in ABSENT]
    waiting = [n for n in absent if (first := builder.models[n].first) is not None and first.wants_load]

    return sorted(waiting, key=lambda name: _rank(builder, name))


def _rank(builder: StateBuilder, name: str) -> tuple[bool, int, int]:
    """Where the model stands among those that somebody waits for; the lowest is the most urgent."""
    model = builder.models[name]
    oldest = _oldest(model)
    if _is_out_of_patience(builder, name):
        return False, 0, oldest.order
    builder.due.append(oldest.since + builder.state.policy.patience_s)
    return True, -model.urgency, oldest.order


def _is_out_of_patience(builder: StateBuilder, name: str) -> bool:
    since = _oldest(builder.models[name]).since
    return builder.state.now >= since + builder.state.policy.patience_s


def _may_claim(builder: StateBuilder, name: str, plan: EvictionPlan) -> bool:
    """Whether nobody more urgent holds the memory."""
    urgency = builder.models[name].urgency
    return _is_out_of_patience(builder, name) or all(builder.models[other].urgency <= urgency for other in plan.drains)


def _claim(builder: StateBuilder, name: str, plan: EvictionPlan) -> set[str]:
    """Have others make room for the model; those that yield. Idle ones go when nobody else is waited for."""
    may_begin_at = max((_may_go_at(builder, other) for other in plan.drains), default=-math.inf)
    if builder.state.now < may_begin_at:
        # All at once: one that went before the others may would be gone for nobody.
        builder.due.append(may_begin_at)
        return set()
    if any(_would_return(builder, other, name) for other in plan.drains):
        return set()
    yielding = {other for other in plan.drains if _yield(builder, other, name, keeps_weights=other in plan.parks)}
    if all(builder.models[other].load_state is LoadState.FREEING for other in plan.drains):
        for other in plan.discards:
            builder.discard_kept(other)
        why = f"to make room for {builder.models[name].policy.name}"
        for other in (*plan.frees_weights_of, *plan.evicts):
            builder.free(
                other, suspends=False, why=why, reason="room", claimant=name, keeps_weights=other in plan.parks
            )
        if plan_eviction(builder.state, name).fit is Fit.FITS:
            builder.start_load(name)
    return yielding


def _would_return(builder: StateBuilder, name: str, claimant: str) -> bool:
    """Whether a model that made room for another would be loaded before the claimant again.

    Its own requests began to wait before, when it made room for somebody who has left: they are served first.
    """
    first = builder.models[name].first
    return first is not None and first.wants_load and _rank(builder, name) < _rank(builder, claimant)


def _may_go_at(builder: StateBuilder, name: str) -> float:
    """When a busy model has been there long enough to make room."""
    model, policy = builder.models[name], builder.state.policy
    stays_s = max(policy.min_residency_s, policy.residency_per_load * (model.loaded_at - model.load_began))
    return model.loaded_at if model.is_retired else model.loaded_at + stays_s


def _yield(builder: StateBuilder, name: str, claimant: str, *, keeps_weights: bool) -> bool:
    """Have a busy model make room; whether it does so and is still there."""
    model, policy, now = builder.models[name], builder.state.policy, builder.state.now
    since = now if model.draining_since is None else model.draining_since
    if model.leases and now < since + policy.drain_s:
        builder.due.append(since + policy.drain_s)
        builder.set_model(name, model._replace(draining_since=since))
        return True
    why = f"to make room for {builder.models[claimant].policy.name}"
    builder.free(name, suspends=True, why=why, reason="room", claimant=claimant, keeps_weights=keeps_weights)
    return False


def _fits_beside(builder: StateBuilder, name: str, claim: tuple[str, EvictionPlan]) -> bool:
    """Whether the model fits also when the claim has been met."""
    claimant, plan = claim
    state = builder.state
    # Also where its own parked weights are among those that would go.
    after = {*state.resident(), claimant}.difference(plan.victims) | {name}
    alone = state.weights_alone() - {claimant, name}
    return state.taken_bytes(after, alone) + state.kept_bytes <= state.budget_bytes


def _refuse_never(builder: StateBuilder, name: str, plan: EvictionPlan) -> None:
    model = builder.models[name]
    needed = (model.footprint or NO_FOOTPRINT).total_bytes
    pinned = [builder.models[other].policy.name for other in plan.pinned]
    if needed > builder.state.budget_bytes:
        pinned = []
    builder.refuse_queue(name, InsufficientMemory(model.policy.name, needed, builder.state.budget_bytes, pinned))


def _oldest(model: ModelState) -> Waiter:
    """The first of those that want the model loaded and that a load would serve, by arrival.

    Not those behind an unload: for their sake the model would take back what it has just given to a younger request,
    and serve others with it.
    """
    served = takewhile(lambda waiter: waiter.wants_load, model.queue)
    return min((waiter for waiter in served if not waiter.does_not_trigger_load), key=lambda waiter: waiter.order)
