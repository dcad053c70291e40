"""What follows from a change: every queue is served as far as possible, and what has timed out is refused."""

from __future__ import annotations

import math
import sys

from modelyard.errors import (
    ModelBusy,
    ModelLoading,
    ModelUnloaded,
    ModelyardError,
)
from modelyard.protocol.placement import HOST_NAME
from modelyard.system.quantities import duration_text
from modelyard.yard.residency.allocation import allocate
from modelyard.yard.residency.builder import StateBuilder, load_failure
from modelyard.yard.residency.choice import best_move, gains_by_moving
from modelyard.yard.residency.effects import Grant, Remove
from modelyard.yard.residency.expected_cost import load_seconds
from modelyard.yard.residency.queue import enqueued, without
from modelyard.yard.residency.state import LoadState, ModelState
from modelyard.yard.residency.waiting import MOVE, UnloadMode, Waiter, WaitKind

IDLE_BEFORE_MOVE_S = 5.0
"""Seconds after its last request after which a model may be moved: the next request often follows at once."""


def reconcile(builder: StateBuilder) -> None:
    """Serve every queue as far as possible, and make room for the models that are waited for."""
    _serve_queues(builder)
    _unload_idle(builder)
    _relieve(builder)
    _move(builder)
    if all(_is_settled(builder.models[name]) for name in builder.active):
        # The usual case: nearly every event of a server whose models are loaded ends here.
        return
    while True:
        allocate(builder)
        # A list, so that all three are called: each may change who has to make room for whom.
        if not any([_serve_queues(builder), _expire(builder), _remove_retired(builder)]):
            break
    # Once more: a parked model whose last request was refused is unused now, and may be what exceeds the budget.
    _unload_idle(builder)
    _relieve(builder)
    _move(builder)


def _is_settled(model: ModelState) -> bool:
    """Whether the model has an empty queue, needs no larger context, makes room for no other, and is not retired."""
    return not (model.queue or model.growth) and model.makes_room_since is None and not model.is_retired


def _serve_queues(builder: StateBuilder) -> bool:
    """Serve the queues of all models; return whether any waiter was served."""
    served = False
    for name in sorted(name for name in builder.active if builder.models[name].queue):
        while _serve(builder, name):
            served = True
    return served


def _serve(builder: StateBuilder, name: str) -> bool:
    """Serve the first waiter of a model; return whether that was possible."""
    model = builder.models[name]
    first = model.first
    if first is None:
        return False
    match model.load_state, first.kind:
        case LoadState.LOADED, _ if first.is_request and model.makes_room_since is None:
            leases = {**model.leases, first.request: first.priority}
            builder.set_model(name, model._replace(queue=without(model.queue, first.request), leases=leases))
            builder.effects.append(Grant(name, first.request, first.request in model.suspects))
            return True
        case LoadState.LOADED, WaitKind.LOAD:
            builder.complete(name, model, first)
            return True
        case LoadState.LOADED, WaitKind.UNLOAD:
            if not first.mode.waits or not (model.leases or model.holds):
                suspends, keeps_weights = first.mode is UnloadMode.SUSPEND, first.mode is UnloadMode.PARK
                builder.free(
                    name, suspends=suspends, why="an unload was asked for", reason="asked", keeps_weights=keeps_weights
                )
        case LoadState.PARKED, WaitKind.UNLOAD if first.mode is not UnloadMode.PARK:
            builder.free(name, suspends=False, why="an unload was asked for", reason="asked")
        case ((LoadState.UNLOADED | LoadState.FAILED | LoadState.PARKED), WaitKind.UNLOAD):
            if model.load_state is LoadState.FAILED:
                model = model._replace(load_state=LoadState.UNLOADED)
            builder.complete(name, model, first)
            _after_unload(builder, name, first.mode)
            return True
        case LoadState.FAILED, _ if first.is_request and builder.state.now < model.retry_at:
            builder.set_model(name, model._replace(queue=without(model.queue, first.request)))
            builder.reject(name, first.request, load_failure(builder, model))
            return True
    return False


def _after_unload(builder: StateBuilder, name: str, mode: UnloadMode) -> None:
    """Keep answers that have begun from loading a model again that was unloaded on purpose."""
    model = builder.models[name]
    if mode is UnloadMode.FORCE:
        queue = tuple(waiter for waiter in model.queue if not waiter.has_begun)
        builder.set_model(name, model._replace(queue=queue, holds={}))
        for waiter in model.queue:
            if waiter.has_begun:
                builder.reject(name, waiter.request, ModelUnloaded(model.policy.name))
    elif mode is UnloadMode.SUSPEND:
        queue = tuple(waiter._replace(does_not_trigger_load=waiter.has_begun) for waiter in model.queue)
        holds = {request: hold._replace(does_not_trigger_load=True) for request, hold in model.holds.items()}
        builder.set_model(name, model._replace(queue=queue, holds=holds))


def _unload_idle(builder: StateBuilder) -> None:
    models = builder.models
    # A model that stays for ever when it is idle, as most do, costs nothing here.
    may_go = (name for name in builder.active if models[name].idle_unload_s < math.inf or models[name].is_retired)
    for name in sorted(may_go):
        model = models[name]
        if model.is_unused and model.is_retired:
            builder.free(name, suspends=False, why="it is no longer configured", reason="retired")
            continue
        over_at = model.last_used + model.idle_unload_s
        if not model.is_unused or model.policy.is_pinned or over_at == math.inf:
            continue
        if builder.state.now >= over_at:
            builder.free(
                name, suspends=False, why=f"it was idle for {duration_text(model.idle_unload_s)}", reason="idle"
            )
        else:
            builder.due.append(over_at)


def _relieve(builder: StateBuilder) -> None:
    """Bring memory use back under the budgets, where a load took more than predicted or a budget shrank."""
    state = builder.state
    if not state.exceeded(state.used):
        return
    kept = [name for name in sorted(state.active) if builder.models[name].lasting_bytes]
    for name in sorted(kept, key=lambda name: builder.models[name].last_used):
        if state.used_bytes > state.budget_bytes and builder.models[name].load_state is not LoadState.FREEING:
            builder.discard_kept(name)
    while state.exceeded(state.used):
        staying = [n for n in state.resident() if builder.models[n].load_state is not LoadState.FREEING]
        still = state.exceeded(state.taken(staying, state.weights_alone()))
        movable = [
            n
            for n in staying
            if builder.models[n].is_unused
            and not builder.models[n].policy.is_pinned
            and any(state.taken([n]).get(pool) for pool in still)
        ]
        if not movable or not still:
            return
        first = min(
            movable, key=lambda n: (builder.models[n].load_state is not LoadState.PARKED, builder.models[n].last_used)
        )
        pool = next(pool for pool in still if state.taken([first]).get(pool))
        of = "" if pool == HOST_NAME else f" of {pool}"
        builder.free(first, suspends=False, why=f"more memory{of} is used than the budget has", reason="budget")


def _move(builder: StateBuilder) -> None:
    """Begin to move the unused model that gains most by a faster placement that has room now.

    Only while nobody waits for memory, and one at a time, because a model that is being freed holds no room in its next
    placement. A pinned model stays where it is: while it moves, others may take its memory.
    """
    state = builder.state
    if state.is_closing or not state.device_budgets:
        return
    movable: list[str] = []
    for name in sorted(builder.active):
        model = builder.models[name]
        if model.is_waited_for or (model.only_moves and model.load_state is not LoadState.LOADING):
            return
        if len(model.choices) < 2 or not model.is_idle or model.is_retired or model.policy.is_pinned:
            continue
        if state.now >= model.last_used + IDLE_BEFORE_MOVE_S:
            movable.append(name)
        elif gains_by_moving(model):
            builder.due.append(model.last_used + IDLE_BEFORE_MOVE_S)
    move = best_move(state, movable)
    if move is not None:
        name, footprint = move
        load = builder.waiter(WaitKind.LOAD, MOVE, priority=-sys.maxsize, wait_s=math.inf)
        builder.free(
            name, suspends=False, why="a faster placement has room", reason="move", claimant=name, claimed=footprint
        )
        model = builder.models[name]
        builder.set_model(name, model._replace(queue=enqueued(model.queue, load)))


def _expire(builder: StateBuilder) -> bool:
    """Refuse waiters whose time is over; return whether there were any."""
    now, expired = builder.state.now, False
    for name in sorted(builder.active):
        for waiter in builder.models[name].queue:
            if now < waiter.until:
                builder.due.append(waiter.until)
                continue
            expired = True
            model = builder.models[name]
            builder.set_model(name, model._replace(queue=without(model.queue, waiter.request)))
            builder.reject(name, waiter.request, _too_late(builder, model, waiter))
            model = builder.models[name]
            if waiter.until == waiter.since and not any(
                o.wants_load and not o.does_not_trigger_load and o.request != MOVE for o in model.queue
            ):
                # A client that does not wait is expected to try again: its request triggers a load like a reload.
                load = builder.waiter(WaitKind.LOAD, waiter.request, priority=waiter.priority)
                idle_s = model.policy.idle_unload_s
                builder.set_model(name, model._replace(queue=enqueued(model.queue, load), idle_unload_s=idle_s))
                builder.due.append(load.until)
    return expired


def _too_late(builder: StateBuilder, model: ModelState, waiter: Waiter) -> ModelyardError:
    waited_s = builder.state.now - waiter.since
    if waiter.kind is WaitKind.UNLOAD:
        return ModelBusy(model.policy.name, waited_s)
    remaining_s = load_seconds(model)
    if model.load_state is LoadState.LOADING:
        remaining_s -= builder.state.now - model.load_began
    is_loaded = model.load_state is LoadState.LOADED
    return ModelLoading(model.policy.name, max(1, math.ceil(remaining_s)), waited_s, is_loaded=is_loaded)


def _remove_retired(builder: StateBuilder) -> bool:
    """Remove the retired models that nothing waits for; return whether that gave memory back."""
    gave_back = False
    for name in sorted(builder.active):
        model = builder.models[name]
        if model.is_retired and model.prefix_bytes and not model.is_resident and not model.queue:
            builder.discard_kept(name)
            model, gave_back = builder.models[name], True
        if model.is_retired and model.is_at_rest:
            del builder.models[name]
            builder.active.discard(name)
            builder.effects.append(Remove(name))
    return gave_back
