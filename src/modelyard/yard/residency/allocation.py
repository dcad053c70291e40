"""Who gets memory: loads that fit are started, and for the most urgent that does not fit others make room."""

from __future__ import annotations

import math
from itertools import takewhile

from modelyard.errors import (
    InsufficientMemory,
)
from modelyard.yard.residency.builder import Draft
from modelyard.yard.residency.events import (
    Size,
)
from modelyard.yard.residency.eviction import Outcome, Room, find_room
from modelyard.yard.residency.state import (
    ABSENT,
    NO_FOOTPRINT,
    ModelState,
    Residence,
    Wish,
)


def make_room(draft: Draft) -> None:
    """Start the loads that fit; for the most urgent that does not, have others go."""
    claim: tuple[str, Room] | None = None
    yielding: set[str] = set()
    waiting = _waiting(draft)
    for name in waiting:
        model = draft.models[name]
        if model.residence not in ABSENT:
            # Its parked weights have just been given up for another.
            continue
        if model.footprint is None:
            draft.put(name, model._replace(residence=Residence.SIZING))
            draft.effects.append(Size(name))
            continue
        room = find_room(draft.state, name)
        if room.outcome is Outcome.NEVER:
            _refuse_never(draft, name, room)
        elif claim is None and room.outcome is Outcome.FITS:
            draft.start(name)
        elif claim is not None:
            # Behind it, only what does not take from it.
            if room.outcome is Outcome.FITS and _fits_beside(draft, name, claim):
                draft.start(name)
        elif _may_claim(draft, name, room):
            yielding = _claim(draft, name, room)
            if draft.models[name].residence is not Residence.LOADING:
                claim = (name, room)
    started = [name for name in waiting if draft.models[name].residence is Residence.LOADING]
    if any(draft.models[name].traits.is_pinned for name in started):
        # Beside what is pinned from now on, one that was looked at before it may never fit.
        make_room(draft)
        return
    for name in sorted(draft.active):
        model = draft.models[name]
        if model.yields_since is not None and name not in yielding:
            draft.put(name, model._replace(yields_since=None))


def _waiting(draft: Draft) -> list[str]:
    """The models that somebody waits for and whose load can start, most urgent first."""
    if draft.state.is_closing:
        return []
    absent = [n for n in draft.active if draft.models[n].residence in ABSENT]
    waiting = [n for n in absent if (first := draft.models[n].first) is not None and first.wants_load]

    return sorted(waiting, key=lambda name: _rank(draft, name))


def _rank(draft: Draft, name: str) -> tuple[bool, int, int]:
    """Where the model stands among those that somebody waits for; the lowest is the most urgent."""
    model = draft.models[name]
    oldest = _oldest(model)
    if _is_out_of_patience(draft, name):
        return False, 0, oldest.order
    draft.due.append(oldest.since + draft.state.policy.patience_s)
    return True, -model.urgency, oldest.order


def _is_out_of_patience(draft: Draft, name: str) -> bool:
    since = _oldest(draft.models[name]).since
    return draft.state.now >= since + draft.state.policy.patience_s


def _may_claim(draft: Draft, name: str, room: Room) -> bool:
    """Whether nobody more urgent holds the memory."""
    urgency = draft.models[name].urgency
    return _is_out_of_patience(draft, name) or all(draft.models[other].urgency <= urgency for other in room.yields)


def _claim(draft: Draft, name: str, room: Room) -> set[str]:
    """Have others make room for the model; those that yield. Idle ones go when nobody else is waited for."""
    may_begin_at = max((_may_go_at(draft, other) for other in room.yields), default=-math.inf)
    if draft.state.now < may_begin_at:
        # All at once: one that went before the others may would be gone for nobody.
        draft.due.append(may_begin_at)
        return set()
    if any(_would_return(draft, other, name) for other in room.yields):
        return set()
    yielding = {other for other in room.yields if _yield(draft, other, name, keeps_weights=other in room.parks)}
    if all(draft.models[other].residence is Residence.FREEING for other in room.yields):
        for other in room.forgets:
            draft.forget(other)
        why = f"to make room for {draft.models[name].traits.name}"
        for other in (*room.drops, *room.evicts):
            draft.free(other, suspends=False, why=why, reason="room", claimant=name, keeps_weights=other in room.parks)
        if find_room(draft.state, name).outcome is Outcome.FITS:
            draft.start(name)
    return yielding


def _would_return(draft: Draft, name: str, claimant: str) -> bool:
    """Whether a model that made room for another would be loaded before the claimant again.

    Its own requests began to wait before, when it made room for somebody who has left: they are served first.
    """
    first = draft.models[name].first
    return first is not None and first.wants_load and _rank(draft, name) < _rank(draft, claimant)


def _may_go_at(draft: Draft, name: str) -> float:
    """When a busy model has been there long enough to make room."""
    model, policy = draft.models[name], draft.state.policy
    stays_s = max(policy.least_residency_s, policy.residency_per_load * (model.loaded_at - model.load_began))
    return model.loaded_at if model.is_retired else model.loaded_at + stays_s


def _yield(draft: Draft, name: str, claimant: str, *, keeps_weights: bool) -> bool:
    """Have a busy model make room; whether it does so and is still there."""
    model, policy, now = draft.models[name], draft.state.policy, draft.state.now
    since = now if model.yields_since is None else model.yields_since
    if model.leases and now < since + policy.yield_s:
        draft.due.append(since + policy.yield_s)
        draft.put(name, model._replace(yields_since=since))
        return True
    why = f"to make room for {draft.models[claimant].traits.name}"
    draft.free(name, suspends=True, why=why, reason="room", claimant=claimant, keeps_weights=keeps_weights)
    return False


def _fits_beside(draft: Draft, name: str, claim: tuple[str, Room]) -> bool:
    """Whether the model fits also when the claim has been met."""
    claimant, room = claim
    state = draft.state
    # Also where its own parked weights are among those that would go.
    after = {*state.resident(), claimant}.difference(room.victims) | {name}
    alone = state.weights_alone() - {claimant, name}
    return state.taken_bytes(after, alone) + state.kept_bytes <= state.budget_bytes


def _refuse_never(draft: Draft, name: str, room: Room) -> None:
    model = draft.models[name]
    needed = (model.footprint or NO_FOOTPRINT).total_bytes
    pinned = [draft.models[other].traits.name for other in room.pinned]
    if needed > draft.state.budget_bytes:
        pinned = []
    draft.refuse_line(name, InsufficientMemory(model.traits.name, needed, draft.state.budget_bytes, pinned))


def _oldest(model: ModelState) -> Wish:
    """The first of those that want the model loaded and that a load would serve, by arrival.

    Not those behind an unload: for their sake the model would take back what it has just given to a younger request,
    and serve others with it.
    """
    served = takewhile(lambda wish: wish.wants_load, model.line)
    return min((wish for wish in served if not wish.is_passive), key=lambda wish: wish.order)
